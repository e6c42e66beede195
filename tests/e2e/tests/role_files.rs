//! Readiness and the files of roles: an agent is ready once it had files that it can use, and stays so.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::harness::{Agent, eventually, sandbox};
use crate::web_identity::{READER, WRITER, file, map_of, mapping, pod, session_of, trust_app, write};

const USABLE: &str = r#"pod_identity_agent_condition{condition="role-files"}"#;
/// Files are looked at every 5 s.
const CHECK: Duration = Duration::from_secs(5);

async fn readyz(agent: &Agent) -> (u16, String) {
    let answer = agent.probe("/readyz").await.expect("an answer");
    (answer.status, answer.body)
}

#[tokio::test]
async fn an_agent_is_not_ready_until_its_role_map_is_good_and_a_bad_edit_takes_readiness_from_nobody() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let bad = json!({"*/app": {"RoleARN": READER}});
    let agent = mapping(&sandbox, &bad).spawn();
    eventually("it says why", async || {
        let answer = agent.probe("/readyz").await;
        answer.is_ok_and(|answer| answer.body.contains("a namespace must be named in full"))
    })
    .await;
    sleep(CHECK + Duration::from_secs(1)).await;
    let (status, body) = readyz(&agent).await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("role-files"), "{body}");
    assert_eq!(agent.metric(USABLE).await, 0);
    assert_eq!(
        agent.ask(&pod(&sandbox, "app-0").token).await.status,
        503,
        "nobody knows whom the map concerns"
    );
    let map = sandbox.dir().join("role-map.json");
    write(&map, &map_of(READER));
    let ready = timeout(2 * CHECK, agent.until_ready()).await;
    assert!(ready.is_ok(), "it is repaired, and the process is the same: {}", agent.log());
    assert_eq!(agent.metric(USABLE).await, 1);
    let served = agent.ask(&pod(&sandbox, "app-1").token).await;
    assert_eq!(session_of(&sandbox, &served.access_key_id()).role_arn, READER);
    // Another role, and a mistake beside it.
    write(&map, &json!({"default/app": {"RoleARN": WRITER}, "default/other": {"RoleArn": WRITER}}));
    eventually("the bad edit is told", async || agent.metric(USABLE).await == 0).await;
    let (status, body) = readyz(&agent).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("role-files") && body.contains("RoleArn"), "{body}");
    let served = agent.ask(&pod(&sandbox, "app-2").token).await;
    assert_eq!(
        session_of(&sandbox, &served.access_key_id()).role_arn,
        READER,
        "the last good map is in force"
    );
    let log = agent.log();
    for said in [
        "its last good content stays",
        r#"entry \"*/app\""#,
        r#"entry \"default/other\""#,
        "can be used again",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[tokio::test]
async fn without_its_limits_an_agent_is_not_ready_either() {
    let sandbox = sandbox();
    trust_app(&sandbox);
    let limits = sandbox.dir().join("limits.json");
    let agent =
        mapping(&sandbox, &map_of(READER)).flag("--role-limits", limits.to_str().expect("UTF-8")).spawn();
    eventually("it says why", async || {
        agent.probe("/readyz").await.is_ok_and(|answer| answer.body.contains("role limits"))
    })
    .await;
    assert_eq!(readyz(&agent).await.0, 503);
    file(&sandbox, "limits.json", &json!({"default": ["*"]}));
    let ready = timeout(2 * CHECK, agent.until_ready()).await;
    assert!(ready.is_ok(), "{}", agent.log());
    assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
}
