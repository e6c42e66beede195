//! The adversary table, and what keys that come and go do to verdicts.

mod reviews;

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature;
use serde_json::{Value, json};

use super::testing::{
    EcSigner, ISSUER, NOW, RsaSigner, Signer, after, authenticator, authenticator_of,
    authenticator_of_api_server, authenticator_with, bearer, claims_with, encode, good_claims, now, pod,
};
use super::{Authentication, Authenticator, Identity, Lookup, RefusedToken, TokenFault};
use crate::clock::{Clock, Now, Trust};
use crate::config::VerificationMode::{Auto, Off, Required};
use crate::identity::claims::UnreadableClaims;
use crate::identity::keys::{IssuerDocuments, KeySource, TokenKeys};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Readiness;
use crate::rng::Rng;
use crate::workload::{BearerToken, Caller, CredentialKey, Route};

fn name(authentication: &Authentication) -> String {
    match authentication {
        Authentication::Identified(Identity::Verified(identity)) => {
            format!("verified {}", identity.pod().uid)
        }
        Authentication::Identified(Identity::Unverified(_)) => "unverified".to_owned(),
        Authentication::Identified(Identity::Untimely(_)) => "untimely".to_owned(),
        Authentication::Refused(RefusedToken { fault: TokenFault::ForeignAudience(_), .. }) => {
            "ForeignAudience".to_owned()
        }
        Authentication::Refused(refused) => format!("{:?}", refused.fault),
        Authentication::Undecided(_) => "undecided".to_owned(),
    }
}

fn verdict(authenticator: &Authenticator, token: &BearerToken) -> String {
    // Twice: what is remembered must be what was found.
    let first = name(&authenticator.authenticate(token, now()));
    assert_eq!(name(&authenticator.authenticate(token, now())), first);
    first
}

#[test]
fn claims_decide_only_with_a_signature_and_against_the_token_always() {
    let key = EcSigner::new("k");
    let (authenticator, _keys) = authenticator(Auto, &[key.jwk()]);
    let without = |path: &str, member: &str| {
        let mut claims = good_claims();
        claims.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(member);
        claims
    };
    let kubernetes = "/kubernetes.io";
    let cases = [
        (good_claims(), "verified p-uid"),
        (claims_with("/exp", json!(NOW - 60)), "Expired"),
        (claims_with("/exp", json!(NOW - 59)), "verified p-uid"),
        (claims_with("/nbf", json!(NOW + 61)), "untimely"),
        (claims_with("/nbf", json!(NOW + 60)), "verified p-uid"),
        (claims_with("/iss", json!("https://evil.example")), "unverified"),
        (without("", "iss"), "unverified"),
        (claims_with("/aud", json!(["sts.amazonaws.com"])), "ForeignAudience"),
        (claims_with("/aud", json!([])), "ForeignAudience"),
        (claims_with("/aud", json!(["pods.eks.amazonaws.com", "sts.amazonaws.com"])), "SeveralAudiences"),
        (claims_with("/aud", json!(["vault", "pods.eks.amazonaws.com"])), "verified p-uid"),
        (claims_with("/sub", json!("system:serviceaccount:ns:admin")), "Contradiction"),
        (without("", "sub"), "Contradiction"),
        (without("", "kubernetes.io"), "NotPodBound"),
        (without(kubernetes, "pod"), "NotPodBound"),
        (without("/kubernetes.io/pod", "uid"), "NotPodBound"),
        (without("/kubernetes.io/serviceaccount", "uid"), "NotPodBound"),
        (claims_with("/kubernetes.io/pod/uid", json!("")), "NotPodBound"),
        (claims_with("/kubernetes.io/node/name", json!("node-2")), "OtherNode"),
        (without(kubernetes, "node"), "verified p-uid"),
    ];
    for (claims, expected) in cases {
        assert_eq!(verdict(&authenticator, &key.token(&claims)), expected, "{claims}");
    }
    let no_exp = key.token(&without("", "exp"));
    assert_eq!(
        verdict(&authenticator, &no_exp),
        format!("{:?}", TokenFault::Unreadable(UnreadableClaims::NotClaims))
    );
}

#[test]
fn a_known_key_refutes_what_it_did_not_sign() {
    let (key, stranger) = (RsaSigner::new("k"), RsaSigner::new("k"));
    let (authenticator, _keys) = authenticator(Auto, &[key.jwk()]);
    let good = key.token(&good_claims());
    let (signed, signature) = good.signed_and_signature();
    let tampered = encode(claims_with("/kubernetes.io/pod/uid", json!("victim")).to_string().as_bytes());
    let header = good.header();
    let cut = &signature[..signature.len() - 4];
    let cases = [
        ("good", signed.to_owned() + "." + signature, "verified p-uid"),
        ("tampered uid", format!("{header}.{tampered}.{signature}"), "Forged"),
        ("signed by a stranger", stranger.token(&good_claims()).reveal().to_owned(), "Forged"),
        ("signature cut", format!("{signed}.{cut}"), "Forged"),
        ("signature that is no base64url", format!("{signed}.="), "Forged"),
        ("signature of another token", format!("{signed}.{}", encode(&[0; 256])), "Forged"),
    ];
    for (what, token, expected) in cases {
        assert_eq!(verdict(&authenticator, &bearer(&token)), expected, "{what}");
    }
}

#[test]
fn the_key_pins_the_algorithm_and_the_header_does_not() {
    let (rsa, ec, ec384) = (RsaSigner::new("rsa"), EcSigner::new("ec"), EcSigner::p384("ec384"));
    let mut pinned = rsa.jwk();
    pinned["alg"] = json!("RS256");
    pinned["kid"] = json!("pinned");
    let (authenticator, _keys) = authenticator(Auto, &[rsa.jwk(), pinned, ec.jwk(), ec384.jwk()]);
    let signed = |header: Value, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        let text = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(good_claims().to_string().as_bytes())
        );
        let signature = sign(text.as_bytes());
        verdict(&authenticator, &bearer(&format!("{text}.{}", encode(&signature))))
    };
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let rs256 = |message: &[u8]| rsa.sign_with(&signature::RSA_PKCS1_SHA256, message);
    let rs384 = |message: &[u8]| rsa.sign_with(&signature::RSA_PKCS1_SHA384, message);
    let rs512 = |message: &[u8]| rsa.sign_with(&signature::RSA_PKCS1_SHA512, message);
    let pss = |message: &[u8]| rsa.sign_with(&signature::RSA_PSS_SHA256, message);
    let es256 = |message: &[u8]| ec.sign(message);
    assert_eq!(signed(header("RS256", "rsa"), &rs256), "verified p-uid");
    assert_eq!(signed(header("RS384", "rsa"), &rs384), "verified p-uid");
    assert_eq!(signed(header("RS512", "rsa"), &rs512), "verified p-uid");
    assert_eq!(signed(header("ES256", "ec"), &es256), "verified p-uid");
    let es384 = |message: &[u8]| ec384.sign(message);
    assert_eq!(signed(header("ES384", "ec384"), &es384), "verified p-uid");
    assert_eq!(signed(header("ES256", "ec384"), &es384), "Algorithm");
    assert_eq!(signed(header("ES512", "ec384"), &es384), "Algorithm");
    assert_eq!(signed(header("RS256", "pinned"), &rs256), "verified p-uid");
    assert_eq!(signed(header("RS512", "pinned"), &rs512), "Algorithm", "this key says RS256");
    assert_eq!(signed(header("RS256", "rsa"), &rs512), "Forged", "the header lies");
    assert_eq!(signed(header("PS256", "rsa"), &pss), "Algorithm");
    assert_eq!(signed(header("ES256", "rsa"), &es256), "Algorithm");
    assert_eq!(signed(header("RS256", "ec"), &rs256), "Algorithm");
    for none in ["none", "None", "NONE"] {
        assert_eq!(signed(header(none, "rsa"), &|_| vec![0]), "Algorithm", "{none}");
        assert_eq!(signed(header(none, "unknown"), &|_| vec![0]), "Algorithm", "{none} of an unknown key");
    }
    // The classic: the public key, which everybody has, as the secret of an HMAC.
    for secret in [rsa.modulus(), encode(&rsa.modulus()).into_bytes(), rsa.jwk().to_string().into_bytes()] {
        let hs256 = |message: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message).as_ref().to_vec()
        };
        assert_eq!(signed(header("HS256", "rsa"), &hs256), "Algorithm");
        assert_eq!(signed(header("RS256", "rsa"), &hs256), "Forged");
    }
    let critical = json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false });
    assert_eq!(signed(critical, &rs256), "Algorithm");
}

#[test]
fn what_no_key_can_decide_is_unverified_undecided_or_not_looked_at() {
    let (known, unknown) = (EcSigner::new("known"), EcSigner::new("unknown"));
    let token = unknown.token(&good_claims());
    let nameless = known.token_with(&json!({ "alg": "ES256" }), &good_claims());
    for (mode, expected) in [(Auto, "unverified"), (Required, "undecided"), (Off, "unverified")] {
        let (authenticator, _keys) = authenticator(mode, &[known.jwk()]);
        assert_eq!(verdict(&authenticator, &token), expected, "{mode:?}");
        assert_eq!(verdict(&authenticator, &nameless), expected, "{mode:?}, without kid");
    }
    // With an unknown key too a claim that is wrong decides; off, nothing but the times does.
    let other_node = unknown.token(&claims_with("/kubernetes.io/node/name", json!("node-2")));
    let several = unknown.token(&claims_with("/aud", json!(["pods.eks.amazonaws.com", "sts.amazonaws.com"])));
    let (auto, _keys) = authenticator(Auto, &[known.jwk()]);
    let (off, _keys) = authenticator(Off, &[known.jwk()]);
    assert_eq!(
        (verdict(&auto, &several), verdict(&off, &several)),
        ("SeveralAudiences".into(), "unverified".into())
    );
    assert_eq!(verdict(&auto, &other_node), "unverified", "nobody has vouched for the node claim");
}

/// It is refused by what it says of itself; whom one may believe it to be of is another matter.
#[test]
fn a_token_for_somebody_else_is_its_pods_only_where_a_key_proves_it() {
    let (known, stranger, unknown) = (EcSigner::new("k"), EcSigner::new("k"), EcSigner::new("unknown"));
    let (authenticator, _keys) = authenticator(Auto, &[known.jwk()]);
    let foreign = claims_with("/aud", json!(["sts.amazonaws.com"]));
    let with = |path: &str, value: Value| {
        let mut claims = foreign.clone();
        *claims.pointer_mut(path).unwrap() = value;
        claims
    };
    for (what, token, is_proven) in [
        ("genuine", known.token(&foreign), true),
        ("forged", stranger.token(&foreign), false),
        ("of an unknown key", unknown.token(&foreign), false),
        ("of another issuer", known.token(&with("/iss", json!("https://evil.example"))), false),
        ("of no pod", known.token(&with("/kubernetes.io/pod/uid", json!(""))), false),
    ] {
        let Authentication::Refused(refused) = authenticator.authenticate(&token, now()) else {
            panic!("{what}: it is not refused");
        };
        assert!(matches!(refused.fault, TokenFault::ForeignAudience(_)), "{what}: {:?}", refused.fault);
        assert_eq!(refused.caller.verified().is_some(), is_proven, "{what}: {:?}", refused.caller);
    }
}

/// An issuer with a slash too much in `--issuer` must not cost every pod its credentials.
#[test]
fn a_token_of_an_unknown_issuer_is_for_eks_auth_to_judge_or_undecided_and_never_refused() {
    let (known, unknown) = (EcSigner::new("known"), EcSigner::new("unknown"));
    let slash = claims_with("/iss", json!(format!("{ISSUER}/")));
    let mut of_another_audience = slash.clone();
    of_another_audience["aud"] = json!(["sts.amazonaws.com"]);
    for (mode, foreign) in [(Auto, "unverified"), (Required, "undecided"), (Off, "unverified")] {
        let (authenticator, _keys) = authenticator(mode, &[known.jwk()]);
        // Of our key too: it proves nothing of another issuer's claims.
        for key in [&known, &unknown] {
            for time in ["first", "second"] {
                assert_eq!(verdict(&authenticator, &key.token(&slash)), foreign, "{mode:?}, the {time} time");
            }
            let verdict = verdict(&authenticator, &key.token(&of_another_audience));
            assert_eq!(verdict, "ForeignAudience", "{mode:?}: nobody serves it");
        }
        assert_eq!(verdict(&authenticator, &known.token(&good_claims())) == "verified p-uid", mode != Off);
    }
}

#[test]
fn a_token_that_was_good_is_refused_once_it_has_expired() {
    let key = EcSigner::new("k");
    let (with_keys, _keys) = authenticator(Auto, &[key.jwk()]);
    let token = key.token(&good_claims());
    for authenticator in [with_keys, Authenticator::default()] {
        for _ in 0..2 {
            let verdict = authenticator.authenticate(&token, now());
            assert!(matches!(verdict, Authentication::Identified(_)), "{verdict:?}");
        }
        let verdict = authenticator.authenticate(&token, after(Duration::from_secs(3661)));
        assert!(
            matches!(verdict, Authentication::Refused(RefusedToken { fault: TokenFault::Expired, .. })),
            "{verdict:?}"
        );
    }
}

#[test]
fn tokens_of_one_pod_share_a_key_and_those_of_two_never_do() {
    let key = EcSigner::new("k");
    let (authenticator, _keys) = authenticator(Auto, &[key.jwk()]);
    let held_under = |claims: Value| {
        let verdict = authenticator.authenticate(&key.token(&claims), now());
        let Authentication::Identified(identity) = verdict else { panic!("{verdict:?}") };
        identity.principal(Route::EksAuth).key
    };
    let first = held_under(good_claims());
    assert!(matches!(first, CredentialKey::Verified(_)));
    assert_eq!(first, held_under(claims_with("/exp", json!(NOW + 7200))), "rotated");
    assert_ne!(first, held_under(claims_with("/kubernetes.io/pod/uid", json!("other"))), "made again");
    assert_ne!(first, held_under(claims_with("/kubernetes.io/serviceaccount/uid", json!("other"))));
}

#[test]
fn a_withdrawn_key_stops_verifying_at_once() {
    let (old, new) = (EcSigner::new("old"), EcSigner::new("new"));
    let (authenticator, keys) = authenticator(Auto, &[old.jwk()]);
    let token = old.token(&good_claims());
    assert_eq!(verdict(&authenticator, &token), "verified p-uid");
    keys.replace(0, &json!({ "keys": [old.jwk(), new.jwk()] }));
    assert_eq!(verdict(&authenticator, &token), "verified p-uid", "rotated, not withdrawn");
    keys.replace(0, &json!({ "keys": [new.jwk()] }));
    assert_eq!(verdict(&authenticator, &token), "unverified");
    assert_eq!(verdict(&authenticator, &new.token(&good_claims())), "verified p-uid");
}

#[test]
fn one_id_of_two_sources_is_two_keys_and_either_may_prove() {
    let (one, other, stranger) = (EcSigner::new("k"), EcSigner::new("k"), EcSigner::new("k"));
    let keys = TokenKeys::of_sources(2);
    keys.replace(0, &json!({ "keys": [one.jwk()] }));
    keys.replace(1, &json!({ "keys": [other.jwk()] }));
    let authenticator = authenticator_of(Auto, &keys);
    for (key, expected) in [(&one, "verified p-uid"), (&other, "verified p-uid"), (&stranger, "Forged")] {
        assert_eq!(verdict(&authenticator, &key.token(&good_claims())), expected);
    }
}

#[test]
fn keys_that_came_with_an_issuer_verify_no_other_ones_tokens() {
    const OTHER: &str = "https://oidc.example/id/OTHER";
    let (ours, theirs, file) = (EcSigner::new("k"), EcSigner::new("their-k"), EcSigner::new("file-k"));
    let keys = TokenKeys::of_sources(3);
    keys.replace(0, &json!({ "keys": [ours.jwk()] }));
    keys.replace(1, &json!({ "keys": [theirs.jwk(), EcSigner::new("k").jwk()] }));
    keys.replace(2, &json!({ "keys": [file.jwk()] }));
    let places = [&format!("{ISSUER}/keys"), &format!("{OTHER}/keys"), "/keys"];
    let other = claims_with("/iss", json!(OTHER));
    for (mode, undecided) in [(Auto, "unverified"), (Required, "undecided")] {
        let authenticator = authenticator_with(mode, &[ISSUER, OTHER], &places, &keys);
        for (what, token, expected) in [
            ("its own", ours.token(&good_claims()), "verified p-uid"),
            ("its own", theirs.token(&other), "verified p-uid"),
            // Not refuted: that issuer may have a key of this id that was not read yet.
            ("another's", theirs.token(&good_claims()), undecided),
            ("one that the other has under the same id", ours.token(&other), "Forged"),
            ("one of a file, which may be any issuer's", file.token(&good_claims()), "verified p-uid"),
            ("one of a file, which may be any issuer's", file.token(&other), "verified p-uid"),
        ] {
            assert_eq!(verdict(&authenticator, &token), expected, "{mode:?}: {what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_waited_for_and_verifies_when_it_comes() {
    let (old, new) = (EcSigner::new("old"), EcSigner::new("new"));
    let (authenticator, keys) = authenticator(Auto, &[old.jwk()]);
    let token = new.token(&good_claims());
    let Lookup::Open(open) = authenticator.lookup(&token, pod(), now()) else { panic!("it is unknown") };
    let source = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        keys.replace(0, &json!({ "keys": [old.jwk(), new.jwk()] }));
    };
    let (judged, ()) = tokio::join!(authenticator.ask_others(&open, &token, pod(), now()), source);
    assert_eq!(name(&judged), "verified p-uid");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_answer_costs_half_a_second_once() {
    let (old, new) = (EcSigner::new("old"), EcSigner::new("new"));
    let (authenticator, _keys) = authenticator(Auto, &[old.jwk()]);
    let token = new.token(&good_claims());
    let Lookup::Open(open) = authenticator.lookup(&token, pod(), now()) else { panic!("it is unknown") };
    let before = tokio::time::Instant::now();
    assert_eq!(name(&authenticator.ask_others(&open, &token, pod(), now()).await), "unverified");
    assert_eq!(before.elapsed(), Duration::from_millis(500));
    assert!(matches!(
        authenticator.lookup(&token, pod(), now()),
        Lookup::Judged(Authentication::Identified(Identity::Unverified(_)))
    ));
}

#[test]
fn keys_of_the_api_server_verify_tokens_of_the_issuer_that_it_names_and_of_those_that_are_given() {
    let (key, given) = (EcSigner::new("k"), "https://issuer-of-last-year.example");
    let keys = TokenKeys::of_sources(1);
    let authenticator = authenticator_of_api_server(Auto, &[given], &keys);
    let of = |issuer: &str| key.token(&claims_with("/iss", json!(issuer)));
    keys.replace_of_issuer(0, ISSUER, &json!({ "keys": [key.jwk()] }));
    assert_eq!(verdict(&authenticator, &of(ISSUER)), "verified p-uid");
    assert_eq!(verdict(&authenticator, &of(given)), "verified p-uid");
    // EKS Auth's to judge: it may be the public name of the same issuer.
    assert_eq!(verdict(&authenticator, &of("https://other.example")), "unverified");
    keys.replace_of_issuer(0, "https://renamed.example", &json!({ "keys": [key.jwk()] }));
    assert_eq!(verdict(&authenticator, &of(ISSUER)), "unverified", "the same keys under another name");
    assert_eq!(verdict(&authenticator, &of("https://renamed.example")), "verified p-uid");
}

#[tokio::test(start_paused = true)]
async fn a_token_waits_for_an_api_server_that_has_not_named_its_issuer() {
    for (mode, meanwhile) in [(Auto, "unverified"), (Required, "undecided")] {
        let (key, keys) = (EcSigner::new("k"), TokenKeys::of_sources(1));
        let authenticator = authenticator_of_api_server(mode, &[], &keys);
        let token = key.token(&good_claims());
        assert_eq!(verdict(&authenticator, &token), meanwhile, "{mode:?}");
        let Lookup::Open(open) = authenticator.lookup(&token, pod(), now()) else { panic!("{mode:?}") };
        let source = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            keys.replace_of_issuer(0, ISSUER, &json!({ "keys": [key.jwk()] }));
        };
        let (judged, ()) = tokio::join!(authenticator.ask_others(&open, &token, pod(), now()), source);
        assert_eq!(name(&judged), "verified p-uid", "{mode:?}");
    }
}

/// Seen on a node of 2,000 pods: keys came in the moment in which requests gave up waiting for them. One pod
/// was unverified from then on, and its next token cost a call.
#[tokio::test(start_paused = true)]
async fn a_key_that_comes_while_a_request_gives_up_waiting_verifies() {
    let (old, new) = (EcSigner::new("old"), EcSigner::new("new"));
    let (authenticator, keys) = authenticator(Auto, &[old.jwk()]);
    let token = new.token(&good_claims());
    let Lookup::Open(open) = authenticator.lookup(&token, pod(), now()) else { panic!("it is unknown") };
    // It is there, and those who wait have not been told.
    keys.provide(0, &json!({ "keys": [old.jwk(), new.jwk()] }));
    let judged = authenticator.ask_others(&open, &token, pod(), now()).await;
    assert_eq!(name(&judged), "verified p-uid");
    assert_eq!(verdict(&authenticator, &token), "verified p-uid");
}

#[tokio::test(start_paused = true)]
async fn required_and_without_any_keys_waits_for_the_first_of_them() {
    let key = EcSigner::new("k");
    let keys = TokenKeys::of_sources(1);
    let authenticator = authenticator_of(Required, &keys);
    let token = key.token(&good_claims());
    let Lookup::Open(open) = authenticator.lookup(&token, pod(), now()) else { panic!("it is unknown") };
    let before = tokio::time::Instant::now();
    assert_eq!(name(&authenticator.ask_others(&open, &token, pod(), now()).await), "undecided");
    assert_eq!(before.elapsed(), Duration::from_millis(4_400));
    let source = async {
        tokio::time::sleep(Duration::from_millis(3_000)).await;
        keys.replace(0, &json!({ "keys": [key.jwk()] }));
    };
    let (judged, ()) = tokio::join!(authenticator.ask_others(&open, &token, pod(), now()), source);
    assert_eq!(name(&judged), "verified p-uid");
}

#[tokio::test(start_paused = true)]
async fn required_and_after_a_long_time_without_keys_the_first_of_them_serve_a_pod_within_moments() {
    let (key, keys) = (EcSigner::new("k"), TokenKeys::of_sources(1));
    let authenticator = authenticator_of(Required, &keys);
    let document = json!({ "keys": [key.jwk()] }).to_string();
    let began = tokio::time::Instant::now();
    let back = Duration::from_secs(600);
    // By then the source itself looks twice a minute.
    let read = move || {
        let keys = (began.elapsed() >= back).then(|| document.clone().into());
        async move { Ok(IssuerDocuments { issuer: None, keys: keys.ok_or("no answer")? }) }
    };
    let complete = Readiness::new().advisory(ConditionName::TokenKeys);
    let source = KeySource::read_elsewhere("issuer".to_owned(), 0, keys, false, read);
    let source = source.keep(Clock::system(), Rng::seeded(1), complete);
    let token = key.token(&good_claims());
    let asked = async {
        tokio::time::sleep_until(began + back - Duration::from_secs(1)).await;
        let Lookup::Open(open) = authenticator.lookup(&token, pod(), now()) else { panic!("it is unknown") };
        let judged = authenticator.ask_others(&open, &token, pod(), now()).await;
        assert_eq!(name(&judged), "verified p-uid");
        let waited = began.elapsed().saturating_sub(back);
        assert!(waited <= Duration::from_secs(2), "{waited:?}");
    };
    tokio::select! {
        () = asked => {}
        () = source => panic!("it ends"),
    }
}

#[test]
fn every_verdict_says_who_asks_and_whether_that_is_proven() {
    let (key, stranger) = (EcSigner::new("k"), EcSigner::new("other"));
    let (auto, _keys) = authenticator(Auto, &[key.jwk()]);
    let (required, _keys) = authenticator(Required, &[key.jwk()]);
    let elsewhere = key.token(&claims_with("/kubernetes.io/node/name", json!("node-2")));
    let good = key.token(&good_claims());
    let later = after(Duration::from_secs(3661));
    let cases = [
        ("verified", auto.authenticate(&good, now()), "verified p"),
        ("verified before, expired since", auto.authenticate(&good, later), "verified p"),
        ("genuine, of another node", auto.authenticate(&elsewhere, now()), "verified p"),
        ("unverified", auto.authenticate(&stranger.token(&good_claims()), now()), "claimed p"),
        ("undecided", required.authenticate(&stranger.token(&good_claims()), now()), "claimed p"),
        ("expired", auto.authenticate(&stranger.token(&good_claims()), later), "claimed p"),
        ("unreadable", auto.authenticate(&bearer("a.b.c"), now()), "unknown"),
    ];
    for (what, verdict, expected) in cases {
        let caller = match verdict.caller() {
            Caller::Verified(pod) => format!("verified {}", pod.name),
            Caller::Claimed(pod) => format!("claimed {}", pod.name.as_deref().unwrap_or_default()),
            Caller::Unknown => "unknown".to_owned(),
        };
        assert_eq!(caller, expected, "{what}: {verdict:?}");
    }
}

#[test]
fn times_alone_refuse_nobody_but_the_expired_by_a_confirmed_time_and_everything_else_does() {
    let (key, stranger, unknown) = (EcSigner::new("k"), EcSigner::new("k"), EcSigner::new("unknown"));
    let early = claims_with("/nbf", json!(NOW + 90));
    let late = claims_with("/exp", json!(NOW - 60));
    let foreign = {
        let mut claims = late.clone();
        claims["iss"] = json!("https://evil.example");
        claims
    };
    let cases = [
        ("good", key.token(&good_claims()), ["verified p-uid", "verified p-uid"]),
        ("not valid yet", key.token(&early), ["untimely", "untimely"]),
        ("expired", key.token(&late), ["untimely", "untimely"]),
        ("expired, of an unknown key", unknown.token(&late), ["untimely", "undecided"]),
        ("expired and forged", stranger.token(&late), ["Forged", "Forged"]),
        ("expired, of a foreign issuer", key.token(&foreign), ["untimely", "undecided"]),
    ];
    for trust in [Trust::Unknown, Trust::Unconfirmed] {
        for (what, token, expected) in &cases {
            let verdicts = [Auto, Required].map(|mode| {
                let (authenticator, _keys) = authenticator(mode, &[key.jwk()]);
                // Remembered or not, it is judged at each time anew.
                let confirmed = name(&authenticator.authenticate(token, now()));
                // A machine that was paused is behind, and nothing tells it so.
                assert_eq!(confirmed == "untimely", *what == "not valid yet", "{what}");
                let doubtful = name(&authenticator.authenticate(token, Now { trust, ..now() }));
                assert_eq!(name(&authenticator.authenticate(token, Now { trust, ..now() })), doubtful);
                assert_eq!(name(&authenticator.authenticate(token, now())), confirmed, "{what}");
                doubtful
            });
            assert_eq!(verdicts, *expected, "{what}, {trust:?}");
        }
    }
    let (off, _keys) = authenticator(Off, &[]);
    let unconfirmed = Now { trust: Trust::Unconfirmed, ..now() };
    assert_eq!(name(&off.authenticate(&key.token(&late), unconfirmed)), "untimely");
}

#[test]
fn an_untimely_token_of_a_verified_pod_finds_only_what_it_earns_itself() {
    let key = EcSigner::new("k");
    let (authenticator, _keys) = authenticator(Auto, &[key.jwk()]);
    let token = key.token(&claims_with("/nbf", json!(NOW + 90)));
    let verdict = authenticator.authenticate(&token, Now { trust: Trust::Unconfirmed, ..now() });
    assert!(matches!(verdict.caller(), Caller::Verified(_)), "the rest of it is proven");
    let Authentication::Identified(identity) = verdict else { panic!("it is refused") };
    assert!(identity.must_be_judged());
    assert_eq!(identity.principal(Route::EksAuth).key, CredentialKey::Unverified(token.digest()));
    // Once the time is confirmed and it is due, nothing of that is remembered.
    let verdict = authenticator.authenticate(&token, after(Duration::from_secs(90)));
    assert_eq!(name(&verdict), "verified p-uid");
}
