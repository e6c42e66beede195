//! Secrets, and whether any of them shows in a text, whole or in part, in whatever form.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// So many characters in a row are not there by chance.
const PIECE: usize = 16;

/// All pieces of all secrets, in small letters: some programs write names in them, and take a secret for a
/// name.
#[derive(Default)]
pub(super) struct Planted {
    names: Vec<String>,
    /// Each piece, with the index of its name.
    pieces: HashMap<[u8; PIECE], usize>,
}

impl Planted {
    pub(super) fn add(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= PIECE, "{name} is too short to be found");
        for (form, text) in forms(secret) {
            self.names.push(format!("{name} ({form})"));
            for piece in text.to_ascii_lowercase().as_bytes().windows(PIECE) {
                let piece = piece.try_into().expect("as long as a piece");
                self.pieces.entry(piece).or_insert(self.names.len() - 1);
            }
        }
    }

    /// Which of them is in the text, and where.
    pub(super) fn found_in(&self, text: &str) -> Option<String> {
        let text = text.to_ascii_lowercase();
        let bytes = text.as_bytes();
        let at = (0..bytes.len().saturating_sub(PIECE - 1)).find_map(|at| {
            let piece: [u8; PIECE] = bytes[at..at + PIECE].try_into().expect("as long as a piece");
            Some((at, self.pieces.get(&piece)?))
        });
        at.map(|(at, name)| {
            let name = &self.names[*name];
            let around = &bytes[at.saturating_sub(200)..(at + 100).min(bytes.len())];
            format!("{name}: …{}…", String::from_utf8_lossy(around))
        })
    }
}

/// A secret as it is, and as it is written in JSON, in URLs, in headers and in dumps. In base64 it may begin
/// at any of three places.
fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let percent = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "-_.~".contains(c) => c.to_string(),
        c => format!("%{:02x}", u32::from(c)),
    };
    let mut forms = vec![
        ("as it is", secret.to_owned()),
        ("in JSON", secret.replace('/', "\\/")),
        ("in a URL", secret.chars().map(percent).collect()),
        ("in hex", secret.bytes().map(|byte| format!("{byte:02x}")).collect()),
    ];
    for at in 0..3 {
        let rest = &secret.as_bytes()[at..];
        // Of what is encoded together with something before or behind it, the first and last letters differ.
        let rest = &rest[..rest.len() / 3 * 3];
        forms.push(("in base64", STANDARD_NO_PAD.encode(rest)));
        forms.push(("in base64url", URL_SAFE_NO_PAD.encode(rest)));
    }
    forms
}

#[test]
fn a_secret_is_found_whole_in_part_and_encoded() {
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY";
    let mut planted = Planted::default();
    planted.add("a key", secret);
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
    for shown in [
        secret.to_owned(),
        format!("\u{e9}{}\u{e9}", &secret[3..19]),
        secret.to_uppercase(),
        STANDARD_NO_PAD.encode(format!("user:{secret}")),
        URL_SAFE_NO_PAD.encode(format!("ab{secret}x")),
        secret.replace('/', "%2F").replace('+', "%2B"),
        secret.replace('/', "\\/"),
        hex,
    ] {
        assert!(planted.found_in(&shown).is_some(), "{shown}");
    }
    for other in ["", "wJalrXUtnFEMI/K", "aws_secret_access_key = [redacted]"] {
        assert_eq!(planted.found_in(other), None, "{other}");
    }
}
