//! The issuer's documents, as verifiers fetch them.

use sandbox::{PodSpec, TokenSpec};

use crate::client::{Request, assumed, sandbox};

#[test]
fn discovery_names_the_issuer_of_the_tokens_and_leads_to_its_keys() {
    let sandbox = sandbox();
    let discovery = Request::new("GET", sandbox.discovery_url(), "").send().unwrap().json();
    assert_eq!(discovery["issuer"], sandbox.issuer_url());
    assert!(sandbox.issuer_url().starts_with("https://oidc.eks.us-west-2.amazonaws.com/id/"));
    assert_eq!(discovery["jwks_uri"], sandbox.jwks_url());
    let keys = Request::new("GET", sandbox.jwks_url(), "").send().unwrap().json();
    assert_eq!(keys["keys"][0]["alg"], "RS256");
}

#[test]
fn rotation_shows_in_the_key_document_and_decides_what_verifies() {
    let sandbox = sandbox();
    let spec = TokenSpec::new(PodSpec::default());
    let old = sandbox.token(&spec).unwrap();
    let kids = || {
        let keys = Request::new("GET", sandbox.jwks_url(), "").send().unwrap().json();
        keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let new = sandbox.rotate_keys(false).unwrap();
    assert_eq!((kids().len(), kids().first()), (2, Some(&new)));
    assert_eq!(assumed(&sandbox, &old).unwrap().status, 200);
    sandbox.rotate_keys(true).unwrap();
    assert_eq!(kids().len(), 1);
    assert_eq!(assumed(&sandbox, &old).unwrap().error(), (400, "InvalidTokenException"));
    assert_eq!(assumed(&sandbox, &sandbox.token(&spec).unwrap()).unwrap().status, 200);
}
