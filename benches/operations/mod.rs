//! The operations that are measured. Each is written once for all benches: what comes in, and what is done between two batches.
//!
//! An operation runs on a [`Host`] or a [`Device`], and there are two of each: this crate as a careful host would use it (`host.rs`,
//! `device.rs`), and the floor (`../floor/`). Both sides see the same bytes at the same moments, and [`Operation::check`] asserts that they
//! answer the same, byte for byte.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "each bench uses a part, counts its own numbers, and fails by a panic"
)]

pub(crate) mod client;
pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod server;

use core::hint::black_box;
use core::ops::Range;
use core::time::Duration;
use std::time::Instant;

use time::OffsetDateTime;

/// One side of an operation: this crate, or its floor.
pub(crate) trait Side {
    /// Prepares a batch, which is not measured: requests, moments, and sessions in the state with which the operation begins.
    fn prepare(&mut self);

    /// Runs these turns of the batch, which has [`Operation::turns`] in all.
    fn run(&mut self, turns: Range<usize>);

    /// Returns what the last turn answered.
    fn answer(&self) -> String;
}

/// An operation with both its sides.
pub(crate) struct Operation {
    /// How many turns a batch has.
    pub(crate) turns: usize,
    pub(crate) ours: Box<dyn Side>,
    pub(crate) floor: Box<dyn Side>,
}

impl Operation {
    /// Runs one batch on each side, and asserts that the answers are the same.
    pub(crate) fn check(mut self, name: &str) -> Self {
        for side in [&mut self.ours, &mut self.floor] {
            side.prepare();
            side.run(0..self.turns);
        }
        assert_eq!(self.ours.answer(), self.floor.answer(), "{name}");
        self
    }
}

/// Returns the time of the first `turns` turns of a batch. The preparation is not measured.
pub(crate) fn time(side: &mut dyn Side, turns: usize) -> Duration {
    side.prepare();
    let start = Instant::now();
    side.run(0..turns);
    start.elapsed()
}

/// Every operation, except `pending` among many sessions.
pub(crate) const NAMES: [&str; 16] = [
    "issue",
    "pending",
    "too_soon",
    "success",
    "refresh",
    "unknown",
    "foreign",
    "malformed",
    "basic",
    "enter",
    "approve",
    "client_start",
    "client_pending",
    "client_slow_down",
    "client_success",
    "client_success_4k",
];

/// Returns the operation with this name.
pub(crate) fn named(name: &str) -> Operation {
    let (ours, floor) = server::sides(name).or_else(|| client::sides(name)).unwrap();
    let turns = if name.starts_with("client") {
        client::TURNS
    } else {
        server::TURNS
    };
    Operation { turns, ours, floor }.check(name)
}

/// Both sides of an operation.
pub(crate) type Sides = (Box<dyn Side>, Box<dyn Side>);

/// A reading of the server's clock, as each side keeps it. To read the clock is the host's work, and is not measured.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) millis: i64,
    pub(crate) date: OffsetDateTime,
}

impl Moment {
    /// Returns the moment this many milliseconds after the beginning of the bench, in 2027.
    pub(crate) fn after(millis: i64) -> Self {
        let millis = 1_800_000_000_000 + millis;
        let nanos = i128::from(millis) * 1_000_000;
        Self {
            millis,
            date: OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap(),
        }
    }
}

/// The response of a host, taken as a socket would: the body is copied over the one before, and every header is looked at.
#[derive(Default)]
pub(crate) struct Out {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Out {
    #[inline]
    pub(crate) fn head(&mut self, status: u16) {
        self.status = status;
        self.body.clear();
    }

    #[inline]
    pub(crate) fn header(name: &str, value: &str) {
        black_box((name, value));
    }

    #[inline]
    pub(crate) fn push(&mut self, body: &[u8]) {
        self.body.extend_from_slice(body);
    }

    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// A generator of what hosts draw: splitmix64, from a fixed seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap() % end
    }

    pub(crate) fn entropy(&mut self) -> [u8; 48] {
        let mut octets = [0; 48];
        for word in octets.as_chunks_mut().0 {
            *word = self.next().to_le_bytes();
        }
        octets
    }

    /// Returns a text of this many characters of base64url, like a token.
    pub(crate) fn token(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let character = |_| char::from(ALPHABET[self.below(64)]);
        (0..length).map(character).collect()
    }
}
