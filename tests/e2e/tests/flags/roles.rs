//! Flags of `server` about roles that the cluster gives, where their own tests do not show the effect.

use sandbox::{OidcProvider, Pod, PodSpec, Role, Sandbox, Service};
use serde_json::json;

use crate::harness::{Builder, sandbox};

const ROLE: &str = "arn:aws:iam::111122223333:role/app";
const DEFAULT: &str = "sts.amazonaws.com";
const OWN: &str = "https://mine.example";

fn pod(sandbox: &Sandbox, name: &str, audience: &str) -> Pod {
    sandbox.pod_for(PodSpec::new("default", "app", name), audience).expect("a pod")
}

/// An agent that gives `default/app` the role, which trusts tokens of this audience.
fn mapping(sandbox: &Sandbox, audience: &str) -> Builder {
    let role = Role::trusting(ROLE, "default/app", sandbox.issuer_url(), audience);
    sandbox.set_role(role).expect("a role");
    let provider = OidcProvider::new("111122223333", sandbox.issuer_url(), &[DEFAULT, OWN]);
    sandbox.set_oidc_provider(provider).expect("a provider");
    let map = sandbox.dir().join("role-map.json");
    std::fs::write(&map, json!({"default/app": {"RoleARN": ROLE}}).to_string()).expect("a file");
    Builder::verifying(sandbox).flag("--role-map", map.to_str().expect("UTF-8"))
}

#[tokio::test]
async fn tokens_of_the_audiences_that_the_flag_names_are_exchanged_and_no_others() {
    let sandbox = sandbox();
    for (flag, trusted, foreign) in [(None, DEFAULT, OWN), (Some(OWN), OWN, DEFAULT)] {
        let builder = mapping(&sandbox, trusted).flag("--sts-endpoint", sandbox.sts_url());
        let builder =
            flag.into_iter().fold(builder, |builder, name| builder.flag("--web-identity-audience", name));
        let agent = builder.start().await;
        let served = agent.ask(&pod(&sandbox, "app-0", trusted).token).await;
        assert_eq!(served.status, 200, "--web-identity-audience {flag:?}: {served:?}");
        let refused = agent.ask(&pod(&sandbox, "app-1", foreign).token).await;
        assert_eq!(refused.status, 400, "--web-identity-audience {flag:?}: {refused:?}");
    }
}

#[tokio::test]
async fn sts_is_asked_where_the_flag_says_before_the_variables() {
    let sandbox = sandbox();
    // Nobody listens there.
    let nowhere = "http://127.0.0.1:9";
    let variables = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"];
    let by_flag = mapping(&sandbox, DEFAULT).flag("--sts-endpoint", sandbox.sts_url());
    let by_flag = variables.iter().fold(by_flag, |builder, name| builder.env(name, nowhere)).start().await;
    assert_eq!(by_flag.ask(&pod(&sandbox, "app-0", DEFAULT).token).await.status, 200);
    let by_variable =
        mapping(&sandbox, DEFAULT).env(variables[0], sandbox.sts_url()).env(variables[1], nowhere);
    assert_eq!(by_variable.start().await.ask(&pod(&sandbox, "app-1", DEFAULT).token).await.status, 200);
    assert_eq!(sandbox.calls_of(Service::Sts).len(), 2);
    let wrong = mapping(&sandbox, DEFAULT).flag("--sts-endpoint", nowhere).start().await;
    assert_eq!(wrong.ask(&pod(&sandbox, "app-2", DEFAULT).token).await.status, 503);
    assert_eq!(sandbox.calls_of(Service::Sts).len(), 2, "nobody else is asked");
}
