//! Functions that check every octet of a text, and one that checks a character.
//!
//! Rule: no early exit. Without branches the compiler checks sixteen or more octets at once.

/// Returns whether every octet is a `VSCHAR = %x20-7E`. Ids, secrets and tokens consist of them
/// ([RFC 6749, appendix A](https://www.rfc-editor.org/rfc/rfc6749#appendix-A)).
pub(crate) fn are_vschars(text: &[u8]) -> bool {
    !any(text, beyond_vschar)
}

/// Returns whether the text is `VSCHAR` and needs no escape in a JSON string, because it has no quotes and no backslashes.
///
/// It uses minimum and maximum, because they take fewer steps for each octet than comparisons. Tokens are long, so this matters.
pub(crate) fn stand_for_themselves(text: &[u8]) -> bool {
    let (mut quote, mut backslash, mut most) = (u8::MAX, u8::MAX, 0);
    for octet in text {
        quote = quote.min(octet ^ b'"');
        backslash = backslash.min(octet ^ b'\\');
        most = most.max(octet.wrapping_sub(0x20));
    }
    quote != 0 && backslash != 0 && most <= 0x7E - 0x20
}

/// Returns whether a form-encoded text is `VSCHAR` and has nothing to decode: no `%` and no `+`.
///
/// Ids and codes are short, so a few steps of sixteen octets are enough. The last sixteen may overlap the ones before.
#[inline(always)]
pub(crate) fn are_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<16>() else {
        return !any(text, encoded_in_form);
    };
    let mut seen = u128::from_ne_bytes(last.map(encoded_in_form));
    for octets in text.as_chunks::<16>().0 {
        seen |= u128::from_ne_bytes(octets.map(encoded_in_form));
    }
    seen == 0
}

#[inline(always)]
fn beyond_vschar(octet: u8) -> u8 {
    mask(octet.wrapping_sub(0x20) > 0x7E - 0x20)
}

#[inline(always)]
fn encoded_in_form(octet: u8) -> u8 {
    beyond_vschar(octet) | mask(octet == b'%') | mask(octet == b'+')
}

/// Returns 0xFF if `is_odd`, else 0, like a vector comparison of the processor.
#[inline(always)]
fn mask(is_odd: bool) -> u8 {
    u8::from(is_odd).wrapping_neg()
}

/// Returns whether `odd` is not zero for some octet.
#[inline(always)]
fn any(text: &[u8], odd: impl Fn(u8) -> u8) -> bool {
    text.iter().fold(0, |seen, &octet| seen | odd(octet)) != 0
}

/// Returns whether the character is in the general category Cc or Cf of Unicode 16.0 (`DerivedGeneralCategory.txt`), or separates lines or
/// paragraphs. U+2065 is not assigned, but lies among invisible operators.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}'
                | '\u{600}'..='\u{605}'
                | '\u{61C}'
                | '\u{6DD}'
                | '\u{70F}'
                | '\u{890}'..='\u{891}'
                | '\u{8E2}'
                | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{110BD}'
                | '\u{110CD}'
                | '\u{13430}'..='\u{1343F}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0001}'
                | '\u{E0020}'..='\u{E007F}'
        )
}
