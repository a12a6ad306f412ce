//! The wire: every value comes back as it was, and no bytes are trusted.
#![expect(clippy::needless_borrow, reason = "the form is asked for as the macro asks for it")]

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::way::{ByBytes as _, ByMessage as _, Way};
use super::wire::{Input, Malformed, Take, Wire};

/// Writes a value, reads it back, and reads every shorter and one longer message, which are none.
fn round<T: Wire + for<'b> Take<'b> + PartialEq + Debug>(value: T, name: &str) {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    let read = |bytes: &[u8]| -> Result<T, Malformed> {
        let mut input = Input::new(bytes);
        let value = T::take(&mut input)?;
        input.end().map(|()| value)
    };
    assert_eq!(read(&bytes), Ok(value), "{name}");
    assert_eq!(T::name(), name);
    for cut in 0..bytes.len() {
        assert!(read(&bytes[..cut]).is_err(), "{name}: {cut} of {} bytes are no value", bytes.len());
    }
    bytes.push(0);
    assert!(read(&bytes).is_err(), "{name}: a byte too many");
}

#[test]
fn values_come_back_as_they_were() {
    round(0_u8, "u8");
    round(i8::MIN, "i8");
    round(u16::MAX, "u16");
    round(i32::MIN, "i32");
    round(u64::MAX, "u64");
    round(i128::MIN, "i128");
    round(usize::MAX, "usize");
    round(isize::MIN, "isize");
    round(f64::MIN_POSITIVE, "f64");
    round(true, "bool");
    round('\u{10ffff}', "char");
    round((), "()");
    round("caf\u{e9}".to_owned(), "String");
    round(vec![0_u8, 255], "Vec<u8>");
    round(Vec::<String>::new(), "Vec<String>");
    round(vec![Some(String::new()), None], "Vec<Option<String>>");
    round(Some(vec![1_i64, -1]), "Option<Vec<i64>>");
    round::<Result<u32, String>>(Err("no".to_owned()), "Result<u32, String>");
    round::<Result<u32, String>>(Ok(3), "Result<u32, String>");
}

#[test]
fn wrong_bytes_are_no_value() {
    assert!(bool::take(&mut Input::new(&[2])).is_err());
    assert!(char::take(&mut Input::new(&0xd800_u32.to_le_bytes())).is_err(), "a surrogate");
    assert!(String::take(&mut Input::new(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff])).is_err(), "no UTF-8");
    let endless = u64::MAX.to_le_bytes();
    assert!(String::take(&mut Input::new(&endless)).is_err());
    assert!(Vec::<u64>::take(&mut Input::new(&endless)).is_err(), "reserves nothing for what is not there");
    assert!(Vec::<()>::take(&mut Input::new(&endless)).is_err());
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Mail {
    to: String,
    #[serde(default)]
    copies: u32,
}

#[derive(Serialize)]
struct OlderMail {
    to: String,
}

#[test]
fn serde_types_cross_as_messages_and_may_grow() {
    let way = (&&Way::<Mail>::NEW).way();
    assert_eq!(way.name::<Mail>("Mail"), "Mail as MessagePack");
    let mut bytes = Vec::new();
    way.put(&OlderMail { to: "ann".to_owned() }, &mut bytes).unwrap();
    7_u8.put(&mut bytes);
    let mut input = Input::new(&bytes);
    assert_eq!(way.take::<Mail>(&mut input), Ok(Mail { to: "ann".to_owned(), copies: 0 }));
    assert_eq!(u8::take(&mut input), Ok(7), "the next argument is where the message ends");
    for cut in 0..bytes.len() - 1 {
        assert!(way.take::<Mail>(&mut Input::new(&bytes[..cut])).is_err());
    }
}

/// However the author wrote the type, the list of methods says what is on the wire.
#[test]
fn aliases_have_the_name_of_what_they_stand_for() {
    type Number = u64;
    let way = (&&Way::<Number>::NEW).way();
    assert_eq!(way.name::<Number>("Number"), "u64");
    assert_eq!((&&Way::<[u8]>::NEW).way().name::<[u8]>("[u8]"), "Vec<u8>");
    assert_eq!((&&Way::<str>::NEW).way().name::<str>("str"), "String");
}

#[plugin_api::resident]
trait Both: Send + Sync {
    fn two(&self, one: &str, other: Number) -> crate::Result<Option<Mail>>;
    fn none(&self) -> crate::Result<()>;
}

type Number = i16;

struct Echo;

impl Both for Echo {
    fn two(&self, one: &str, other: Number) -> crate::Result<Option<Mail>> {
        Ok(Some(Mail { to: one.to_owned(), copies: u32::try_from(other)? }))
    }

    fn none(&self) -> crate::Result<()> {
        Ok(())
    }
}

/// The maker's end, without a host: dispatch by number, in the trait's order.
#[test]
fn methods_are_served_by_their_number() {
    use super::{Interface, Refusal};
    let echo: &dyn Both = &Echo;
    assert_eq!(
        <dyn Both>::methods(),
        "fn two(&self, one: String, other: i16) -> Option<Mail> as MessagePack\nfn none(&self) -> ()\n"
    );
    let mut arguments = Vec::new();
    "ann".put(&mut arguments);
    3_i16.put(&mut arguments);
    let mut answer = Vec::new();
    echo.serve(0, &arguments, &mut answer).unwrap();
    let back = (&&Way::<Option<Mail>>::NEW).way().take::<Option<Mail>>(&mut Input::new(&answer));
    assert_eq!(back, Ok(Some(Mail { to: "ann".to_owned(), copies: 3 })));
    assert!(
        matches!(echo.serve(1, &arguments, &mut answer), Err(Refusal::Malformed(_))),
        "too many arguments"
    );
    assert!(matches!(echo.serve(0, &arguments[..5], &mut answer), Err(Refusal::Malformed(_))));
    assert!(matches!(echo.serve(2, &[], &mut answer), Err(Refusal::NoMethod)));
    let mut negative = Vec::new();
    "ann".put(&mut negative);
    (-3_i16).put(&mut negative);
    assert!(matches!(echo.serve(0, &negative, &mut answer), Err(Refusal::Failed(_))));
}
