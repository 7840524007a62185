//! No entry panics, and each is read as a plain reading says.
//! The displayed code is read as the code, case and characters outside the alphabet do not matter, and the length must be exact.
//!
//! An input is a length and an alphabet on the first line, and an entry on the rest. The code is drawn from the input too.

use device_flow::code::{Entropy, ShapeError, UserCodeShape};
use device_flow::digest::UserKey;
use device_flow::memory::Memory;
use device_flow::server::{Next, PageError, Policy, PolicyOptions, RateLimit, Review, Server};

use crate::support::{self, NOW};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (shape, entry) = text.split_once('\n').unwrap_or((&text, ""));
    let (length, alphabet) = shape.split_once(' ').unwrap_or((shape, ""));
    let length = length.parse().unwrap_or(8);
    let server = match (
        UserCodeShape::new(alphabet, length),
        fault(alphabet, length),
    ) {
        (Ok(shape), None) => server_of(shape),
        (Err(given), Some(wanted)) => {
            assert_eq!(given, wanted);
            None
        }
        (given, wanted) => panic!("{given:?} and not {wanted:?}"),
    };
    let default = || server_of(UserCodeShape::default());
    let (server, alphabet, length) = match server {
        Some(server) => (server, alphabet, usize::from(length)),
        None => (default().unwrap(), UserCodeShape::CONSONANTS, 8),
    };
    let (mut store, shown) = issue(&server, data);
    let code = shown.replace('-', "");
    assert_eq!(code.chars().count(), length);
    assert!(code.chars().all(|c| alphabet.contains(c)));
    groups_are_even(&shown);

    // The displayed code is read as the code, however it is typed.
    let wide = |text: &str| -> String {
        let widen = |c: char| char::from_u32(u32::from(c) + 0xFEE0).unwrap();
        text.chars().map(widen).collect()
    };
    for typed in [
        shown.clone(),
        code.clone(),
        shown.to_ascii_lowercase(),
        shown.to_ascii_uppercase(),
        wide(&code),
        format!(" {shown}\u{a0}."),
    ] {
        enters(&typed, &code, &server, &mut store);
    }
    let first = &code[..1];
    for wrong in [format!("{shown}{first}"), code[1..].to_owned()] {
        assert_eq!(keys(&wrong, &server), []);
    }

    // The entry of the input.
    match reading(entry, alphabet, length) {
        None => assert_eq!(keys(entry, &server), []),
        Some(read) => {
            // Reading is idempotent: the canonical form is read as itself.
            assert_eq!(reading(&read, alphabet, length).as_deref(), Some(&*read));
            assert_eq!(keys(entry, &server), keys(&read, &server));
            assert_eq!(keys(entry, &server).len(), 1);
            assert_eq!(keys(entry, &server) == keys(&code, &server), read == code);
            // Characters that are neither in ASCII nor full-width do not matter.
            let kept: String = entry.chars().filter(|c| narrow(*c).is_some()).collect();
            assert_eq!(keys(entry, &server), keys(&kept, &server));
            if read == code {
                enters(entry, &code, &server, &mut store);
            }
        }
    }
}

/// Returns why a shape is invalid.
fn fault(alphabet: &str, length: u8) -> Option<ShapeError> {
    if !alphabet.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Some(ShapeError::Character);
    }
    if alphabet.len() < 10 {
        return Some(ShapeError::TooFew);
    }
    let mut folded: Vec<_> = alphabet.to_ascii_lowercase().into_bytes();
    folded.sort_unstable();
    folded.dedup();
    if folded.len() < alphabet.len() {
        return Some(ShapeError::Repeated);
    }
    if !(1..=16).contains(&length) {
        return Some(ShapeError::Length);
    }
    let combinations = u128::try_from(alphabet.len()).unwrap().pow(length.into());
    (combinations > u64::MAX.into()).then_some(ShapeError::TooManyCombinations)
}

/// Returns a server for the shape, or `None` if its codes could be guessed.
fn server_of(shape: UserCodeShape) -> Option<Server> {
    let guesses = RateLimit::new(1, core::time::Duration::from_hours(24)).unwrap();
    let options = PolicyOptions {
        user_code: shape,
        outstanding: 1,
        guess_limit: guesses,
        ..PolicyOptions::default()
    };
    let policy = Policy::new(support::PAGE, options).ok()?;
    Some(support::server_of(policy))
}

/// Issues a session whose codes are drawn from `data`. Returns the store and the displayed user code.
fn issue(server: &Server, data: &[u8]) -> (Memory, String) {
    let mut octets = [0; Entropy::OCTETS];
    for (place, octet) in (1_u8..).zip(&mut octets) {
        *octet = place;
    }
    let slots = octets.len();
    for (place, octet) in data.iter().enumerate() {
        octets[slots - 1 - place % slots] ^= octet.wrapping_mul(167);
    }
    // The crate refuses entropy if all octets of the device code are the same, or all octets of the user code.
    for part in [0..32, 32..slots] {
        let part = &mut octets[part];
        if part.iter().all(|octet| *octet == part[0]) {
            part[0] ^= 1;
        }
    }
    let mut host = support::Host::new([support::cli()]);
    host.entropy.push_back(Entropy::from(octets));
    let request = support::post("client_id=client_cli");
    let reply = host.run(server.device_authorization(request, "", None, NOW));
    (host.store, support::Codes::of(&reply).user_code)
}

fn groups_are_even(shown: &str) {
    let groups: Vec<_> = shown.split('-').map(str::len).collect();
    assert!(groups.iter().all(|group| *group == groups[0] && *group > 0));
    assert!(groups.len() == 1 || (3..=5).contains(&groups[0]));
}

/// Returns the ASCII character for a character that is ASCII, or the full-width form of ASCII.
fn narrow(c: char) -> Option<char> {
    match c {
        '\0'..='\u{7f}' => Some(c),
        '！'..='～' => char::from_u32(u32::from(c) - u32::from('！') + u32::from('!')),
        _ => None,
    }
}

/// Returns the code in an entry, or `None` if the entry is malformed.
fn reading(entry: &str, alphabet: &str, length: usize) -> Option<String> {
    if entry.len() > 64 {
        return None;
    }
    let typed = entry.chars().filter_map(narrow);
    let own = |c: char| alphabet.chars().find(|own| own.eq_ignore_ascii_case(&c));
    let read: String = typed.filter_map(own).collect();
    (read.len() == length).then_some(read)
}

/// Enters a text, with a quota that is never spent. Returns the keys that were looked up, and the result.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "an entry asks for nothing else"
)]
fn enter(
    typed: &str,
    server: &Server,
    store: &mut Memory,
) -> (Vec<UserKey>, Result<Review, PageError>) {
    let (user, client) = (support::alice(), support::cli());
    let mut exchange = server.enter(typed, &user, "", NOW);
    let mut keys = Vec::new();
    loop {
        assert!(!format!("{exchange:?}").contains("characters"));
        match exchange.next() {
            Next::Take(_, ask) => ask.answer(Ok(Ok(()))),
            Next::LoadByUserKey(key, ask) => {
                keys.push(*key);
                ask.answer(Ok(store.load_by_user_key(key)));
            }
            Next::Client(_, ask) => ask.answer(Ok(Some(&client))),
            Next::Change(change, ask) => ask.answer(Ok(store.change(change))),
            Next::Done(end) => return (keys, end),
            next => panic!("{next:?}"),
        }
    }
}

/// Returns the keys that are looked up for a text that is nobody's code. The list is empty if the text is malformed.
fn keys(typed: &str, server: &Server) -> Vec<UserKey> {
    let (keys, end) = enter(typed, server, &mut Memory::new());
    let wanted = if keys.is_empty() {
        PageError::MalformedCode
    } else {
        PageError::UnknownCode
    };
    assert_eq!(end.unwrap_err(), wanted);
    keys
}

/// Asserts that the entry finds the session, and that the review shows the code.
fn enters(typed: &str, code: &str, server: &Server, store: &mut Memory) {
    let (_, review) = enter(typed, server, store);
    let review = review.unwrap();
    let read = review.user_code();
    assert_eq!(read.canonical(), code);
    assert_eq!(read.display().to_string().replace('-', ""), code);
    assert_eq!(format!("{read:?}"), "UserCode { .. }");
}
