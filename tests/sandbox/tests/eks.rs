//! EKS's API beside EKS Auth: who may call it, and when EKS Auth sees what it changed.

use std::time::Duration;

use sandbox::{AwsCredentials, Sandbox, Switches};
use serde_json::{Value, json};

use crate::client::{Answer, Request, assumed, credentials, node, sandbox};

const DELAY: Duration = Duration::from_mins(1);

fn call(
    sandbox: &Sandbox,
    by: &AwsCredentials,
    (method, path): (&'static str, &str),
    body: &Value,
) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let url = format!("{}{path}", sandbox.eks_url());
    Request::new(method, url, body).sign(by, "eks", 0).send().unwrap()
}

#[test]
fn eks_auth_sees_an_association_after_the_delay_that_was_set() {
    let sandbox = sandbox();
    let pod = sandbox.pod(sandbox::PodSpec::new("shop", "cart", "cart-0")).unwrap();
    let association_delay_ms = DELAY.as_millis().try_into().unwrap();
    sandbox.set_switches(Switches { association_delay_ms, ..Switches::default() });
    let body = json!({
        "namespace": "shop", "serviceAccount": "cart", "roleArn": "arn:aws:iam::111122223333:role/cart",
    });
    let create = ("POST", "/clusters/sandbox/pod-identity-associations");
    let made = call(&sandbox, sandbox.admin_credentials(), create, &body);
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(sandbox.associations().len(), 2, "EKS's API shows it at once");
    assert_eq!(assumed(&sandbox, &pod.token).unwrap().error().0, 404);
    sandbox.set_clock_ahead(60);
    let ahead = crate::client::assume(&sandbox, &pod.token).sign(&node(&sandbox), "eks-auth", 60);
    assert_eq!(ahead.send().unwrap().status, 200);
}

#[test]
fn only_the_administrator_calls_eks_and_a_node_may_look_at_its_cluster() {
    let sandbox = sandbox();
    let pod = sandbox.pod(sandbox::PodSpec::default()).unwrap();
    let pods = credentials(&assumed(&sandbox, &pod.token).unwrap());
    let status = |by: &AwsCredentials, path: &str| {
        let answer = call(&sandbox, by, ("GET", path), &Value::Null);
        let (status, code) = answer.error();
        (status, code.to_owned())
    };
    let good = (200, "none".to_owned());
    let denied = (403, "AccessDeniedException".to_owned());
    let admin = sandbox.admin_credentials();
    assert_eq!(status(admin, "/clusters/sandbox/addons"), good);
    assert_eq!(status(&node(&sandbox), "/clusters/sandbox"), good);
    assert_eq!(status(&node(&sandbox), "/clusters/sandbox/addons"), denied);
    assert_eq!(status(&pods, "/clusters/sandbox"), denied);
    let forged = AwsCredentials { secret_access_key: "x".to_owned(), ..admin.clone() };
    assert_eq!(status(&forged, "/clusters"), (403, "InvalidSignatureException".to_owned()));
    assert_eq!(status(admin, "/clusters/sandbox/nodegroups"), (404, "UnknownOperationException".to_owned()));
    sandbox.expire_node_credentials(Duration::from_hours(1));
    assert_eq!(status(admin, "/clusters"), good, "an administrator's key does not lapse");
}
