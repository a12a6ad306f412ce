//! Runs the models: each explores every order of its threads, up to three preemptions.

use model::models;

#[test]
fn single_flight() {
    models::single_flight();
}

#[test]
fn panic_while_opening() {
    models::panic_while_opening();
}

#[test]
fn removal_while_waiting() {
    models::removal_while_waiting();
}

#[test]
fn take_over_races_a_late_result() {
    models::take_over_races_a_late_result();
}

#[test]
fn cycle_of_two() {
    models::cycle_of_two();
}

#[test]
fn successor_takes_the_place() {
    models::successor_takes_the_place();
}
