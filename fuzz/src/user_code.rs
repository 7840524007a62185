//! No entry panics; it is read as a plain reading says: what is shown reads as the code, case and what is outside the alphabet do not matter, and the length is exact.
//!
//! An input is a length and an alphabet on the first line, and an entry on the rest. The code is drawn from the input too.

use device_flow::code::{Entropy, ShapeError, UserCodeShape};
use device_flow::digest::UserKey;
use device_flow::memory::Memory;
use device_flow::server::{Entered, Entry, Inserted, Limit, Paid, Policy, Written, WrongCode};

use crate::support::{self, NOW};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (shape, entry) = text.split_once('\n').unwrap_or((&text, ""));
    let (length, alphabet) = shape.split_once(' ').unwrap_or((shape, ""));
    let length = length.parse().unwrap_or(8);
    let policy = match (
        UserCodeShape::new(alphabet, length),
        fault(alphabet, length),
    ) {
        (Ok(shape), None) => policy_of(shape),
        (Err(given), Some(wanted)) => {
            assert_eq!(given, wanted);
            None
        }
        (given, wanted) => panic!("{given:?} and not {wanted:?}"),
    };
    let default = || policy_of(UserCodeShape::default());
    let (policy, alphabet, length) = match policy {
        Some(policy) => (policy, alphabet, usize::from(length)),
        None => (default().unwrap(), UserCodeShape::CONSONANTS, 8),
    };
    let (store, shown) = issue(&policy, data);
    let code = shown.replace('-', "");
    assert_eq!(code.chars().count(), length);
    assert!(code.chars().all(|c| alphabet.contains(c)));
    groups_are_even(&shown);

    // What is shown is read as the code, however it is typed.
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
        enters(&typed, &code, &policy, &store);
    }
    let first = &code[..1];
    for wrong in [format!("{shown}{first}"), code[1..].to_owned()] {
        assert_eq!(keys(&wrong, &policy), []);
    }

    // The entry of the input.
    match reading(entry, alphabet, length) {
        None => {
            assert_eq!(keys(entry, &policy), []);
            let user = support::alice();
            let wrong = pay(entry, &user, &policy, |paid| {
                paid.enter(None, NOW).unwrap_err()
            });
            assert_eq!(wrong, WrongCode::Malformed);
        }
        Some(read) => {
            // Reading is idempotent: the canonical form is read as itself.
            assert_eq!(reading(&read, alphabet, length).as_deref(), Some(&*read));
            assert_eq!(keys(entry, &policy), keys(&read, &policy));
            assert_eq!(keys(entry, &policy).len(), 1);
            assert_eq!(keys(entry, &policy) == keys(&code, &policy), read == code);
            // Nothing outside the alphabet matters.
            let kept: String = entry.chars().filter(|c| narrow(*c).is_some()).collect();
            assert_eq!(keys(entry, &policy), keys(&kept, &policy));
            if read == code {
                enters(entry, &code, &policy, &store);
            }
        }
    }
}

/// Why a shape is none.
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

/// A policy for the shape; none where its codes could be guessed.
fn policy_of(shape: UserCodeShape) -> Option<Policy> {
    let guesses = Limit::new(1, core::time::Duration::from_hours(24)).unwrap();
    let builder = support::builder().user_code(shape).outstanding(1);
    builder.guess_limit(guesses).build().ok()
}

/// Issues a session, its codes drawn from `data`.
fn issue(policy: &Policy, data: &[u8]) -> (Memory, String) {
    let mut octets = [0; Entropy::OCTETS];
    for (place, octet) in (1_u8..).zip(&mut octets) {
        *octet = place;
    }
    let slots = octets.len();
    for (place, octet) in data.iter().enumerate() {
        octets[slots - 1 - place % slots] ^= octet.wrapping_mul(167);
    }
    if octets.iter().all(|octet| *octet == octets[0]) {
        octets[0] ^= 1;
    }
    let client = support::cli();
    let mut store = Memory::new();
    let incoming = support::post("client_id=client_cli");
    let reply = support::with_issuing(policy, incoming, Some(&client), |issuing| {
        let keys = support::keys();
        let issuance = issuing.draw(Entropy::from(octets), &keys, NOW).unwrap();
        let inserted = store.insert(issuance.session());
        assert_eq!(inserted, Inserted::New);
        issuance.settle(inserted).unwrap()
    });
    let reply = reply.unwrap();
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    (store, body["user_code"].as_str().unwrap().to_owned())
}

fn groups_are_even(shown: &str) {
    let groups: Vec<_> = shown.split('-').map(str::len).collect();
    assert!(groups.iter().all(|group| *group == groups[0] && *group > 0));
    assert!(groups.len() == 1 || (3..=5).contains(&groups[0]));
}

/// The ASCII character that a character is, or is the full-width form of.
fn narrow(c: char) -> Option<char> {
    match c {
        '\0'..='\u{7f}' => Some(c),
        '！'..='～' => char::from_u32(u32::from(c) - u32::from('！') + u32::from('!')),
        _ => None,
    }
}

/// The code that an entry is.
fn reading(entry: &str, alphabet: &str, length: usize) -> Option<String> {
    if entry.len() > 64 {
        return None;
    }
    let typed = entry.chars().filter_map(narrow);
    let own = |c: char| alphabet.chars().find(|own| own.eq_ignore_ascii_case(&c));
    let read: String = typed.filter_map(own).collect();
    (read.len() == length).then_some(read)
}

/// Pays for an entry.
fn pay<T>(
    typed: &str,
    user: &device_flow::server::Subject,
    policy: &Policy,
    then: impl FnOnce(&Paid<'_>) -> T,
) -> T {
    let keys = support::keys();
    let mut entry = Entry::new(typed, user, &keys, policy);
    assert!(!format!("{entry:?}").contains("characters"));
    let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
    then(&paid)
}

fn keys(typed: &str, policy: &Policy) -> Vec<UserKey> {
    let user = support::alice();
    pay(typed, &user, policy, |paid| paid.user_keys().collect())
}

/// The entry finds the session, and the review shows the code.
fn enters(typed: &str, code: &str, policy: &Policy, store: &Memory) {
    let user = support::alice();
    pay(typed, &user, policy, |paid| {
        let key = paid.user_keys().next().unwrap();
        let stored = store.load_by_user_key(&key).unwrap();
        let review = match paid.enter(Some(&stored.session), NOW).unwrap() {
            Entered::Claim(claim) => claim.settle(Written::Won).unwrap(),
            Entered::Review(review) => review,
        };
        let read = review.user_code();
        assert_eq!(read.canonical(), code);
        assert_eq!(read.display().to_string().replace('-', ""), code);
        assert_eq!(format!("{read:?}"), "UserCode(redacted)");
    });
}
