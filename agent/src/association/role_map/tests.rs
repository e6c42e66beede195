//! Role maps, good and bad.

use proptest::prelude::*;

use super::{RoleMap, reading};
use crate::workload::StsEndpoint::{Global, Regional};

const ARN: &str = "arn:aws:iam::111122223333:role";

fn entry(key: &str, role: &str) -> String {
    format!(r#""{key}":{{"RoleARN":"{ARN}/{role}"}}"#)
}

fn map(entries: &[String]) -> RoleMap {
    RoleMap::read(format!("{{{}}}", entries.join(",")).as_bytes()).unwrap()
}

fn said(content: &str) -> String {
    RoleMap::read(content.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_exact_name_counts_then_the_longest_beginning() {
    let keys = ["a/web", "a/web*", "a/web-*", "a/*", "b/web-1", "c/x.y*", "d/web-*"];
    let map = map(&keys.map(|key| entry(key, &key.replace(['/', '*'], "_"))));
    for (namespace, account, role) in [
        ("a", "web", Some("a_web")),
        ("a", "web2", Some("a_web_")),
        ("a", "web-2", Some("a_web-_")),
        ("a", "web-", Some("a_web-_")),
        ("a", "we", Some("a__")),
        ("a", "", Some("a__")),
        ("a", "wéb", Some("a__")),
        ("b", "web-1", Some("b_web-1")),
        ("b", "web-12", None),
        ("b", "web", None),
        ("c", "x.y", Some("c_x.y_")),
        ("c", "xzy", None),
        ("d", "web", None),
        ("", "web", None),
        ("a*", "web", None),
    ] {
        let found = map.find(namespace, account).map(|settings| settings.role.to_string());
        assert_eq!(found, role.map(|role| format!("{ARN}/{role}")), "{namespace}/{account}");
    }
}

#[test]
fn an_entry_has_the_agents_audience_and_the_regional_endpoint_unless_it_says_otherwise() {
    for (fields, audience, endpoint) in [
        ("", None, Regional),
        (
            r#","Audience":"my.audience","UseRegionalSTS":true,"TokenExpiration":86400"#,
            Some("my.audience"),
            Regional,
        ),
        (r#","UseRegionalSTS":false"#, None, Global),
        (r#","Audience":"","TokenExpiration":600"#, None, Regional),
        (r#","Audience":"","TokenExpiration":0"#, None, Regional),
    ] {
        let map = RoleMap::read(format!(r#"{{"a/b":{{"RoleARN":"{ARN}/r"{fields}}}}}"#).as_bytes()).unwrap();
        let settings = map.find("a", "b").unwrap();
        assert_eq!((settings.audience.as_deref(), settings.endpoint), (audience, endpoint), "{fields}");
        let says_how_long = fields.contains("600") || fields.contains("86400");
        assert_eq!(map.with_token_life(), usize::from(says_how_long), "{fields}");
    }
    assert!(RoleMap::read(b"{}").unwrap().find("a", "b").is_none());
}

/// What kOps writes into the webhook's ConfigMap (its upup/pkg/fi/cloudup/template_functions.go): Go's JSON
/// of a struct of which the last field is never set.
#[test]
fn the_map_of_kops_is_read_as_it_is() {
    const WRITTEN: &str = concat!(
        r#"{"default/first":{"RoleARN":"arn:aws:iam::123456789012:role/first.default.sa.m.example.com","#,
        r#""Audience":"amazonaws.com","UseRegionalSTS":true,"TokenExpiration":0},"#,
        r#""myapp/other":{"RoleARN":"arn:aws:iam::123456789012:role/other.myapp.sa.m.example.com","#,
        r#""Audience":"amazonaws.com","UseRegionalSTS":true,"TokenExpiration":0}}"#,
    );
    let map = RoleMap::read(WRITTEN.as_bytes()).unwrap();
    let settings = map.find("myapp", "other").unwrap();
    assert_eq!((settings.audience.as_deref(), settings.endpoint), (Some("amazonaws.com"), Regional));
    assert_eq!((settings.token_life, map.with_token_life()), (None, 0));
}

#[test]
fn a_key_that_names_no_account_refuses_the_file() {
    for (key, says) in [
        ("web", "it must be NAMESPACE/SERVICE-ACCOUNT"),
        ("*/web", "a namespace must be named in full"),
        ("a*/web", "a namespace must be named in full"),
        ("*", "it must be NAMESPACE/SERVICE-ACCOUNT"),
        ("A/web", "no name of a namespace"),
        ("/web", "no name of a namespace"),
        ("a.b/web", "no name of a namespace"),
        (&*format!("{}/web", "n".repeat(64)), "no name of a namespace"),
        ("a/", "no name of a service account"),
        ("a/We", "no name of a service account"),
        ("a/web/x", "no name of a service account"),
        ("a/w*b", "* may only stand at the end"),
        ("a/*web", "* may only stand at the end"),
        ("a/w**", "there may be one * only"),
        ("a/w*b*", "there may be one * only"),
        ("a/-*", "no name of a service account begins"),
        ("a/W*", "no name of a service account begins"),
    ] {
        let said = said(&format!("{{{}}}", entry(key, "r")));
        assert!(said.contains(says) && said.contains(&format!("entry \"{key}\"")), "{key}: {said}");
    }
}

#[test]
fn an_entry_that_is_not_understood_refuses_the_file() {
    for (value, says) in [
        ("[]", "it must be an object with RoleARN, Audience"),
        (r#""arn""#, "it must be an object"),
        ("null", "it must be an object"),
        ("{}", "RoleARN is missing"),
        (r#"{"RoleARN":"reader"}"#, r#"RoleARN is "reader": it must be the ARN of a role"#),
        (r#"{"RoleARN":1}"#, "RoleARN must be a text"),
        (r#"{"roleArn":"a"}"#, r#"there is no field "roleArn""#),
        (r#"{"RoleARN":"ARN","Audience":null}"#, "Audience must be a text"),
        (r#"{"RoleARN":"ARN","Audience":"a b"}"#, "Audience: an audience has"),
        (r#"{"RoleARN":"ARN","UseRegionalSTS":"true"}"#, "UseRegionalSTS must be true or false"),
        (r#"{"RoleARN":"ARN","TokenExpiration":1}"#, "TokenExpiration must be"),
        (r#"{"RoleARN":"ARN","TokenExpiration":599}"#, "TokenExpiration must be"),
        (r#"{"RoleARN":"ARN","TokenExpiration":-1}"#, "TokenExpiration must be"),
        (r#"{"RoleARN":"ARN","TokenExpiration":600.5}"#, "TokenExpiration must be"),
        (r#"{"RoleARN":"ARN","RoleARN":"ARN"}"#, "RoleARN is there twice"),
    ] {
        let said = said(&format!(
            r#"{{"a/b":{}}}"#,
            value.replace("ARN\"}", &format!("{ARN}/r\"}}")).replace(":\"ARN\"", &format!(":\"{ARN}/r\""))
        ));
        assert!(said.contains(says), "{value}: {said}");
    }
}

#[test]
fn two_entries_for_the_same_accounts_refuse_the_file() {
    for keys in [["a/b", "a/b"], ["a/b*", "a/b*"]] {
        let said = said(&format!("{{{}}}", keys.map(|key| entry(key, "r")).join(",")));
        assert!(said.contains(&format!("entry \"{}\": it is there twice", keys[0])), "{said}");
    }
    assert!(RoleMap::read(format!("{{{},{}}}", entry("a/b", "r"), entry("a/b*", "r")).as_bytes()).is_ok());
}

#[test]
fn all_problems_are_named_up_to_ten_and_the_size_is_bounded() {
    let bad: Vec<String> = (0..14).map(|number| entry(&format!("A/{number}"), "r")).collect();
    let said_of_bad = said(&format!("{{{}}}", bad.join(",")));
    assert_eq!(said_of_bad.matches("entry").count(), 10, "{said_of_bad}");
    assert!(said_of_bad.contains(r#"entry "A/9""#) && said_of_bad.ends_with("; and 4 more"), "{said_of_bad}");
    let many = |count: usize| {
        let entries: Vec<_> = (0..count).map(|number| entry(&format!("a/{number}"), "r")).collect();
        RoleMap::read(format!("{{{}}}", entries.join(",")).as_bytes())
    };
    assert!(many(10_000).is_ok());
    assert!(many(10_001).unwrap_err().to_string().contains("more than 10000 entries"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _read = reading::read(&bytes);
    }

    #[test]
    fn texts_like_maps_are_read_without_a_panic_and_looked_up(
        keys in prop::collection::vec("[ab*/.é-]{0,6}", 0..4),
        name in "RoleARN|Audience|UseRegionalSTS|TokenExpiration|X",
        value in r#""[a:]{0,9}"|true|[0-9]{1,4}|null"#,
        account in "[abé.-]{0,6}",
    ) {
        let entries: Vec<_> = keys.iter().map(|key| format!(r#""{key}":{{"{name}":{value}}}"#)).collect();
        if let Ok(map) = reading::read(format!("{{{}}}", entries.join(",")).as_bytes()) {
            let _found = map.find("a", &account);
        }
    }

    /// By a second way, which looks at all entries.
    #[test]
    fn the_longest_beginning_counts(
        keys in prop::collection::btree_set("[ab]{0,4}\\*?", 0..8),
        account in "[ab]{1,5}",
    ) {
        let keys: Vec<String> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        let role = |key: &str| format!("r{key}").replace('*', "_");
        let entries: Vec<_> = keys.iter().map(|key| entry(&format!("n/{key}"), &role(key))).collect();
        let begins = |start: &str| account.starts_with(start);
        let fits = |key: &&String| key.strip_suffix('*').map_or(**key == account, begins);
        let exact_first = |key: &&String| (!key.ends_with('*'), key.len());
        let best = keys.iter().filter(fits).max_by_key(exact_first);
        let expected = best.map(|key| format!("{ARN}/{}", role(key)));
        let found = map(&entries).find("n", &account).map(|settings| settings.role.to_string());
        prop_assert_eq!(found, expected);
    }
}
