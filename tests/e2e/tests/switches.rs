//! What nobody outside AWS knows for certain goes both ways here (tests/sandbox/ASSUMPTIONS.md), and what AWS
//! says reaches those who have to act on it: with its request id, and never in a proxy's words.

use std::time::Duration;

use sandbox::{
    Effect, ErrorCodePlace, Fault, MissingAssociation, PodSpec, Sandbox, Service, Switches, TokenSpec,
};

use crate::harness::{Agent, Answer, Builder, eks_auth_calls, eventually, expiration, sandbox, side_by_side};

/// A token of a pod that is no longer young: what AWS refuses it is refused at once.
fn token(sandbox: &Sandbox, service_account: &str, pod: &str) -> String {
    let spec = TokenSpec::new(PodSpec::new("default", service_account, pod));
    sandbox.token(&TokenSpec { issued_in: -120, ..spec }).expect("a token")
}

async fn agent(sandbox: &Sandbox) -> Agent {
    Builder::new(sandbox).flag("--verbosity", "info").start().await
}

/// Every combination of what can go either way at the same time.
fn combinations() -> Vec<Switches> {
    let mut all = Vec::new();
    for error_code_place in [ErrorCodePlace::Header, ErrorCodePlace::BodyCode, ErrorCodePlace::BodyType] {
        for missing_association in [MissingAssociation::ResourceNotFound, MissingAssociation::AccessDenied] {
            for (fractional_expiration, workload_identity_provider) in [(false, false), (true, true)] {
                all.push(Switches {
                    error_code_place,
                    missing_association,
                    fractional_expiration,
                    workload_identity_provider,
                    ..Switches::default()
                });
            }
        }
    }
    all
}

#[tokio::test]
async fn whichever_way_aws_goes_pods_get_the_same_credentials_and_the_same_words() {
    let sandbox = sandbox();
    let agent = agent(&sandbox).await;
    for (index, switches) in combinations().into_iter().enumerate() {
        sandbox.set_switches(switches.clone());
        let what = format!("{switches:?}");
        let granted = agent.ask(&token(&sandbox, "app", &format!("app-{index}"))).await;
        assert_eq!(granted.status, 200, "{what}: {granted:?}");
        let members: Vec<_> = granted.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["AccessKeyId", "AccountId", "Expiration", "SecretAccessKey", "Token"], "{what}");
        assert!(!granted.body.contains("workload-identity-provider"), "{what}: {granted:?}");
        // Whole seconds, and never later than AWS says: a fraction is cut off.
        let text = granted.json()["Expiration"].as_str().unwrap().to_owned();
        assert_eq!(text.len(), "2026-11-22T18:00:00Z".len(), "{what}: {text}");
        let life = expiration(&granted).duration_since(sandbox.now()).expect("it is to come");
        assert!(life <= Duration::from_secs(6 * 3600), "{what}: {life:?}");

        let refused = agent.ask(&token(&sandbox, "stranger", &format!("stranger-{index}"))).await;
        let expected = match switches.missing_association {
            MissingAssociation::ResourceNotFound => (403, "ResourceNotFoundException"),
            MissingAssociation::AccessDenied => (400, "AccessDeniedException"),
        };
        assert_eq!((refused.status, refused.reason.as_str()), expected, "{what}: {refused:?}");
        assert!(refused.body.contains("No association found for service account stranger"), "{refused:?}");
    }
}

#[tokio::test]
async fn wherever_aws_writes_the_code_that_the_node_may_not_call_is_the_agents_fault_and_told_in_its_words() {
    for error_code_place in [ErrorCodePlace::Header, ErrorCodePlace::BodyCode, ErrorCodePlace::BodyType] {
        let sandbox = sandbox();
        let agent = agent(&sandbox).await;
        sandbox.set_switches(Switches { error_code_place, node_role_denied: true, ..Switches::default() });
        let answer = agent.ask(&token(&sandbox, "app", "app-0")).await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (503, "ServiceUnavailableException"),
            "{answer:?}"
        );
        for words in ["AccessDeniedException", "is not authorized to perform"] {
            assert!(answer.body.contains(words), "{error_code_place:?}: {answer:?}");
        }
        let told = "AWS rejects the agent's own credentials";
        eventually(told, async || agent.log().contains(told)).await;
        sandbox.set_switches(Switches { error_code_place, ..Switches::default() });
        assert_eq!(agent.ask(&token(&sandbox, "app", "app-1")).await.status, 200, "{error_code_place:?}");
    }
}

/// Who must see the request id of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// The pod that asked, and the log.
    PodAndLog,
    /// The log: the pod can do nothing but try again.
    Log,
}

/// Every error of the service model, and some of those that stand before every service of AWS.
const NOES: [(u16, &str, Sees); 11] = [
    (400, "AccessDeniedException", Sees::PodAndLog),
    (400, "ExpiredTokenException", Sees::PodAndLog),
    (400, "InvalidParameterException", Sees::PodAndLog),
    (400, "InvalidRequestException", Sees::PodAndLog),
    (400, "InvalidTokenException", Sees::PodAndLog),
    (404, "ResourceNotFoundException", Sees::PodAndLog),
    (403, "UnrecognizedClientException", Sees::PodAndLog),
    (403, "AccessDeniedException", Sees::PodAndLog),
    (429, "ThrottlingException", Sees::Log),
    (500, "InternalServerException", Sees::Log),
    (503, "ServiceUnavailableException", Sees::Log),
];

async fn says(status: u16, code: &'static str, sees: Sees) {
    let sandbox = sandbox();
    let agent = agent(&sandbox).await;
    let message = "the words of AWS".to_owned();
    let effect = Effect::Status { status, code: code.to_owned(), message };
    sandbox.faults().set([Fault::new(Service::EksAuth, effect)]);
    let answer = agent.ask(&token(&sandbox, "app", "app-0")).await;
    assert!(answer.status >= 400, "{answer:?}");
    let ids: Vec<_> = eks_auth_calls(&sandbox).into_iter().filter_map(|call| call.request_id).collect();
    assert!(!ids.is_empty(), "{code}: AWS gives ids");
    let named = |text: &str| ids.iter().any(|id| text.contains(id));
    let told = format!("{code} and its request id");
    eventually(&told, async || {
        let log = agent.log();
        let mut warnings = log.lines().filter(|line| line.contains(r#""level":"warn""#));
        warnings.any(|line| line.contains(code) && line.contains("the words of AWS") && named(line))
    })
    .await;
    if sees == Sees::PodAndLog {
        assert!(named(&answer.body) && answer.body.contains("the words of AWS"), "{answer:?}");
    }
}

#[test]
fn the_request_id_and_the_words_of_every_no_of_aws_are_in_the_log_and_a_refusals_are_the_pods_too() {
    side_by_side(NOES.len(), NOES, |(status, code, sees)| says(status, code, sees));
}

async fn proxy_says(status: u16) {
    let sandbox = sandbox();
    let agent = agent(&sandbox).await;
    sandbox.faults().set([Fault::new(Service::EksAuth, Effect::ProxyError { status })]);
    let answer: Answer = agent.ask(&token(&sandbox, "app", "app-0")).await;
    assert_eq!((answer.status, answer.reason.as_str()), (503, "ServiceUnavailableException"), "{status}");
    let told = "AWS gives no answer";
    eventually(told, async || agent.log().contains(told)).await;
    let log = agent.log();
    let line = log.lines().find(|line| line.contains(told)).expect("the line");
    let named = if status == 200 { "EKS Auth".to_owned() } else { format!("status {status}") };
    assert!(line.contains(&named) && line.contains(r#""level":"warn""#), "{status}: {line}");
    for text in [&log, &answer.body] {
        assert!(!text.contains("<html>") && !text.contains("<h1>"), "{status}: {text}");
    }
    assert!(!log.contains("rejects the agent's own credentials"), "{status}: it says nothing of them: {log}");
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200, "{status}");
    sandbox.faults().clear();
    assert_eq!(agent.ask(&token(&sandbox, "app", "app-1")).await.status, 200, "{status}: it is over");
}

#[test]
fn a_proxys_page_is_no_answer_of_aws_whatever_its_status() {
    let statuses = [200, 302, 400, 401, 403, 404, 407, 500, 502, 503, 504];
    side_by_side(statuses.len(), statuses, proxy_says);
}
