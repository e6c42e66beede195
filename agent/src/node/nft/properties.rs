//! What is true of everything that `nft` prints.

#![expect(clippy::indexing_slicing, reason = "of JSON, in which nothing is null")]

use serde_json::{Value, json};

use super::{NftError, first_line, listing_in};

/// The table that is asked for.
const TABLE: &str = "pod_identity_agent";
/// The most characters of an error message that are kept.
const LONGEST: usize = 200;

/// A listing is JSON in which the agent's table stands; anything else is none.
pub(crate) fn of_listing(stdout: &[u8]) {
    let json: Result<Value, _> = serde_json::from_slice(stdout);
    match listing_in(stdout, TABLE) {
        Ok(listing) => {
            let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
            let has_table = objects.iter().any(|object| object["table"]["name"] == json!(TABLE));
            assert!(has_table, "{listing} has no table of the agent");
            assert!(json.is_ok_and(|json| json == listing));
        }
        Err(error) => assert_eq!(error, NftError::Unreadable),
    }
}

/// Of an error message the first line counts, cut.
pub(crate) fn of_error(stderr: &[u8]) {
    let told = first_line(stderr);
    assert!(told.chars().count() <= LONGEST && !told.contains('\n'), "{told:?}");
    let text = String::from_utf8_lossy(stderr);
    assert!(text.starts_with(&told) || text.is_empty(), "{told:?} of {text:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{of_error, of_listing};

    const LISTING: &str = concat!(
        r#"{"nftables": [{"metainfo": {"version": "1.0.9", "json_schema_version": 1}}, {"table":"#,
        r#" {"family": "inet", "name": "pod_identity_agent", "handle": 1}}, {"chain": {"family":"#,
        r#" "inet", "table": "pod_identity_agent", "name": "output", "handle": 1, "type": "nat","#,
        r#" "hook": "output", "prio": -110, "policy": "accept"}}]}"#,
    );

    #[test]
    fn a_listing_of_nft_is_one() {
        assert!(super::listing_in(LISTING.as_bytes(), super::TABLE).is_ok());
        for other in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"nftables":[]}"#,
            r#"{"nftables":[{"table":{"family":"inet","name":"other"}}]}"#,
        ] {
            assert!(super::listing_in(other.as_bytes(), super::TABLE).is_err(), "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn listings_that_are_cut_or_changed(
            at in any::<prop::sample::Index>(),
            inserted in "[\"{}\\[\\],:a]{0,3}",
            left_out in 0_usize..8
        ) {
            let at = at.index(LISTING.len());
            let rest = LISTING.get(at + left_out..).unwrap_or_default();
            of_listing(format!("{}{inserted}{rest}", &LISTING[..at]).as_bytes());
            of_listing(&LISTING.as_bytes()[..at]);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            of_listing(&bytes);
            of_error(&bytes);
        }

        #[test]
        fn any_message(message in "[a-zé\n\r]{0,250}") {
            of_error(message.as_bytes());
        }
    }
}
