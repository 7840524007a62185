//! The operations of the client half.

use core::hint::black_box;
use core::ops::Range;
use core::time::Duration;

use super::device::{Answer, Device, Ours};
use super::{Random, Side, Sides};
use crate::floor::client::Floor;

/// How many turns a batch has. There are so few that the pollers which a success uses up fit the cache.
pub(crate) const TURNS: usize = 32;

/// The time between two polls. It is longer than any interval that a batch can reach.
const GAP: Duration = Duration::from_secs(1000);

const PENDING: &str =
    r#"{"error":"authorization_pending","error_description":"the user has not decided yet"}"#;
const SLOW_DOWN: &str =
    r#"{"error":"slow_down","error_description":"polling too fast","interval":10}"#;

/// The response with codes, which live for a long time.
const ISSUED: &str = r#"{"device_code":"GmRhmhcxhwAzkoEqiMEgDnyEysNkuNhszIySk9eSaQ0","user_code":"WDJB-MJHT","verification_uri":"https://login.example.com/device","expires_in":1000000,"interval":5}"#;

/// Returns both sides of an operation of this half.
pub(crate) fn sides(name: &str) -> Option<Sides> {
    Some(match name {
        "client_start" => (
            Box::new(Starts::<Ours>::new()),
            Box::new(Starts::<Floor>::new()),
        ),
        "client_pending" => turns(400, PENDING),
        "client_slow_down" => turns(400, SLOW_DOWN),
        "client_success" => turns(200, &tokens(600, 400)),
        "client_success_4k" => turns(200, &tokens(2_200, 1_700)),
        _ => return None,
    })
}

/// Returns a token response as the server half writes it.
fn tokens(access_token: usize, id_token: usize) -> String {
    let mut random = Random(5);
    let access_token = random.token(access_token);
    let refresh_token = random.token(43);
    let id_token = random.token(id_token);
    format!(
        r#"{{"access_token":"{access_token}","token_type":"Bearer","refresh_token":"{refresh_token}","id_token":"{id_token}","scope":"openid profile email offline_access","expires_in":300}}"#
    )
}

fn turns(status: u16, body: &str) -> Sides {
    let ours = Turns::<Ours>::new(status, body);
    (Box::new(ours), Box::new(Turns::<Floor>::new(status, body)))
}

/// Asking for codes.
struct Starts<D: Device> {
    device: D,
    started: usize,
}

impl<D: Device> Starts<D> {
    fn new() -> Self {
        Self {
            device: D::new(),
            started: 0,
        }
    }
}

impl<D: Device> Side for Starts<D> {
    fn prepare(&mut self) {
        self.started = 0;
    }

    fn run(&mut self, turns: Range<usize>) {
        for _ in turns {
            let body = black_box(ISSUED.as_bytes());
            black_box(self.device.start(body, GAP));
            self.started += 1;
        }
    }

    fn answer(&self) -> String {
        self.started.to_string()
    }
}

/// Turns of polling. While the device has to wait, all turns are of one device. If the answer ends a login, each turn has its own device.
struct Turns<D: Device> {
    device: D,
    status: u16,
    body: String,
    pollers: Vec<Option<D::Poller>>,
    done: usize,
}

impl<D: Device> Turns<D> {
    fn new(status: u16, body: &str) -> Self {
        Self {
            device: D::new(),
            status,
            body: body.to_owned(),
            pollers: Vec::new(),
            done: 0,
        }
    }
}

impl<D: Device> Side for Turns<D> {
    fn prepare(&mut self) {
        self.done = 0;
        self.pollers.clear();
        let count = if self.status == 200 { TURNS } else { 1 };
        let start = || self.device.start(ISSUED.as_bytes(), Duration::ZERO);
        self.pollers.extend((0..count).map(|_| Some(start())));
    }

    fn run(&mut self, turns: Range<usize>) {
        let count = self.pollers.len();
        let mut now = GAP * u32::try_from(turns.start + 1).unwrap();
        for turn in turns {
            let poller = if count == 1 { 0 } else { turn };
            let answer = black_box(Answer {
                status: self.status,
                body: self.body.as_bytes(),
            });
            let done = self.device.turn(&mut self.pollers[poller], answer, now);
            self.done += usize::from(done);
            now += GAP;
        }
    }

    fn answer(&self) -> String {
        self.done.to_string()
    }
}
