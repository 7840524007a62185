//! Looking at every octet of a text.
//!
//! Rule: no early exit. Without a branch, the compiler looks at sixteen and more at once.

/// `VSCHAR = %x20-7E`, of which ids, secrets and tokens are made ([RFC 6749, appendix A]).
///
/// [RFC 6749, appendix A]: https://www.rfc-editor.org/rfc/rfc6749#appendix-A
pub(crate) fn are_vschars(text: &[u8]) -> bool {
    !any(text, beyond_vschar)
}

/// Whether a JSON string of `VSCHAR` consists of nothing but itself: neither quotes nor backslashes.
pub(crate) fn stands_for_itself(text: &[u8]) -> bool {
    !any(text, |b| {
        beyond_vschar(b) | u8::from(b == b'"') | u8::from(b == b'\\')
    })
}

/// Whether a form-encoded text consists of nothing but itself: `VSCHAR` without `%` and `+`.
#[inline(always)]
pub(crate) fn are_plain(text: &[u8]) -> bool {
    !any(text, |b| {
        beyond_vschar(b) | u8::from(b == b'%') | u8::from(b == b'+')
    })
}

fn beyond_vschar(octet: u8) -> u8 {
    u8::from(octet.wrapping_sub(0x20) > 0x7E - 0x20)
}

/// Whether `odd` is not zero for some octet.
#[inline(always)]
fn any(text: &[u8], odd: impl Fn(u8) -> u8) -> bool {
    text.iter().fold(0, |seen, &octet| seen | odd(octet)) != 0
}
