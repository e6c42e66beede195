//! Programs that use what they get: S3 by moto, which checks signatures, sessions and permissions.

use std::time::Duration;

use sandbox::{Association, Options, Sandbox};
use tokio::process::Command;
use tokio::time::sleep;

use crate::clients::{python, run};
use crate::harness::{Agent, eks_auth_calls, pod, rotate_token};
use crate::local_eks::up::{TRUST, administer, moto};

const BUCKET: &str = "wares";
const ROLE: &str = "reader";
const ON_BUCKET: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*",
    "Resource":["arn:aws:s3:::wares","arn:aws:s3:::wares/*"]}]}"#;

/// An account with a bucket, a role that may use it, and the role given to every pod of `default/app`.
fn account(options: Options) -> Sandbox {
    let sandbox = Sandbox::start(Options { moto: Some(moto()), ..options }).expect("the sandbox starts");
    let trust = ["--role-name", ROLE, "--assume-role-policy-document", TRUST];
    administer(&sandbox, &[&["iam", "create-role"], &trust[..]].concat()).unwrap();
    let policy = ["--role-name", ROLE, "--policy-name", "wares", "--policy-document", ON_BUCKET];
    administer(&sandbox, &[&["iam", "put-role-policy"], &policy[..]].concat()).unwrap();
    administer(&sandbox, &["s3", "mb", &format!("s3://{BUCKET}")]).unwrap();
    let role_arn = format!("arn:aws:iam::111122223333:role/{ROLE}");
    let given =
        sandbox.associations().into_iter().map(|given| Association { role_arn: role_arn.clone(), ..given });
    sandbox.set_associations(given.collect()).expect("EKS would take it");
    sandbox
}

#[tokio::test]
async fn twenty_mib_go_to_s3_and_back_while_the_token_is_rotated_and_the_credentials_are_renewed() {
    let options = Options {
        credential_lifetime: Duration::from_secs(40),
        token_lifetime: Duration::from_secs(12),
        ..Options::default()
    };
    let sandbox = account(options);
    let agent = Agent::start(&sandbox).await;
    let app = pod(&sandbox, "app-0");
    let mut copy = Command::new(python("python"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/python/s3_copy.py");
    copy.args([script, BUCKET, "8"]);
    let url = sandbox.gateway_url().expect("it has moto").to_owned();
    let rotating = async {
        sleep(Duration::from_secs(6)).await;
        rotate_token(&app);
    };
    let (output, ()) = tokio::join!(run(with_s3(copy, &url), &sandbox, &agent, &app), rotating);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    let said: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["same"], true, "{out}");
    let keys = said["keys"].as_array().expect("a list");
    assert!(keys.len() >= 2, "renewed in the middle: {out}");
    for key in keys {
        assert!(sandbox.holder_of(key.as_str().expect("text")).is_some_and(|pod| pod == app.spec), "{key}");
    }
    let calls = eks_auth_calls(&sandbox);
    assert!(calls.iter().all(|call| call.status == Some(200)) && calls.len() <= 4, "{calls:?}");
}

/// `run` clears the environment: what it does not know comes by `env`.
fn with_s3(copy: Command, url: &str) -> Command {
    let copy = copy.into_std();
    let mut command = Command::new("/usr/bin/env");
    command.arg(format!("AWS_ENDPOINT_URL_S3={url}")).arg(copy.get_program()).args(copy.get_args());
    command
}
