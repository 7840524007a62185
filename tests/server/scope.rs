//! Scopes (RFC 6749, section 3.3): which texts are a scope, and when a scope is within another.

use std::collections::HashSet;

use device_flow::scope::{MAX_BYTES, MAX_TOKENS, Scope, ScopeError};
use proptest::prelude::*;

use crate::support::scope;

fn tokens(scope: &Scope) -> Vec<&str> {
    scope.tokens().collect()
}

#[test]
fn a_scope_is_a_list_of_tokens_separated_by_single_spaces() {
    assert_eq!(tokens(&scope("openid")), ["openid"]);
    assert_eq!(
        tokens(&scope("openid profile email")),
        ["openid", "profile", "email"]
    );
    assert_eq!(scope("openid profile").as_str(), "openid profile");
    assert_eq!(scope("openid profile").to_string(), "openid profile");
}

/// `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`
#[test]
fn a_token_has_visible_ascii_without_quote_and_backslash() {
    for octet in 0..=0x7F_u8 {
        let text = format!("a{}b", char::from(octet));
        let legal = matches!(octet, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        let is_separator = octet == 0x20;
        let read = text.parse::<Scope>();
        assert_eq!(read.is_ok(), legal || is_separator, "{octet:#x}");
        if !legal && !is_separator {
            assert_eq!(read, Err(ScopeError::Character));
        }
    }
    for other in ["\u{80}", "\u{A0}", "\u{E9}", "\u{2003}", "\u{1F600}"] {
        assert_eq!(other.parse::<Scope>(), Err(ScopeError::Character));
    }
}

#[test]
fn spaces_at_an_end_or_two_in_a_row_are_no_scope() {
    for wrong in [" ", "  ", " openid", "openid ", "openid  profile", "a b  c"] {
        assert_eq!(wrong.parse::<Scope>(), Err(ScopeError::Spacing));
    }
}

#[test]
fn the_empty_text_is_the_scope_without_a_token() {
    let empty = scope("");
    assert_eq!(empty, Scope::empty());
    assert!(empty.is_empty());
    assert_eq!(tokens(&empty), [""; 0]);
    assert!(!scope("openid").is_empty());
    assert!(!empty.contains(""));
}

#[test]
fn a_token_named_twice_counts_once_where_it_stood_first() {
    assert_eq!(tokens(&scope("b a b c a")), ["b", "a", "c"]);
    assert_eq!(scope("a a a").as_str(), "a");
}

/// "The strings are defined by the authorization server", and are "case-sensitive".
#[test]
fn tokens_have_a_case_and_no_parts() {
    let scope = scope("openid read:user");
    assert!(scope.contains("openid"));
    for other in [
        "OpenID",
        "open",
        "openid ",
        "read",
        "user",
        "",
        "openid read:user",
    ] {
        assert!(!scope.contains(other), "{other}");
    }
}

#[test]
fn a_scope_is_within_another_where_each_of_its_tokens_is() {
    let is_within = |one: &str, other: &str| scope(one).is_within(&scope(other));
    assert!(is_within("a b", "b a"));
    assert!(is_within("a", "b a c"));
    assert!(is_within("", "a"));
    assert!(is_within("", ""));
    assert!(!is_within("a", ""));
    assert!(!is_within("a b", "a"));
    assert!(!is_within("a", "ab"));
    assert!(!is_within("ab", "a b"));
}

#[test]
fn a_scope_has_at_most_so_many_tokens_and_bytes() {
    let named = |count: usize| {
        let each: Vec<_> = (0..count).map(|place| format!("t{place}")).collect();
        each.join(" ")
    };
    assert_eq!(tokens(&scope(&named(MAX_TOKENS))).len(), MAX_TOKENS);
    assert_eq!(
        named(MAX_TOKENS + 1).parse::<Scope>(),
        Err(ScopeError::TooMany)
    );
    let long = "a".repeat(MAX_BYTES);
    assert_eq!(scope(&long).as_str(), long);
    let longer = "a".repeat(MAX_BYTES + 1);
    assert_eq!(longer.parse::<Scope>(), Err(ScopeError::TooLong));
}

/// A text that is not a scope cannot be read from a store either.
#[test]
fn a_scope_travels_as_a_string_and_is_checked_on_the_way_in() {
    let json = serde_json::to_string(&scope("openid profile")).unwrap();
    assert_eq!(json, r#""openid profile""#);
    let read: Scope = serde_json::from_str(&json).unwrap();
    assert_eq!(read, scope("openid profile"));
    for wrong in [
        r#"" openid""#,
        r#""a  b""#,
        r#""a\"b""#,
        r#""\u00e9""#,
        "[]",
        "1",
        "null",
    ] {
        assert!(serde_json::from_str::<Scope>(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    /// A scope that was read has only legal tokens. Its text can be read again and gives the same scope.
    #[test]
    fn a_scope_reads_back_as_it_was_written(text in prop_oneof![".{0,20}", "[a-c]{1,2}( [a-c]{1,2}){0,6}"]) {
        if let Ok(read) = text.parse::<Scope>() {
            prop_assert_eq!(read.to_string().parse::<Scope>(), Ok(read.clone()));
            let mut seen = HashSet::new();
            for token in read.tokens() {
                prop_assert!(!token.is_empty());
                prop_assert!(seen.insert(token));
                prop_assert!(read.contains(token));
                prop_assert!(text.split(' ').any(|named| named == token));
            }
            prop_assert!(text.split(' ').all(|named| named.is_empty() || read.contains(named)));
        }
    }
}
