//! Lists in pages.
//!
//! Owns: `maxResults`, `nextToken`, and that a page goes on where the last one ended although things came and
//! went meanwhile. Must not know: what is listed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::query::Query;
use super::refusal::Refused;

/// The most that EKS puts on a page, and what it puts there where nothing is asked for.
const MOST: usize = 100;

/// One page of what is listed, in the order of its keys, and the token of the next one.
pub(super) fn page<T>(query: &Query, mut all: Vec<(String, T)>) -> Result<(Vec<T>, Option<String>), Refused> {
    let most = match query.one("maxResults") {
        None => MOST,
        Some(text) => text
            .parse()
            .ok()
            .filter(|most| (1..=MOST).contains(most))
            .ok_or_else(|| Refused::invalid("maxResults needs to be 1-100."))?,
    };
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some(token) = query.one("nextToken") {
        let after = read(token).ok_or_else(|| Refused::invalid("The nextToken parameter is not valid."))?;
        all.retain(|(key, _)| *key > after);
    }
    let is_last = all.len() <= most;
    all.truncate(most);
    let next = if is_last { None } else { all.last().map(|(key, _)| URL_SAFE_NO_PAD.encode(key)) };
    Ok((all.into_iter().map(|(_, item)| item).collect(), next))
}

fn read(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str], query: &str) -> (Vec<String>, Option<String>) {
        let all = names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
        page(&Query::parse(query), all).unwrap()
    }

    #[test]
    fn pages_follow_each_other_although_things_come_and_go() {
        let (first, next) = listed(&["c", "a", "b", "d"], "maxResults=2");
        assert_eq!(first, ["a", "b"]);
        let query = format!("maxResults=2&nextToken={}", next.unwrap());
        let second = (vec!["c".to_owned(), "d".to_owned()], None);
        assert_eq!(listed(&["a", "b", "c", "d", "aa"], &query), second);
        assert_eq!(listed(&["a", "c", "d", "aa"], &query), second, "although the last one of a page is gone");
    }

    #[test]
    fn a_page_that_cannot_be_had_is_refused() {
        for query in ["maxResults=0", "maxResults=101", "maxResults=x", "nextToken=%21"] {
            assert!(page(&Query::parse(query), vec![("a".to_owned(), ())]).is_err(), "{query}");
        }
    }
}
