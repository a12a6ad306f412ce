//! The smallest plugin worth copying.
#![forbid(unsafe_code)]
use plugin_api::prelude::*;

plugin! {
    routes: { GET "/" => index, GET "/{name}" => greet },
}

fn index(_: &Request) -> &'static str {
    "hello, world\n"
}

fn greet(req: &Request) -> Result<String> {
    Ok(format!("hello, {}\n", req.param::<String>("name")?))
}
