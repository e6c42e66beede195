//! The same with tokens for STS: a role is given to the pod that a key of the cluster proves, and to nobody
//! else; what is not proven never reaches STS, which would be the only judge of a role that the agent chose.

use std::time::Duration;

use sandbox::{Pod, PodSpec, Role, Sandbox, TokenKey, TokenSpec};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::{Adversary, public_key_as_secret, tampered};
use crate::harness::{
    Agent, Answer, ApiServer, Builder, eks_auth_calls, eventually, read_next_answer, sandbox,
};
use crate::web_identity::{
    AUDIENCE, READER, WRITER, map_of, mapping, pod, session_of, sts_calls, trust_app, until_keys,
};

const INVALID: &str = "InvalidTokenException";
/// The watch tells at once.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// `default/app` reads, `default/writer` writes.
fn two_accounts(sandbox: &Sandbox) -> Builder {
    trust_app(sandbox);
    let writer = Role::trusting(WRITER, "default/writer", sandbox.issuer_url(), AUDIENCE);
    sandbox.set_role(writer).unwrap();
    let map = json!({"default/app": {"RoleARN": READER}, "default/writer": {"RoleARN": WRITER}});
    mapping(sandbox, &map)
}

async fn table(sandbox: &Sandbox, victim: &Pod) -> Vec<Adversary> {
    let good = TokenSpec::new(victim.spec.clone()).audiences(&[AUDIENCE]);
    let attacker = pod(sandbox, "attacker");
    let mut elsewhere = pod(sandbox, "elsewhere");
    elsewhere.node_name = "another-node".to_owned();
    let namesake = PodSpec::new("other", "app", "app-0");
    let unnamed = PodSpec::new("default", "nobody", "nobody-0");
    let of = |what, token, status, code, verdict| Adversary {
        what,
        token,
        status,
        code,
        verdict,
        upstream_calls: 0,
    };
    let as_victim = |what, spec: TokenSpec, status, code, verdict| {
        of(what, victim.token_as(&spec).unwrap(), status, code, verdict)
    };
    let refused = |what, spec, code| as_victim(what, spec, 400, code, "refused");
    // Nobody can judge it: STS would be asked for a role that a claim has chosen.
    let undecided = |what, spec| as_victim(what, spec, 503, "ServiceUnavailableException", "undecided");
    let both = ["pods.eks.amazonaws.com", AUDIENCE];
    let foreign = TokenSpec { issuer: Some("https://evil.example".to_owned()), ..good.clone() };
    vec![
        refused("forged", good.clone().key(TokenKey::Forged), INVALID),
        refused("expired", good.clone().expired(), "ExpiredTokenException"),
        refused("for both services", good.clone().audiences(&both), INVALID),
        refused("for nobody that is served", good.clone().audiences(&["vault"]), INVALID),
        refused("bound to no pod", good.clone().without_pod_claims(), INVALID),
        of("tampered uid", tampered(&attacker, victim), 400, INVALID, "refused"),
        of("HS256 with the public key", public_key_as_secret(sandbox, victim).await, 400, INVALID, "refused"),
        of("of another node", elsewhere.another_token().unwrap(), 403, "AccessDeniedException", "refused"),
        undecided("of a key nobody published", good.clone().key(TokenKey::Stray)),
        undecided("wrong issuer", foreign),
        // Proven, and given nothing.
        of(
            "of a namesake in another namespace",
            sandbox.pod_for(namesake, AUDIENCE).unwrap().token,
            403,
            "AccessDeniedException",
            "verified",
        ),
        of(
            "of an account without a role",
            sandbox.pod_for(unnamed, AUDIENCE).unwrap().token,
            403,
            "AccessDeniedException",
            "verified",
        ),
    ]
}

#[tokio::test]
async fn each_adversary_gets_what_the_table_says_and_sts_hears_of_none() {
    let sandbox = sandbox();
    let agent = two_accounts(&sandbox).start().await;
    let victim = pod(&sandbox, "victim");
    until_keys(&agent).await;
    let held = agent.ask(&victim.token).await.access_key_id();
    let mut wrong = Vec::new();
    for Adversary { what, token, status, code, verdict, .. } in table(&sandbox, &victim).await {
        let series = format!("pod_identity_agent_authentications_total{{outcome=\"{verdict}\"}}");
        let verdicts = agent.metric(&series).await;
        let answer = agent.ask(&token).await;
        if (answer.status, answer.reason.as_str()) != (status, code) {
            wrong.push(format!("{what}: {answer:?}"));
        }
        if agent.metric(&series).await - verdicts != 1 {
            wrong.push(format!("{what}: not {verdict}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((sts_calls(&sandbox).len(), eks_auth_calls(&sandbox).len()), (1, 0), "the victim's own");
    assert_eq!(agent.ask(&victim.token).await.access_key_id(), held, "the victim noticed nothing");
}

#[tokio::test]
async fn a_token_gives_the_role_and_the_set_of_its_own_pod_and_no_other() {
    let sandbox = sandbox();
    let agent = two_accounts(&sandbox).start().await;
    let victim = pod(&sandbox, "app-0");
    let writer = sandbox.pod_for(PodSpec::new("default", "writer", "app-0"), AUDIENCE).unwrap();
    let again = pod(&sandbox, "app-0");
    let mut keys = Vec::new();
    for (pod, role) in [(&victim, READER), (&writer, WRITER), (&again, READER)] {
        let key = agent.ask(&pod.token).await.access_key_id();
        assert_eq!(session_of(&sandbox, &key).role_arn, role);
        assert_eq!(sandbox.holder_of(&key), Some(pod.spec.clone()));
        assert!(!keys.contains(&key), "a pod made again under the same name is another pod");
        assert_eq!(
            agent.ask(&pod.another_token().unwrap()).await.access_key_id(),
            key,
            "by any of its tokens"
        );
        keys.push(key);
    }
    // The pod's token for EKS Auth leads to its association, whatever role the map has for it.
    let for_eks_auth = TokenSpec::new(victim.spec.clone()).audiences(&["pods.eks.amazonaws.com"]);
    let of_association = agent.ask(&victim.token_as(&for_eks_auth).unwrap()).await.access_key_id();
    assert!(!keys.contains(&of_association));
    assert_eq!((sts_calls(&sandbox).len(), eks_auth_calls(&sandbox).len()), (3, 1));
}

/// Two pods of one role, and an agent that knows them and its keys.
struct Watched {
    sandbox: Sandbox,
    victim: Pod,
    neighbour: Pod,
    api: ApiServer,
    agent: Agent,
}

impl Watched {
    async fn start() -> Self {
        let sandbox = sandbox();
        trust_app(&sandbox);
        let (victim, neighbour) = (pod(&sandbox, "app-0"), pod(&sandbox, "app-1"));
        let pods = [("default", "app-0", &*victim.uid), ("default", "app-1", &*neighbour.uid)];
        let api = ApiServer::start(sandbox.dir(), &pods).await;
        let agent = watching(&sandbox, &api).await;
        until_keys(&agent).await;
        Self { sandbox, victim, neighbour, api, agent }
    }
}

/// An agent that watches the pods of its node at this API server.
async fn watching(sandbox: &Sandbox, api: &ApiServer) -> Agent {
    let agent = mapping(sandbox, &map_of(READER))
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", &api.port.to_string())
        .flag("--kubernetes-credentials", api.folder.to_str().unwrap())
        .start()
        .await;
    eventually("the pods are known", async || {
        agent.metric(r#"pod_identity_agent_condition{condition="pods"}"#).await == 1
    })
    .await;
    agent
}

#[tokio::test]
async fn the_stolen_token_of_a_pod_gives_its_role_to_nobody_once_the_pod_is_deleted() {
    let Watched { sandbox, victim, neighbour, api, agent } = Watched::start().await;
    let (stolen, newer) = (victim.token.clone(), victim.another_token().unwrap());
    let keys = [agent.ask(&stolen).await.access_key_id(), agent.ask(&neighbour.token).await.access_key_id()];
    assert_eq!(agent.ask(&newer).await.access_key_id(), keys[0]);
    api.delete_pod("default", "app-0", &victim.uid);
    let deleted = Instant::now();
    while agent.ask(&stolen).await.status == 200 {
        assert!(deleted.elapsed() < REVOKED_WITHIN, "{:?}", deleted.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    for token in [stolen, newer] {
        let answer = agent.ask(&token).await;
        assert_eq!((answer.status, answer.reason.as_str()), (403, "AccessDeniedException"), "{answer:?}");
    }
    assert_eq!(agent.ask(&neighbour.token).await.access_key_id(), keys[1]);
    assert_eq!(sts_calls(&sandbox).len(), 2);
}

/// Asks on a connection that is kept.
async fn ask_on(connection: &mut TcpStream, token: &str) -> Answer {
    let request =
        format!("GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    read_next_answer(connection).await.unwrap()
}

/// It remembers its last token, and nothing that this has proven.
#[tokio::test]
async fn a_kept_connection_serves_each_token_its_own_and_none_of_a_deleted_pod() {
    let Watched { sandbox: _sandbox, victim, neighbour, api, agent } = Watched::start().await;
    let mut kept = TcpStream::connect(agent.address()).await.unwrap();
    let keys = [ask_on(&mut kept, &victim.token).await, ask_on(&mut kept, &neighbour.token).await];
    let keys = keys.map(|answer| answer.access_key_id());
    assert_ne!(keys[0], keys[1]);
    for _ in 0..2 {
        assert_eq!(ask_on(&mut kept, &victim.token).await.access_key_id(), keys[0]);
    }
    api.delete_pod("default", "app-0", &victim.uid);
    let deleted = Instant::now();
    while ask_on(&mut kept, &victim.token).await.status == 200 {
        assert!(deleted.elapsed() < REVOKED_WITHIN, "{:?}", deleted.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let answer = ask_on(&mut kept, &victim.token).await;
    assert_eq!((answer.status, answer.reason.as_str()), (403, "AccessDeniedException"), "{answer:?}");
    assert_eq!(ask_on(&mut kept, &neighbour.token).await.access_key_id(), keys[1]);
}
