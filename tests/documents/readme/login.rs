use core::{ops::ControlFlow, time::Duration};
use device_flow::client::{DeviceFlow, Endpoints, Request, Response, Tokens, TransportError};

fn login(
    send: impl FnMut(Request) -> Result<Response<Vec<u8>>, TransportError>,
    now: impl Fn() -> Duration, // of a monotonic clock: `started.elapsed()`
    sleep: impl Fn(Duration),
) -> Result<Tokens, Box<dyn core::error::Error>> {
    let endpoints = Endpoints::new(
        "https://login.example.com/oauth2/device_authorization",
        "https://login.example.com/oauth2/token",
    )?;
    let flow = DeviceFlow::new(endpoints, "client_cli").scope("openid offline_access");
    Ok(flow.login()?.run_blocking(
        now,
        send,
        |prompt| println!("Open {} and enter {}", prompt.verification_uri, prompt.user_code),
        |span, _waiting_for| { sleep(span); ControlFlow::Continue(()) }, // or `Break`
    )?)
}
