//! Table L: what the policy's constructor refuses.

use core::time::Duration;

use device_flow::code::{ShapeError, UserCodeShape};
use device_flow::server::{
    Cause, PageError, Policy, PolicyError, PolicyOptions, RateLimit, RefreshOptions,
};
use proptest::prelude::*;

use crate::support::{
    self, Host, NOW, PAGE, SOURCE, alice, assert_reply, cli, error_body, policy, policy_of, post,
    server, server_of, subject, with_refresh,
};

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const DAY: Duration = secs(24 * 60 * 60);

/// Returns options whose codes cannot be guessed at any lifetime, so that L6 never refuses them.
fn roomy() -> PolicyOptions {
    PolicyOptions {
        outstanding: 1,
        ..PolicyOptions::default()
    }
}

#[track_caller]
fn refused(options: PolicyOptions, error: PolicyError) {
    assert_eq!(Policy::new(PAGE, options).map(drop), Err(error));
}

#[track_caller]
pub(super) fn accepted(options: PolicyOptions) -> Policy {
    policy_of(options)
}

#[test]
fn the_default_is_accepted_and_is_that_of_the_tables() {
    let policy = policy();
    assert_eq!(policy.options().interval, secs(5));
    assert_eq!(policy.options().lifetime, secs(300));
}

// L1

#[test]
fn l1_an_interval_outside_1_to_60_s_is_refused() {
    for outside in [Duration::ZERO, secs(61), secs(3600), Duration::MAX] {
        // With a cap and a lifetime that suit this interval, if there are any.
        let cap = outside.max(secs(60)).min(secs(4_000_000_000));
        refused(
            PolicyOptions {
                interval: outside,
                cap,
                lifetime: DAY,
                ..roomy()
            },
            PolicyError::Interval,
        );
        refused(
            PolicyOptions {
                interval: outside,
                ..roomy()
            },
            PolicyError::Interval,
        );
    }
    for inside in [1, 2, 5, 59, 60] {
        let policy = accepted(PolicyOptions {
            interval: secs(inside),
            ..roomy()
        });
        assert_eq!(policy.options().interval, secs(inside));
    }
}

#[test]
fn l1_an_interval_that_is_not_whole_seconds_is_refused() {
    for part in [
        Duration::from_millis(500),
        Duration::from_millis(5_500),
        Duration::from_millis(59_999),
        secs(5) + Duration::from_nanos(1),
    ] {
        refused(
            PolicyOptions {
                interval: part,
                ..roomy()
            },
            PolicyError::Interval,
        );
    }
}

#[test]
fn l1_a_cap_under_the_interval_is_refused() {
    for (interval, cap) in [(5, 4), (5, 0), (60, 59), (2, 1)] {
        let options = PolicyOptions {
            interval: secs(interval),
            cap: secs(cap),
            ..roomy()
        };
        refused(options, PolicyError::Cap);
    }
    for (interval, cap) in [(5, 5), (60, 60), (1, 1), (5, 6), (5, 300)] {
        accepted(PolicyOptions {
            interval: secs(interval),
            cap: secs(cap),
            ..roomy()
        });
    }
}

#[test]
fn l1_a_cap_over_5_minutes_is_refused() {
    accepted(PolicyOptions {
        cap: secs(300),
        ..roomy()
    });
    accepted(PolicyOptions {
        interval: secs(60),
        cap: secs(300),
        ..roomy()
    });
    for over in [secs(301), secs(3600), secs(u64::MAX), Duration::MAX] {
        refused(
            PolicyOptions {
                cap: over,
                ..roomy()
            },
            PolicyError::Cap,
        );
    }
}

/// `interval` and `Retry-After` are in whole seconds.
#[test]
fn l1_a_cap_that_is_not_whole_seconds_is_refused() {
    for part in [7_500, 59_999, 299_999] {
        refused(
            PolicyOptions {
                cap: Duration::from_millis(part),
                ..roomy()
            },
            PolicyError::Cap,
        );
    }
}

// L2

#[test]
fn l2_a_lifetime_under_twice_the_interval_is_refused() {
    for interval in [1, 5, 60] {
        let with = |lifetime| PolicyOptions {
            interval: secs(interval),
            lifetime,
            ..roomy()
        };
        refused(with(Duration::ZERO), PolicyError::Lifetime);
        refused(with(secs(interval)), PolicyError::Lifetime);
        refused(with(secs(2 * interval - 1)), PolicyError::Lifetime);
        let policy = accepted(with(secs(2 * interval)));
        assert_eq!(policy.options().lifetime, secs(2 * interval));
    }
}

#[test]
fn l2_a_lifetime_over_a_day_is_refused() {
    accepted(PolicyOptions {
        lifetime: DAY,
        ..roomy()
    });
    for over in [DAY + secs(1), DAY * 2, secs(u64::MAX), Duration::MAX] {
        refused(
            PolicyOptions {
                lifetime: over,
                ..roomy()
            },
            PolicyError::Lifetime,
        );
    }
}

/// `expires_in` is in whole seconds (RFC 8628, section 3.2).
#[test]
fn l2_a_lifetime_that_is_not_whole_seconds_is_refused() {
    let part = Duration::from_millis(300_500);
    refused(
        PolicyOptions {
            lifetime: part,
            ..roomy()
        },
        PolicyError::Lifetime,
    );
}

/// The first row that matches decides.
#[test]
fn l1_comes_before_l2() {
    for lifetime in [
        Duration::ZERO,
        DAY * 2,
        // Too long for 32 bits; not in whole seconds.
        secs(u64::MAX),
        Duration::from_millis(1),
    ] {
        let with = || PolicyOptions {
            lifetime,
            ..roomy()
        };
        refused(
            PolicyOptions {
                interval: secs(0),
                ..with()
            },
            PolicyError::Interval,
        );
        refused(
            PolicyOptions {
                cap: secs(1),
                ..with()
            },
            PolicyError::Cap,
        );
    }
}

// L3

fn at(uri: &str) -> Result<(), PolicyError> {
    Policy::new(uri, PolicyOptions::default()).map(drop)
}

#[test]
fn l3_a_verification_uri_that_is_not_https_is_refused_but_on_loopback() {
    for not_https in [
        "http://login.example.com/device",
        "HTTP://login.example.com/device",
        "http://10.0.0.1/device",
        "http://192.168.1.1/device",
        "http://128.0.0.1/device",
        "http://0.0.0.0/device",
        "http://[::2]/device",
        "http://[fe80::1]/device",
        "ftp://login.example.com/device",
        "file:///device",
        "javascript://login.example.com/device",
        "httpss://login.example.com/device",
        "xhttps://login.example.com/device",
        // No URI at all, or a relative one.
        "",
        "https",
        "https:",
        "https:/login.example.com/device",
        "https:login.example.com/device",
        "login.example.com/device",
        "//login.example.com/device",
        "/device",
        " https://login.example.com/device",
    ] {
        assert_eq!(
            at(not_https),
            Err(PolicyError::VerificationUri),
            "{not_https}"
        );
    }
    for loopback in [
        "http://localhost/device",
        "http://LOCALHOST/device",
        "http://localhost",
        "http://localhost:8080/device",
        "http://127.0.0.1/device",
        "http://127.0.0.1:8080/device",
        "http://127.255.255.254/device",
        "http://[::1]/device",
        "http://[::1]:8080/device",
    ] {
        assert_eq!(at(loopback), Ok(()), "{loopback}");
    }
}

/// A host name that only begins or ends like a loopback name may belong to somebody else.
#[test]
fn l3_a_host_that_only_looks_like_loopback_is_refused_without_https() {
    for other in [
        "http://localhost.example.com/device",
        "http://localhostx/device",
        "http://xlocalhost/device",
        "http://127.0.0.1.example.com/device",
        "http://127.0.0.1x/device",
        "http://localhost:80@example.com/device",
    ] {
        assert_eq!(at(other), Err(PolicyError::VerificationUri), "{other}");
    }
}

/// After the host, an authority has a port or nothing (RFC 3986, section 3.2).
#[test]
fn l3_an_authority_that_goes_on_after_a_loopback_address_is_not_loopback() {
    for other in [
        "http://[::1].example.com/device",
        "http://[::1]x/device",
        "http://127.0.0.1:80.example.com/device",
        "http://localhost:80x/device",
    ] {
        assert_eq!(at(other), Err(PolicyError::VerificationUri), "{other}");
    }
}

#[test]
fn l3_https_is_accepted_with_any_host_port_and_path() {
    for right in [
        "https://login.example.com/device",
        "https://login.example.com",
        "https://login.example.com/",
        "https://login.example.com:8443/a/b/c",
        "HTTPS://login.example.com/device",
        "https://192.0.2.1/device",
        "https://[2001:db8::1]:8443/device",
        "https://xn--bcher-kva.example/device",
        "https://login.example.com/ger%C3%A4t",
        "https://login.example.com/device;v=1",
        "https://localhost/device",
    ] {
        assert_eq!(at(right), Ok(()), "{right}");
    }
}

/// Clients refuse a longer one, as this crate's client does.
#[test]
fn l3_a_verification_uri_of_more_than_2048_bytes_is_refused() {
    let start = "https://login.example.com/";
    let of = |length: usize| format!("{start}{}", "x".repeat(length - start.len()));
    assert_eq!(at(&of(2048)), Ok(()));
    assert_eq!(at(&of(2049)), Err(PolicyError::VerificationUri));
}

/// The user code is added to the URI, and users type the URI.
#[test]
fn l3_a_query_a_fragment_or_userinfo_is_refused() {
    for more in [
        "https://login.example.com/device?a=b",
        "https://login.example.com/device?",
        "https://login.example.com?a=b",
        "https://login.example.com/device#top",
        "https://login.example.com/device#",
        "https://login.example.com#top",
        "https://login.example.com/device?a=b#top",
        "https://user@login.example.com/device",
        "https://user:password@login.example.com/device",
        "https://@login.example.com/device",
        "https://login.example.com@evil.example/device",
        "http://user@localhost/device",
        "http://localhost/device?a=b",
        "http://localhost/device#top",
    ] {
        assert_eq!(at(more), Err(PolicyError::VerificationUri), "{more}");
    }
}

#[test]
fn l3_a_character_outside_visible_ascii_is_refused() {
    for character in [
        " ",
        "\t",
        "\n",
        "\r",
        "\0",
        "\u{7F}",
        "\u{80}",
        "\u{E9}",
        "\u{1F600}",
    ] {
        for uri in [
            format!("https://login.example.com/de{character}vice"),
            format!("https://login{character}.example.com/device"),
            format!("https://login.example.com/device{character}"),
            format!("{character}https://login.example.com/device"),
        ] {
            assert_eq!(at(&uri), Err(PolicyError::VerificationUri), "{uri}");
        }
    }
}

/// The URI is written into JSON as it is.
#[test]
fn l3_a_character_that_json_would_escape_is_refused() {
    for character in ["\"", "\\"] {
        let uri = format!("https://login.example.com/de{character}vice");
        assert_eq!(at(&uri), Err(PolicyError::VerificationUri), "{uri}");
    }
}

#[test]
fn l3_an_empty_host_is_refused() {
    for empty in [
        "https://",
        "https:///device",
        "https://:443/device",
        "http:///device",
    ] {
        assert_eq!(at(empty), Err(PolicyError::VerificationUri), "{empty}");
    }
}

// L4

fn poll_of(client_id: &str) -> String {
    support::poll_body(client_id, support::NO_CODE)
}

/// `quoted-string` (RFC 9110, section 5.6.4).
#[test]
fn l4_a_realm_outside_printable_ascii_or_with_quote_or_backslash_is_refused() {
    for character in [
        "\"", "\\", "\n", "\r", "\0", "\t", "\u{1F}", "\u{7F}", "\u{80}", "\u{E9}", "\u{201C}",
    ] {
        for realm in [
            character.to_owned(),
            format!("a{character}"),
            format!("{character}a"),
            format!("a{character}b"),
        ] {
            refused(PolicyOptions { realm, ..roomy() }, PolicyError::Realm);
        }
    }
}

#[test]
fn l4_every_other_printable_character_may_stand_in_a_realm() {
    let all: String = (0x20_u8..=0x7E)
        .map(char::from)
        .filter(|character| !matches!(character, '"' | '\\'))
        .collect();
    let policy = accepted(PolicyOptions {
        realm: all.clone(),
        ..roomy()
    });
    let server = server_of(policy);
    let reply = Host::new([]).run(server.token(post(&poll_of("gone")), SOURCE, NOW));
    let challenge = format!("Basic realm=\"{all}\"");
    let challenge = [("www-authenticate", challenge.as_str())];
    let body = error_body("invalid_client", "client authentication failed");
    assert_reply(&reply, Cause::UnknownClient, 401, &challenge, &body);
}

// L5

fn shape(alphabet: &str, length: u8) -> Result<(), ShapeError> {
    UserCodeShape::new(alphabet, length).map(|_| ())
}

#[test]
fn l5_an_alphabet_with_a_repeated_character_is_refused() {
    for repeated in [
        "00123456789",
        "01234567890",
        "BCDFGHJKLMB",
        "BCDFGHJKKLM",
        "AAAAAAAAAA",
    ] {
        assert_eq!(shape(repeated, 8), Err(ShapeError::Repeated));
    }
}

/// The case of a typed code is ignored, so `B` and `b` cannot be told apart.
#[test]
fn l5_an_alphabet_with_a_letter_in_both_cases_is_refused() {
    for ambiguous in [
        "BCDFGHJKLMb",
        "bBCDFGHJKLM",
        "abcdefghijA",
        "0123456789Zz",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    ] {
        assert_eq!(shape(ambiguous, 8), Err(ShapeError::Repeated));
    }
}

#[test]
fn l5_an_alphabet_with_a_character_that_is_not_alphanumeric_is_refused() {
    for character in [
        "-",
        " ",
        "_",
        "+",
        ".",
        "@",
        "[",
        "`",
        "{",
        "/",
        ":",
        "\0",
        "\u{7F}",
        "\u{E9}",
        "\u{FF21}",
        "\u{212A}",
        "\u{661}",
        "\u{1F600}",
    ] {
        for alphabet in [
            format!("{character}BCDFGHJKLM"),
            format!("BCDFGHJKLM{character}"),
            format!("BCDFG{character}HJKLM"),
        ] {
            assert_eq!(shape(&alphabet, 8), Err(ShapeError::Character));
        }
    }
}

#[test]
fn l5_an_alphabet_of_fewer_than_10_characters_is_refused() {
    for few in ["", "0", "01", "012345678", "BCDFGHJKL"] {
        assert_eq!(shape(few, 8), Err(ShapeError::TooFew));
    }
    for enough in ["0123456789", "BCDFGHJKLM", "bcdfghjklm", "0123456789abcdef"] {
        assert_eq!(shape(enough, 8), Ok(()));
    }
    let widest = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    assert_eq!(shape(widest, 12), Ok(()));
}

/// The default is the alphabet that RFC 8628, section 6.1, proposes: "BCDFGHJKLMNPQRSTVWXZ", with 20^8 combinations, which are 34.5 bits.
#[test]
fn l5_the_default_alphabet_is_that_of_the_rfc() {
    assert_eq!(UserCodeShape::CONSONANTS, "BCDFGHJKLMNPQRSTVWXZ");
    let shape = UserCodeShape::default();
    assert_eq!(shape.length(), 8);
    assert_eq!(shape.combinations(), 25_600_000_000);
    let same = UserCodeShape::new(UserCodeShape::CONSONANTS, 8).unwrap();
    assert_eq!(same.combinations(), shape.combinations());
}

#[test]
fn l5_a_length_of_none_or_over_16_or_of_too_many_combinations_is_refused() {
    assert_eq!(shape("0123456789", 0), Err(ShapeError::Length));
    assert_eq!(shape("0123456789", 17), Err(ShapeError::Length));
    assert_eq!(shape("0123456789", 255), Err(ShapeError::Length));
    assert_eq!(shape("0123456789", 1), Ok(()));
    assert_eq!(shape("0123456789", 16), Ok(()));
    // 36^12 has 63 bits, 36^13 has 68; 20^14 has 61, 20^15 has 65.
    let widest = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    assert_eq!(shape(widest, 12), Ok(()));
    assert_eq!(shape(widest, 13), Err(ShapeError::TooManyCombinations));
    let consonants = UserCodeShape::CONSONANTS;
    assert_eq!(shape(consonants, 14), Ok(()));
    assert_eq!(shape(consonants, 15), Err(ShapeError::TooManyCombinations));
}

// L6

fn consonants(length: u8) -> UserCodeShape {
    UserCodeShape::new(UserCodeShape::CONSONANTS, length).unwrap()
}

/// The default is accepted. With a million outstanding sessions, a code needs 10 characters.
#[test]
fn l6_the_examples_of_the_table() {
    accepted(PolicyOptions::default());
    let million = |length| PolicyOptions {
        outstanding: 1_000_000,
        user_code: consonants(length),
        ..PolicyOptions::default()
    };
    refused(million(8), PolicyError::Guessable);
    refused(million(9), PolicyError::Guessable);
    accepted(million(10));
}

/// Ten guesses are possible within a lifetime, so there may be 20^8 / 2^16 / 10 = 39,062.5 sessions.
#[test]
fn l6_the_chance_of_a_key_in_a_lifetime_stays_below_2_to_the_minus_16() {
    accepted(PolicyOptions {
        outstanding: 39_062,
        ..PolicyOptions::default()
    });
    refused(
        PolicyOptions {
            outstanding: 39_063,
            ..PolicyOptions::default()
        },
        PolicyError::Guessable,
    );
    refused(
        PolicyOptions {
            outstanding: u64::MAX,
            ..PolicyOptions::default()
        },
        PolicyError::Guessable,
    );
}

#[test]
fn l6_the_guesses_of_a_lifetime_are_the_burst_and_what_comes_back() {
    // The number of guesses times the number of sessions may be 20^8 / 2^16 = 390,625.
    let with = |burst, period, lifetime, outstanding| PolicyOptions {
        guess_limit: RateLimit::new(burst, secs(period)).unwrap(),
        lifetime: secs(lifetime),
        outstanding,
        ..PolicyOptions::default()
    };
    // 5 and 20 are 25 guesses, so there may be 15,625 sessions.
    accepted(with(5, 60, 1200, 15_625));
    refused(with(5, 60, 1200, 15_626), PolicyError::Guessable);
    // A part of a period counts as a whole period.
    refused(with(5, 60, 1201, 15_625), PolicyError::Guessable);
    // Only one guess comes back within this lifetime. 624 and 1 are 625 guesses, so there may be 625 sessions.
    accepted(with(624, 86_400, 300, 625));
    refused(with(625, 86_400, 300, 625), PolicyError::Guessable);
    refused(with(u32::MAX, 1, 300, u64::MAX), PolicyError::Guessable);
}

#[test]
fn l6_longer_codes_and_wider_alphabets_make_room() {
    let digits = |length| {
        let shape = UserCodeShape::new("0123456789", length).unwrap();
        PolicyOptions {
            user_code: shape,
            ..PolicyOptions::default()
        }
    };
    // 10 guesses times 10,000 sessions times 2^16 are 6.6e9.
    refused(digits(9), PolicyError::Guessable);
    accepted(digits(10));
    refused(
        PolicyOptions {
            user_code: consonants(7),
            ..PolicyOptions::default()
        },
        PolicyError::Guessable,
    );
    accepted(PolicyOptions {
        user_code: consonants(14),
        ..PolicyOptions::default()
    });
}

/// The constructor assumes ten guesses within a lifetime, and the limit allows no more.
#[test]
fn l6_the_guess_limit_of_the_policy_gives_ten_guesses_in_a_lifetime() {
    let server = server();
    let alice = alice();
    let users: Vec<_> = (0..400).map(|n| subject(&n.to_string())).collect();
    let mut host = Host::new([]);
    let mut guess = |user, source, second| {
        let end = host.run(server.enter("BBBB-BBBB", user, source, NOW + secs(second)));
        match end.unwrap_err() {
            PageError::UnknownCode => true,
            PageError::RateLimited(_) => false,
            other => panic!("{other}"),
        }
    };
    // First one user without a source, then many users from one source.
    let mut by_user = |second| guess(&alice, "", second);
    let mut guesses = 0;
    for second in 0..300 {
        while by_user(second) {
            guesses += 1;
        }
    }
    // The tenth guess comes back exactly at the end of the lifetime.
    assert_eq!(guesses, 9);
    assert!(by_user(300));
    let mut users = users.iter();
    let mut by_source = |second| guess(users.next().unwrap(), SOURCE, second);
    let mut guesses = 0;
    for second in 0..300 {
        while by_source(second) {
            guesses += 1;
        }
    }
    assert_eq!(guesses, 9);
    assert!(by_source(300));
}

// L7

/// Intervals in seconds, each with the least gap between two accepted polls in milliseconds. The gap is the interval minus a second, or
/// minus a quarter of the interval if that is more.
const GAPS: [(u64, u64); 6] = [
    (1, 0),
    (2, 1_000),
    (3, 2_000),
    (4, 3_000),
    (5, 3_750),
    (60, 45_000),
];

#[test]
fn l7_a_retry_window_of_the_least_gap_or_longer_is_refused() {
    for (interval, gap) in GAPS {
        let gap = Duration::from_millis(gap);
        let with = |window| PolicyOptions {
            interval: secs(interval),
            retry_window: Some(window),
            ..roomy()
        };
        accepted(with(Duration::ZERO));
        if let Some(shorter) = gap.checked_sub(Duration::from_millis(1)) {
            accepted(with(shorter));
        }
        for over in [
            gap.max(Duration::from_nanos(1)),
            gap + Duration::from_millis(1),
            secs(60),
            Duration::MAX,
        ] {
            refused(with(over), PolicyError::RetryWindow);
        }
    }
}

/// The default window is 2 s, or half a second if the least gap is not longer than 2 s.
#[test]
fn l7_the_default_retry_window_is_shorter_than_the_least_gap_where_there_is_one() {
    for (interval, gap) in GAPS {
        let window = if gap > 2_000 { 2_000 } else { 500 };
        for (after, cause) in [(window - 1, Cause::Duplicate), (window, Cause::Replay)] {
            let policy = accepted(PolicyOptions {
                interval: secs(interval),
                ..roomy()
            });
            let server = server_of(policy);
            let mut host = Host::new([cli()]);
            let codes = host.issue(&server, &cli(), 1, NOW);
            host.approve(&server, &alice(), &codes, NOW);
            let poll = |host: &mut Host, now| host.poll(&server, &cli(), &codes.device_code, now);
            assert_eq!(poll(&mut host, NOW).cause(), Cause::Granted);
            let again = poll(&mut host, NOW + Duration::from_millis(after));
            assert_eq!(again.cause(), cause, "an interval of {interval} s");
        }
    }
}

#[test]
fn l7_a_retention_under_a_minute_is_refused() {
    for under in [Duration::ZERO, secs(59), Duration::from_millis(59_999)] {
        refused(
            PolicyOptions {
                retention: under,
                ..roomy()
            },
            PolicyError::Retention,
        );
    }
    for enough in [secs(60), secs(300), DAY, Duration::MAX] {
        accepted(PolicyOptions {
            retention: enough,
            ..roomy()
        });
    }
}

/// The longest retention does not overflow, so nothing is purged too early.
#[test]
fn l7_the_longest_retention_keeps_a_session_to_the_end_of_time() {
    let server = server_of(accepted(PolicyOptions {
        retention: Duration::MAX,
        ..roomy()
    }));
    let mut host = Host::new([cli()]);
    let codes = host.issue(&server, &cli(), 1, NOW);
    assert_eq!(host.store.purge(NOW + DAY * 100_000), 0);
    assert!(host.session(&codes.key).is_some());
}

// The refresh tokens (rows R).

#[test]
fn r_the_scope_that_asks_for_a_refresh_token_is_one_token() {
    for right in ["offline_access", "email", "a", "urn:x:offline/1"] {
        accepted(with_refresh(RefreshOptions {
            scope: right.into(),
            ..RefreshOptions::default()
        }));
    }
    for wrong in ["", " ", "a b", "a ", " a", "a\"b", "a\\b", "\n", "\u{E9}"] {
        refused(
            with_refresh(RefreshOptions {
                scope: wrong.into(),
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshScope,
        );
    }
}

#[test]
fn r_the_lifetimes_of_refresh_tokens_are_from_10_minutes_to_ten_years() {
    let (shortest, longest) = (secs(600), DAY * 3650);
    for inside in [shortest, DAY * 30, longest] {
        accepted(with_refresh(RefreshOptions {
            idle: inside,
            ..RefreshOptions::default()
        }));
        accepted(with_refresh(RefreshOptions {
            absolute: Some(inside),
            ..RefreshOptions::default()
        }));
    }
    for outside in [
        Duration::ZERO,
        Duration::from_millis(599_999),
        longest + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        refused(
            with_refresh(RefreshOptions {
                idle: outside,
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshLifetime,
        );
        refused(
            with_refresh(RefreshOptions {
                absolute: Some(outside),
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshLifetime,
        );
    }
}

#[test]
fn r_the_grace_of_refresh_tokens_is_at_most_5_minutes() {
    for inside in [Duration::ZERO, secs(30), secs(300)] {
        accepted(with_refresh(RefreshOptions {
            grace: inside,
            ..RefreshOptions::default()
        }));
    }
    for over in [secs(300) + Duration::from_nanos(1), Duration::MAX] {
        refused(
            with_refresh(RefreshOptions {
                grace: over,
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshGrace,
        );
    }
}

// Rules that are not in the table.

/// It is off by default because of phishing (RFC 8628, section 5.4). The page asks the policy whether it may read a code from its URL.
#[test]
fn verification_uri_complete_is_off_unless_asked_for() {
    assert!(!policy().options().verification_uri_complete);
    let on = accepted(PolicyOptions {
        verification_uri_complete: true,
        ..PolicyOptions::default()
    });
    assert!(on.options().verification_uri_complete);
}

/// The default is 16 KiB (A3). The limit must fit in two octets, because no request at these endpoints needs more.
#[test]
fn a_body_limit_of_nothing_or_over_65_535_is_refused() {
    for outside in [0, 65_536, 1024 * 1024, usize::MAX] {
        refused(
            PolicyOptions {
                max_body: outside,
                ..roomy()
            },
            PolicyError::MaxBody,
        );
    }
    for inside in [1, 16 * 1024, 65_535] {
        let policy = accepted(PolicyOptions {
            max_body: inside,
            ..roomy()
        });
        assert_eq!(policy.options().max_body, inside);
    }
}

/// A limit that would always or never refuse is a mistake.
#[test]
fn a_limit_of_nothing_or_without_a_period_is_refused() {
    assert!(RateLimit::new(0, secs(1)).is_err());
    assert!(RateLimit::new(1, Duration::ZERO).is_err());
    assert!(RateLimit::new(1, Duration::from_micros(999)).is_err());
    assert!(RateLimit::new(1, DAY + Duration::from_nanos(1)).is_err());
    assert!(RateLimit::new(1, Duration::from_millis(1)).is_ok());
    assert!(RateLimit::new(u32::MAX, DAY).is_ok());
}

/// The text of every refusal starts with a small letter and does not end with a full stop.
#[test]
fn every_refusal_reads_as_the_house_style_asks() {
    for error in [
        PolicyError::Interval,
        PolicyError::Cap,
        PolicyError::Lifetime,
        PolicyError::VerificationUri,
        PolicyError::Realm,
        PolicyError::Guessable,
        PolicyError::RetryWindow,
        PolicyError::Retention,
        PolicyError::RefreshScope,
        PolicyError::RefreshLifetime,
        PolicyError::RefreshGrace,
        PolicyError::MaxBody,
    ] {
        let text = error.to_string();
        assert!(text.starts_with(char::is_lowercase), "{text}");
        assert!(!text.ends_with('.'), "{text}");
    }
}

proptest! {
    /// An oracle of L1, L2 and L7: the first row that matches decides, and nothing panics.
    #[test]
    fn the_first_row_that_matches_answers(
        interval in prop_oneof![0..=70_000_u64, any::<u64>()],
        cap in prop_oneof![0..=90_000_u64, 290_000..=310_000_u64, any::<u64>()],
        lifetime in prop_oneof![0..=150_000_u64, Just(86_400_000), Just(86_401_000)],
        window in prop_oneof![0..=5_000_u64, 0..=60_000_u64, any::<u64>()],
        retention in prop_oneof![0..=90_000_u64, any::<u64>()],
        whole in any::<bool>(),
    ) {
        let of = |millis: u64| {
            Duration::from_millis(if whole { millis - millis % 1000 } else { millis })
        };
        let (interval, cap) = (of(interval), of(cap));
        let (lifetime, window, retention) = (of(lifetime), of(window), of(retention));
        let is_whole = |span: Duration| span.subsec_nanos() == 0;
        let l1 = [
            (!is_whole(interval) || interval < secs(1) || interval > secs(60), PolicyError::Interval),
            (!is_whole(cap) || cap < interval || cap > secs(300), PolicyError::Cap),
        ];
        let broken: Vec<_> = l1.iter().filter(|(is, _)| *is).map(|(_, error)| *error).collect();
        let l2 = !is_whole(lifetime) || lifetime < interval * 2 || lifetime > DAY;
        let options = PolicyOptions { interval, cap, lifetime, retry_window: Some(window), retention, ..roomy() };
        let outcome = Policy::new(PAGE, options).map(drop);
        if !broken.is_empty() {
            let error = outcome.unwrap_err();
            prop_assert!(broken.contains(&error), "{:?} instead of {:?}", error, broken);
        } else if l2 {
            prop_assert_eq!(outcome, Err(PolicyError::Lifetime));
        } else if !window.is_zero() && window >= interval.saturating_sub((interval / 4).max(secs(1))) {
            prop_assert_eq!(outcome, Err(PolicyError::RetryWindow));
        } else if retention < secs(60) {
            prop_assert_eq!(outcome, Err(PolicyError::Retention));
        } else {
            prop_assert_eq!(outcome, Ok(()));
        }
    }

    /// The constructor accepts or refuses any texts, but does not panic.
    #[test]
    fn any_texts_are_accepted_or_refused(uri in "(https?://)?.{0,20}", realm in ".{0,8}") {
        match Policy::new(&uri, PolicyOptions { realm: realm.clone(), ..PolicyOptions::default() }) {
            Ok(policy) => {
                prop_assert!(uri.bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(!uri.contains(['?', '#', '@']));
                prop_assert!(realm.bytes().all(|b| matches!(b, 0x20..=0x7E)));
                prop_assert!(!realm.contains(['"', '\\']));
                drop(policy);
            }
            Err(error) => prop_assert!(
                matches!(error, PolicyError::VerificationUri | PolicyError::Realm)
            ),
        }
    }

    /// An alphabet is accepted if it has ten or more characters, all of them ASCII letters or digits, and no two that are the same when
    /// their case is ignored.
    #[test]
    fn an_alphabet_is_accepted_where_no_two_characters_are_typed_alike(
        alphabet in prop_oneof!["[A-Za-z0-9]{8,14}", "[0-9]{8,12}", "[A-Za-z0-9\u{E9} -]{9,12}"]
    ) {
        let mut folded: Vec<u8> = alphabet.to_ascii_uppercase().into_bytes();
        folded.sort_unstable();
        folded.dedup();
        let right = alphabet.bytes().all(|b| b.is_ascii_alphanumeric())
            && alphabet.len() >= 10
            && folded.len() == alphabet.len();
        prop_assert_eq!(shape(&alphabet, 8).is_ok(), right);
    }
}
