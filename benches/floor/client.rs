//! The floor of the client half.

use core::hint::black_box;
use core::time::Duration;

use serde::Deserialize;

use crate::operations::device::{Answer, Device};
use crate::operations::host::{PUBLIC, SCOPE};

/// The device without this crate.
pub(crate) struct Floor;

/// What the device keeps between two answers.
pub(crate) struct Poller {
    request: String,
    interval: Duration,
    wake: Duration,
    deadline: Duration,
}

#[derive(Deserialize)]
struct Issued {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    error: &'a str,
    interval: Option<u64>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the caller would use them")]
struct Tokens {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
    id_token: Option<String>,
    scope: Option<String>,
}

impl Device for Floor {
    type Poller = Poller;

    fn new() -> Self {
        Self
    }

    #[inline(never)]
    fn start(&self, body: &[u8], now: Duration) -> Poller {
        let scope = SCOPE.replace(' ', "+");
        let request = format!("client_id={PUBLIC}&scope={scope}");
        black_box(&request);
        let issued: Issued = serde_json::from_slice(body).unwrap();
        black_box((&issued.user_code, &issued.verification_uri));
        let interval = Duration::from_secs(issued.interval.unwrap_or(5));
        let code = issued.device_code;
        Poller {
            request: format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code={code}&client_id={PUBLIC}"
            ),
            interval,
            wake: now + interval,
            deadline: now + Duration::from_secs(issued.expires_in),
        }
    }

    #[inline(never)]
    fn turn(&self, poller: &mut Option<Poller>, answer: Answer<'_>, now: Duration) -> bool {
        let Some(own) = poller else {
            return false;
        };
        assert!(now >= own.wake && now < own.deadline);
        black_box(&own.request);
        if answer.status == 200 {
            let tokens: Tokens = serde_json::from_slice(answer.body).unwrap();
            black_box(&tokens);
            return true;
        }
        let refusal: Refusal<'_> = serde_json::from_slice(answer.body).unwrap();
        match refusal.error {
            "authorization_pending" => {}
            "slow_down" => {
                let told = Duration::from_secs(refusal.interval.unwrap_or(0));
                own.interval = told.max(own.interval + Duration::from_secs(5));
            }
            other => panic!("{other}"),
        }
        own.wake = now + own.interval;
        false
    }
}
