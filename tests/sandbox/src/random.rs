//! Names, ids and secrets of realistic shape.
//!
//! Owns: their alphabets and lengths. Must not know: what they name. fastrand is enough: nothing outside this
//! process honours a secret made here.

use std::iter::repeat_with;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `count` random bytes.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    repeat_with(|| fastrand::u8(..)).take(count).collect()
}

/// Lower-case hexadecimal of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random UUID (version 4) in its usual spelling.
pub(crate) fn uuid() -> String {
    let mut digits: Vec<char> = hex(&bytes(16)).chars().collect();
    for (position, digit) in [(12, '4'), (16, '8')] {
        if let Some(place) = digits.get_mut(position) {
            *place = digit;
        }
    }
    let part = |from: usize, length: usize| digits.iter().skip(from).take(length).collect::<String>();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 4), part(12, 4), part(16, 4), part(20, 12))
}

/// `prefix` and `count` characters of the alphabet of AWS's unique ids (upper case and digits).
pub(crate) fn aws_id(prefix: &str, count: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let tail = repeat_with(|| fastrand::choice(ALPHABET).copied().map_or('A', char::from)).take(count);
    prefix.chars().chain(tail).collect()
}

/// `a-` and 17 characters, an association's id.
pub(crate) fn association_id() -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let tail = repeat_with(|| fastrand::choice(ALPHABET).copied().map_or('a', char::from)).take(17);
    "a-".chars().chain(tail).collect()
}

/// Standard base64 of `count` random bytes.
pub(crate) fn base64(count: usize) -> String {
    STANDARD.encode(bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_the_usual_shape() {
        let uuid = uuid();
        let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.chars().nth(14), Some('4'));
    }
}
