//! User codes (RFC 8628, section 6.1): what is shown, and what is read.

use core::time::Duration;
use std::collections::HashSet;

use device_flow::code::{Entropy, MAX_USER_CODE_ENTRY, UserCodeShape};
use device_flow::digest::UserKey;
use device_flow::server::{
    PageError, Policy, PolicyOptions, RateLimit, Server, ServerKeys, Session,
};
use proptest::prelude::*;

use crate::support::{
    self, Host, NOW, PAGE, alice, cli, entropy, key, policy, policy_of, post, server, server_of,
};

/// Returns a server whose user codes have this shape. Its guess limit allows short codes.
fn with_shape(alphabet: &str, length: u8) -> Server {
    let policy = policy_of(PolicyOptions {
        user_code: UserCodeShape::new(alphabet, length).unwrap(),
        guess_limit: RateLimit::new(1, Duration::from_hours(24)).unwrap(),
        outstanding: 1,
        ..PolicyOptions::default()
    });
    server_of(policy)
}

/// Returns the user keys that a host is asked for when a user has typed this text. The list is empty if the text is not a code.
fn looked_up(server: &Server, typed: &str) -> Vec<UserKey> {
    let mut host = Host::new([]);
    let error = host
        .run(server.enter(typed, &alice(), "", NOW))
        .unwrap_err();
    assert_eq!(error == PageError::MalformedCode, host.user_keys.is_empty());
    host.user_keys
}

/// Returns the only key of what a user has typed, or `None` if that is not a code.
fn read(server: &Server, typed: &str) -> Option<UserKey> {
    let keys = looked_up(server, typed);
    assert!(keys.len() <= 1);
    keys.first().copied()
}

/// Issues codes with this entropy. Returns the session, and the user code as it is shown.
fn issued(server: &Server, entropy: Entropy) -> (Session, String) {
    let mut host = Host::new([cli()]);
    host.entropy.push_back(entropy);
    let request = post("client_id=client_cli");
    let reply = host.run(server.device_authorization(request, "", None, NOW));
    let codes = support::Codes::of(&reply);
    (host.session(&codes.key).unwrap().clone(), codes.user_code)
}

/// Returns entropy whose user code has this number. The number must not be 0, because octets that were never filled are refused.
fn numbered(number: u128) -> Entropy {
    let mut octets = [1; Entropy::OCTETS];
    octets[0] = 2;
    octets[32..].copy_from_slice(&number.to_be_bytes());
    Entropy::from(octets)
}

/// Returns the same characters in their full-width forms (U+FF01 to U+FF5E).
fn full_width(text: &str) -> String {
    let wide = |character: char| {
        let point = u32::from(character);
        char::from_u32(point - 0x21 + 0xFF01).unwrap()
    };
    text.chars().map(wide).collect()
}

/// > Further stripping of all characters outside the chosen character set is recommended
/// > (RFC 8628, section 6.1)
#[test]
fn a_code_is_read_whatever_its_case_dashes_and_spaces() {
    let server = server();
    let code = read(&server, "WDJBMJHT");
    assert!(code.is_some());
    for typed in [
        "WDJB-MJHT",
        "wdjb-mjht",
        "wDjB-mJhT",
        "wdjbmjht",
        "WDJB MJHT",
        " WDJB-MJHT ",
        "\tWDJB\r\nMJHT\0",
        "W.D.J.B_M,J;H:T",
        "WDJB\u{2010}MJHT", // a hyphen
        "WDJB\u{2011}MJHT", // a non-breaking hyphen
        "WDJB\u{2013}MJHT", // an en dash
        "WDJB\u{2014}MJHT", // an em dash
        "WDJB\u{2212}MJHT", // a minus
        "WDJB\u{FE63}MJHT", // a small hyphen
        "WDJB\u{FF0D}MJHT", // a full-width hyphen
        "WDJB\u{A0}MJHT",   // a non-breaking space
        "WDJB\u{3000}MJHT", // an ideographic space
        "\u{FEFF}WDJB\u{200B}MJHT",
        "\u{202E}WDJB\u{202C}MJHT",
        "\"WDJB-MJHT\"",
        "<i>WDJB-MJHT</i>",
    ] {
        assert_eq!(read(&server, typed), code, "{typed:?}");
    }
}

#[test]
fn everything_outside_the_alphabet_is_dropped_letters_and_digits_too() {
    let server = server();
    let code = read(&server, "WDJBMJHT");
    // Vowels, Y and digits are not in the alphabet.
    assert_eq!(read(&server, "W0D1J2B3 aeiouy MJHT"), code);
    assert_eq!(read(&server, "WDJB\u{E9}MJHT"), code);
    assert_eq!(read(&server, "WDJB\u{1F600}MJHT"), code);
}

#[test]
fn a_code_in_full_width_forms_is_read() {
    let server = server();
    let code = read(&server, "WDJBMJHT");
    for typed in ["WDJBMJHT", "wdjbmjht", "WDJB-MJHT", "wDjB-MjHt"] {
        assert_eq!(read(&server, &full_width(typed)), code);
    }
    assert_eq!(
        read(&server, &("WDJB".to_owned() + &full_width("mjht"))),
        code
    );
    // Digits are read, too, if the alphabet has them.
    let digits = with_shape("0123456789", 9);
    let code = read(&digits, "019450730");
    assert!(code.is_some());
    assert_eq!(read(&digits, &full_width("019450730")), code);
    assert_eq!(read(&digits, "019-450-730"), code);
}

/// In Unicode, the lower case of the Kelvin sign is `k`, and the upper case of the long s is `S`. But a user who compares two codes sees
/// that these characters differ.
#[test]
fn case_is_folded_within_ascii_only() {
    let server = server();
    let code = read(&server, "KSKSKSKS");
    assert_eq!(read(&server, "ksksksks"), code);
    for (typed, what) in [
        ("\u{212A}SKSKSKS", "the Kelvin sign"),
        ("K\u{17F}KSKSKS", "the long s"),
        ("\u{39A}SKSKSKS", "the Greek kappa"),
        ("\u{41A}SKSKSKS", "the Cyrillic ka"),
        ("\u{1D40A}SKSKSKS", "the mathematical bold K"),
        ("\u{24C0}SKSKSKS", "the circled K"),
        ("\u{1F13A}SKSKSKS", "the squared K"),
        ("\u{FF6B}SKSKSKS", "half-width katakana"),
    ] {
        // The character is dropped, so the code is too short.
        assert_eq!(read(&server, typed), None, "{what}");
        // Beside a complete code it does no harm.
        assert!(read(&server, &format!("{typed}K")).is_some(), "{what}");
    }
    let beside = format!("{}{}", "KSKSKSKS", "\u{212A}");
    assert_eq!(read(&server, &beside), code);
}

/// The characters before and after the full-width forms are not folded, and neither are digits of other scripts.
#[test]
fn only_full_width_forms_are_folded() {
    let server = with_shape("0123456789", 9);
    for other in [
        "\u{FF00}", "\u{FF5F}", "\u{FEE0}", "\u{FFE0}", "\u{660}", "\u{966}", "\u{2460}",
    ] {
        assert_eq!(read(&server, &format!("{other}12345678")), None);
    }
    assert!(read(&server, "\u{FF10}12345678").is_some());
}

#[test]
fn the_length_must_be_exact() {
    let server = server();
    for wrong in [
        "",
        "-",
        "W",
        "WDJB-MJH",
        "WDJB-MJHTW",
        "WDJB-MJHT-WDJB-MJHT",
        "WDJB-MJHA",
        "AEIOUAEIOU",
    ] {
        assert_eq!(read(&server, wrong), None, "{wrong}");
    }
}

/// A text over 64 bytes is not read, even if it contains a code (U2).
#[test]
fn a_text_over_64_bytes_is_no_code() {
    let server = server();
    let padded = |bytes: usize| format!("WDJBMJHT{}", "-".repeat(bytes - 8));
    assert_eq!(MAX_USER_CODE_ENTRY, 64);
    assert_eq!(read(&server, &padded(64)), read(&server, "WDJBMJHT"));
    assert_eq!(read(&server, &padded(65)), None);
    assert_eq!(read(&server, &padded(1_000_000)), None);
    // The limit counts bytes, not characters.
    let wide = format!("WDJBMJHT{}", "\u{2013}".repeat(19));
    assert_eq!(wide.len(), 65);
    assert_eq!(read(&server, &wide), None);
}

/// A code has one canonical form. So an alphabet of small letters may be typed in capitals, and the other way around.
#[test]
fn an_alphabet_of_small_letters_is_read_in_capitals() {
    let small = with_shape("bcdfghjkmnpq", 6);
    let code = read(&small, "bcdfgh");
    assert!(code.is_some());
    assert_eq!(read(&small, "BCDFGH"), code);
    assert_eq!(read(&small, "BcD-fGh"), code);
    let mixed = with_shape("bCdFgHjKmN", 6);
    assert_eq!(read(&mixed, "bcdfgh"), read(&mixed, "BCDFGH"));
    let (_, shown) = issued(&small, numbered(12_u128.pow(6)));
    assert_eq!(shown, "bbb-bbb");
}

#[test]
fn every_code_has_its_own_key() {
    let server = server();
    let mut seen = HashSet::new();
    let consonants = UserCodeShape::CONSONANTS;
    for place in 0..8 {
        for character in consonants.chars() {
            let mut code = ['B'; 8];
            code[place] = character;
            let code: String = code.iter().collect();
            seen.insert(read(&server, &code).unwrap());
        }
    }
    // Eight places with nineteen other characters each, and the code that is B in all places.
    assert_eq!(seen.len(), 8 * 19 + 1);
}

/// After a change of keys, a code that was issued under the previous key is still found.
#[test]
fn a_code_is_looked_up_under_the_current_and_the_previous_key() {
    let of = |keys: ServerKeys| {
        let policy = policy();
        looked_up(&Server::new(policy, keys), "WDJB-MJHT")
    };
    let keys = |seed| ServerKeys::new(&key(seed)).unwrap();
    let (old, new) = (of(keys(1)), of(keys(2)));
    assert_ne!(old, new);
    assert_eq!(
        of(keys(2).with_previous(&key(1)).unwrap()),
        [new[0], old[0]]
    );
}

/// The groups have four, five or three characters: the first of these numbers that divides the length.
#[test]
fn a_code_is_shown_in_groups_with_dashes_between() {
    for (length, shown) in [
        (5, "00000"),
        (6, "000-000"),
        (7, "0000000"),
        (8, "0000-0000"),
        (9, "000-000-000"),
        (10, "00000-00000"),
        (11, "00000000000"),
        (12, "0000-0000-0000"),
        (15, "00000-00000-00000"),
        (16, "0000-0000-0000-0000"),
    ] {
        let shape = UserCodeShape::new("0123456789ABCDEF", length);
        let shape = shape.or_else(|_| UserCodeShape::new("0123456789", length));
        let shape = shape.unwrap();
        let combinations = shape.combinations().into();
        let options = PolicyOptions {
            user_code: shape,
            guess_limit: RateLimit::new(1, Duration::from_hours(24)).unwrap(),
            lifetime: Duration::from_secs(10),
            outstanding: 1,
            ..PolicyOptions::default()
        };
        // The policy could be refused only because five characters are too few. With this alphabet they are enough.
        let Ok(policy) = Policy::new(PAGE, options) else {
            assert_eq!(length, 5);
            continue;
        };
        let server = server_of(policy);
        let (session, code) = issued(&server, numbered(combinations));
        assert_eq!(code, shown);
        assert_eq!(read(&server, &code), Some(*session.user_key().unwrap()));
    }
}

/// The user compares the code in the review with the code on the device. So the review shows it in one form, however it was typed.
#[test]
fn the_review_shows_the_canonical_code_however_it_was_typed() {
    let server = server();
    let (session, shown) = issued(&server, entropy(5));
    let typed = full_width(&shown.to_lowercase()) + " ";
    let mut host = Host::new([cli()]);
    let _ = host.store.insert(&session);
    let review = host.claim(&server, &alice(), &typed, NOW).unwrap();
    assert_eq!(review.user_code().display().to_string(), shown);
    assert_eq!(review.user_code().canonical(), shown.replace('-', ""));
    let debug = format!("{:?} {review:?}", review.user_code());
    assert!(!debug.contains(&shown) && !debug.contains(&shown.replace('-', "")));
}

/// Every number below the number of combinations gives a code of its own. Then the codes repeat.
#[test]
fn the_draw_is_one_to_one_below_the_combinations() {
    let server = with_shape("0123456789", 6);
    let combinations = 1_000_000_u128;
    let codes = |from: u128| -> Vec<String> {
        let numbers = (0..1000).map(|step| from + step);
        numbers
            .map(|number| issued(&server, numbered(number)).1)
            .collect()
    };
    let first = codes(combinations);
    let distinct: HashSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), 1000);
    assert_eq!(codes(combinations * 2), first);
    assert_eq!(codes(combinations * 123_456_789), first);
    // Three places take each digit a hundred times. The other three do not change.
    let mut counts = vec![[0; 10]; 6];
    for code in &first {
        let digits = code.bytes().filter(u8::is_ascii_digit);
        for (place, digit) in digits.enumerate() {
            counts[place][usize::from(digit - b'0')] += 1;
        }
    }
    let moving = counts.iter().filter(|count| **count == [100; 10]).count();
    let still = counts.iter().filter(|count| count.contains(&1000)).count();
    assert_eq!((moving, still), (3, 3));
}

proptest! {
    /// A code that is shown can be read back, whatever its shape is and however it is typed.
    #[test]
    fn a_code_that_is_shown_is_read_back(
        alphabet in prop_oneof![
            Just(UserCodeShape::CONSONANTS),
            Just("0123456789"),
            Just("bcdfghjklmnpqrstvwxz"),
            Just("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ],
        length in 6..=13_u8,
        number in 1..u128::MAX,
        how in 0..5_usize,
    ) {
        let server = with_shape(alphabet, length);
        let (session, shown) = issued(&server, numbered(number));
        let typed = match how {
            0 => shown.clone(),
            1 => shown.to_lowercase(),
            2 => shown.to_uppercase(),
            3 => shown.replace('-', " "),
            _ => full_width(&shown.replace('-', "")),
        };
        prop_assert_eq!(read(&server, &typed), Some(*session.user_key().unwrap()));
        prop_assert!(shown.chars().all(|c| c == '-' || alphabet.contains(c)));
        prop_assert_eq!(shown.replace('-', "").len(), usize::from(length));
    }

    /// An oracle of the table: fold ASCII letters and full-width letters, drop everything else, then require the exact length.
    #[test]
    fn any_text_is_read_as_the_table_says(
        typed in prop_oneof![
            ".{0,24}",
            "[BCDFGHJKLMNPQRSTVWXZbcdfghjk -]{6,12}",
            "[B-Db-d\u{FF22}-\u{FF24}\u{FF42}-\u{FF44}\u{212A}\u{17F}aeiou-]{6,14}",
        ]
    ) {
        let server = server();
        let kept: String = typed
            .chars()
            .map(|c| match c {
                '\u{FF21}'..='\u{FF3A}' => char::from_u32(u32::from(c) - 0xFF21 + 0x41).unwrap(),
                '\u{FF41}'..='\u{FF5A}' => char::from_u32(u32::from(c) - 0xFF41 + 0x61).unwrap(),
                other => other,
            })
            .filter(char::is_ascii)
            .map(|c| c.to_ascii_uppercase())
            .filter(|c| UserCodeShape::CONSONANTS.contains(*c))
            .collect();
        let is_code = typed.len() <= 64 && kept.len() == 8;
        prop_assert_eq!(read(&server, &typed).is_some(), is_code);
        if is_code {
            prop_assert_eq!(read(&server, &typed), read(&server, &kept));
        }
    }
}
