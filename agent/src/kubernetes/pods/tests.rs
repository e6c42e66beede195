//! The watch against an API server that each test plays over a real connection.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::PodWatch;
use crate::clock::Clock;
use crate::config::ApiServer;
use crate::kubernetes::api::Api;
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Readiness;
use crate::lifecycle::tasks::spawn_detached;
use crate::pods::testing::caller;
use crate::pods::{PodName, PodStatus, Pods};
use crate::rng::Rng;

/// Of each watch; the shortest that `--watch-timeout` takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An API server that answers a GET of a pod by itself, and leaves lists and watches to the test.
struct Server {
    asked: mpsc::UnboundedReceiver<Asked>,
    stored: Stored,
    pods: Pods,
    readiness: Readiness,
}

/// What a GET of a path is answered with: status and body. Of all else Kubernetes says that it is not there.
type Stored = Arc<Mutex<HashMap<String, (&'static str, String)>>>;

/// A list or a watch that was asked for.
struct Asked {
    line: String,
    stream: TcpStream,
}

impl Server {
    /// With an agent of node-1 that begins to watch.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        let stored = Stored::default();
        let of_server = Arc::clone(&stored);
        spawn_detached("test-server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_detached("test-server", serve(stream, tell.clone(), Arc::clone(&of_server)));
            }
        });
        let (pods, questions) = Pods::new();
        let readiness = Readiness::new();
        let ca_file: PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/testdata/ca.pem").into();
        let token_file = std::env::temp_dir().join(format!("pod-identity-agent-pods-{}", std::process::id()));
        std::fs::write(&token_file, "own-token").unwrap();
        let api = Api::new(ApiServer { url, token_file, ca_file });
        let (clock, rng) = (Clock::system(), Rng::seeded(1));
        let watch = PodWatch::new(api, "node-1", TIMEOUT, pods.clone(), questions, clock, rng);
        spawn_detached("test-watch", watch.keep(readiness.advisory(ConditionName::Pods)));
        Self { asked, stored, pods, readiness }
    }

    async fn next(&mut self) -> Asked {
        tokio::time::timeout(Duration::from_secs(10), self.asked.recv())
            .await
            .expect("asked in time")
            .unwrap()
    }

    /// The first list, with these pods.
    async fn listing(&mut self, uids: &[&str]) -> Asked {
        let mut watch = self.next().await;
        assert!(
            watch.line.contains("sendInitialEvents=true") && watch.line.contains("resourceVersion= "),
            "{}",
            watch.line
        );
        watch.begin().await;
        for uid in uids {
            watch.event("ADDED", pod(uid)).await;
        }
        watch.end_of_list().await;
        watch
    }

    fn store(&self, uid: &str, object: &Value) {
        self.answers_get_of(uid, "200 OK", object.to_string());
    }

    fn answers_get_of(&self, uid: &str, status: &'static str, body: String) {
        self.stored.lock().insert(format!("/api/v1/namespaces/ns/pods/{uid}"), (status, body));
    }

    /// What `/readyz` says of the watch.
    fn says(&self) -> String {
        let report = self.readiness.report();
        let of_pods = report.into_iter().find(|report| report.name == ConditionName::Pods).unwrap();
        format!("{} {}", of_pods.met, of_pods.reason)
    }

    fn is_here(&self, uid: &str) -> bool {
        matches!(self.pods.status_of(uid), PodStatus::Here(_))
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

async fn serve(mut stream: TcpStream, tell: mpsc::UnboundedSender<Asked>, stored: Stored) {
    let mut head = vec![0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut head).await {
        let text = String::from_utf8_lossy(&head[..length]).into_owned();
        let line = text.lines().next().unwrap().to_owned();
        if line.starts_with("GET /api/v1/pods?") {
            let _test_is_over = tell.send(Asked { line, stream });
            return;
        }
        let path = line.split(' ').nth(1).unwrap();
        let answer = stored.lock().get(path).cloned();
        let (status, body) = answer.unwrap_or_else(|| {
            let name = path.rsplit('/').next().unwrap();
            ("404 Not Found", not_found("NotFound", "pods", name).to_string())
        });
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _client_is_gone = stream.write_all(answer.as_bytes()).await;
    }
}

impl Asked {
    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(mut self, status: &str, body: &Value) {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.write(&(head + &body)).await;
    }

    async fn begin(&mut self) {
        self.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
    }

    async fn event(&mut self, kind: &str, object: Value) {
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        self.write(&format!("{:x}\r\n{line}\r\n", line.len())).await;
    }

    async fn end_of_list(&mut self) {
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        let metadata = json!({"resourceVersion": "100", "annotations": annotations});
        self.event("BOOKMARK", json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata})).await;
    }

    async fn end(mut self) {
        self.write("0\r\n\r\n").await;
    }
}

fn pod_on(uid: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": uid, "namespace": "ns", "uid": uid, "resourceVersion": "7"},
        "spec": {"nodeName": node},
        "status": {"podIPs": [{"ip": "10.0.0.7"}]},
    })
}

fn pod(uid: &str) -> Value {
    pod_on(uid, "node-1")
}

fn failure(status: u16, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": status, "reason": "", "message": message})
}

/// As Kubernetes says it (apimachinery, api/errors NewNotFound).
fn not_found(reason: &str, kind: &str, name: &str) -> Value {
    let mut status = failure(404, &format!("{kind} \"{name}\" not found"));
    status["reason"] = reason.into();
    status["details"] = json!({"name": name, "kind": kind});
    status
}

#[tokio::test]
async fn a_list_then_each_change_is_reported_over_watches_that_end_and_go_on() {
    let mut server = Server::start().await;
    let mut watch = server.listing(&["a", "b"]).await;
    assert!(watch.line.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{}", watch.line);
    let seconds = watch.line.split("timeoutSeconds=").nth(1).unwrap().split(['&', ' ']).next().unwrap();
    assert!((8..=10).contains(&seconds.parse::<u64>().unwrap()), "{}", watch.line);
    server.until("both are here", |server| server.pods.lives("a") && server.pods.lives("b")).await;
    assert!(server.says().starts_with("true"), "{}", server.says());
    watch.event("ADDED", pod("c")).await;
    watch.event("DELETED", pod("a")).await;
    server.until("a is gone and c is here", |server| server.pods.is_gone("a") && server.is_here("c")).await;
    watch.end().await;
    let mut next = server.next().await;
    assert!(
        next.line.contains("resourceVersion=7 ") && !next.line.contains("sendInitialEvents"),
        "{}",
        next.line
    );
    next.begin().await;
    // What happened in between comes first.
    next.event("DELETED", pod("b")).await;
    server.until("b is gone", |server| server.pods.is_gone("b")).await;
    assert!(server.pods.lives("c") && server.says().starts_with("true"), "{}", server.says());
}

#[tokio::test]
async fn a_list_from_the_past_cuts_nobody_off_and_one_of_today_ends_who_is_gone() {
    let mut server = Server::start().await;
    let mut watch = server.listing(&["lives", "gone", "new-uid", "c", "d", "e"]).await;
    server.until("all are here", |server| server.pods.lives("e")).await;
    server.store("lives", &pod("lives"));
    let mut again = pod("new-uid");
    again["metadata"]["uid"] = "another".into();
    server.store("new-uid", &again);
    watch.event("ERROR", failure(410, "too old resource version")).await;
    let _watch = server.listing(&["c", "d", "e"]).await;
    server
        .until("those who are gone are gone", |server| {
            server.pods.is_gone("gone") && server.pods.is_gone("new-uid")
        })
        .await;
    assert!(server.pods.lives("lives"), "asked about, it lives");
}

#[tokio::test]
async fn a_list_that_lacks_most_is_not_believed_until_it_says_so_again() {
    let mut server = Server::start().await;
    let mut watch = server.listing(&["a", "b", "c"]).await;
    server.until("all are here", |server| server.pods.lives("c")).await;
    watch.event("ERROR", failure(410, "too old resource version")).await;
    let _watch = server.listing(&["a"]).await;
    server.until("it is doubted", |server| server.says().contains("lacks 2 of 3")).await;
    assert!(server.says().contains("lacks 2 of 3"), "{}", server.says());
    assert_eq!(server.pods.status_of("b"), PodStatus::Unknown);
    let _watch = server.listing(&["a"]).await;
    server.until("it is believed", |server| server.pods.lives("a")).await;
    assert!(!server.pods.is_gone("b"), "but that it is gone nobody has said");
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_asked_for_pages() {
    let mut server = Server::start().await;
    let refusal = failure(
        422,
        "sendInitialEvents: Forbidden: forbidden for watch unless the WatchList feature gate is enabled",
    );
    server.next().await.answer("422 Unprocessable Entity", &refusal).await;
    let page = server.next().await;
    assert!(page.line.contains("limit=1000") && !page.line.contains("watch=true"), "{}", page.line);
    let first = json!({"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [pod("a")]});
    page.answer("200 OK", &first).await;
    let page = server.next().await;
    assert!(page.line.contains("continue=more"), "{}", page.line);
    page.answer("200 OK", &json!({"metadata": {"resourceVersion": "5"}, "items": [pod("b")]})).await;
    let mut watch = server.next().await;
    assert!(watch.line.contains("resourceVersion=5 "), "{}", watch.line);
    watch.begin().await;
    server.until("both are here", |server| server.pods.lives("a") && server.pods.lives("b")).await;
}

#[tokio::test]
async fn without_the_right_nothing_is_known_and_the_condition_repeats_what_the_server_says() {
    let mut server = Server::start().await;
    let says =
        "pods is forbidden: User \"system:serviceaccount:kube-system:agent\" cannot watch resource \"pods\"";
    server.next().await.answer("403 Forbidden", &failure(403, says)).await;
    server.until("it says so", |server| server.says().contains(says)).await;
    assert_eq!(server.pods.status_of("a"), PodStatus::Unknown);
    let _watch = server.listing(&["a"]).await;
    server.until("the right was given", |server| server.pods.lives("a")).await;
}

#[tokio::test]
async fn a_pod_that_no_list_has_named_is_asked_about() {
    let mut server = Server::start().await;
    let _watch = server.listing(&["a"]).await;
    server.until("a is here", |server| server.pods.lives("a")).await;
    server.store("late", &pod("late"));
    server.store("away", &pod_on("away", "node-2"));
    for uid in ["late", "away", "deleted", "../../evil"] {
        server.pods.ask(&PodName { namespace: "ns".into(), name: uid.into(), uid: uid.into() });
    }
    server.until("all three are known", |server| server.pods.is_gone("deleted")).await;
    assert!(server.is_here("late"));
    assert_eq!(server.pods.status_of("away"), PodStatus::Elsewhere);
    assert_eq!(server.pods.status_of("../../evil"), PodStatus::NotSeen, "no path is made of that");
}

#[tokio::test]
async fn a_404_that_does_not_say_that_this_pod_is_not_there_ends_nobody() {
    let mut server = Server::start().await;
    let _watch = server.listing(&["a"]).await;
    server.until("a is here", |server| server.pods.lives("a")).await;
    let of_today = |uid: &str| PodName { namespace: "ns".into(), name: uid.into(), uid: uid.into() };
    let answers = [
        ("page", "404 page not found".to_owned()),
        ("empty", "{}".to_owned()),
        ("namespace", not_found("NotFound", "namespaces", "namespace").to_string()),
        ("other", not_found("NotFound", "pods", "another").to_string()),
        ("reason", not_found("", "pods", "reason").to_string()),
    ];
    for (uid, body) in &answers {
        server.answers_get_of(uid, "404 Not Found", body.clone());
        server.pods.ask(&of_today(uid));
    }
    // Asked about after all others.
    server.pods.ask(&of_today("deleted"));
    server.until("the last was asked about", |server| server.pods.is_gone("deleted")).await;
    for (uid, _) in answers {
        assert_eq!(server.pods.status_of(uid), PodStatus::NotSeen, "{uid}");
    }
}

/// A pod of the account "sa" with this variable.
fn pod_with(uid: &str, variable: &str) -> Value {
    let mut pod = pod(uid);
    pod["spec"]["serviceAccountName"] = "sa".into();
    pod["spec"]["containers"] = json!([{"name": "main", "env": [{"name": variable, "value": "secret"}]}]);
    pod
}

#[tokio::test]
async fn of_the_pods_of_an_account_with_an_association_those_without_variables_are_missed() {
    let mut server = Server::start().await;
    let mut watch = server.listing(&["of-another-account"]).await;
    for (uid, variable) in [
        ("injected", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ("with-keys", "AWS_ACCESS_KEY_ID"),
        ("missed", "LANG"),
    ] {
        watch.event("ADDED", pod_with(uid, variable)).await;
    }
    let clock = Clock::system();
    let now = clock.now().boot;
    server.until("all are here", |server| server.is_here("missed")).await;
    let (known, _fresh) = server.pods.count();
    assert_eq!(known, 4);
    server.pods.granted(&caller("sa"), now.plus(Duration::from_secs(3_600)));
    let next = || tokio::time::timeout(Duration::from_secs(10), server.pods.next_missed(&clock));
    assert_eq!(&*next().await.unwrap().name.uid, "missed");
    // One that came by a GET is judged in the same way.
    server.store("asked-about", &pod_with("asked-about", "LANG"));
    let name: Box<str> = "asked-about".into();
    server.pods.ask(&PodName { namespace: "ns".into(), name: name.clone(), uid: name });
    assert_eq!(&*next().await.unwrap().name.uid, "asked-about");
    let mut ended = pod_with("ended", "LANG");
    ended["status"]["phase"] = "Succeeded".into();
    watch.event("ADDED", ended).await;
    server.until("it is here", |server| server.is_here("ended")).await;
    let states = server.pods.states(now).unwrap();
    assert_eq!((states.silent, states.missed, states.other), (1, 2, 3));
}

#[tokio::test]
async fn without_the_right_to_get_a_pod_the_watch_goes_on_and_the_condition_says_so_until_it_is_given() {
    let mut server = Server::start().await;
    let mut watch = server.listing(&["a"]).await;
    server.until("a is here", |server| server.pods.lives("a")).await;
    server.answers_get_of("late", "403 Forbidden", failure(403, "cannot get pods").to_string());
    let late = PodName { namespace: "ns".into(), name: "late".into(), uid: "late".into() };
    server.pods.ask(&late);
    server.until("it says so", |server| server.says().contains("right to get pods")).await;
    watch.event("ADDED", pod("b")).await;
    server.until("b is here", |server| server.is_here("b")).await;
    watch.end().await;
    let mut watch = server.next().await;
    watch.begin().await;
    watch.event("ADDED", pod("c")).await;
    server.until("c is here", |server| server.is_here("c")).await;
    assert!(server.says().starts_with("false"), "still: {}", server.says());
    server.store("late", &pod("late"));
    server.pods.ask(&late);
    server.until("it was asked about again", |server| server.is_here("late")).await;
    server.until("the right was given", |server| server.says().starts_with("true")).await;
}

#[tokio::test]
async fn watches_that_end_at_once_are_begun_again_with_growing_pauses_and_tell_nothing() {
    let mut server = Server::start().await;
    server.listing(&["a"]).await.end().await;
    let began = Instant::now();
    let mut watches = 0;
    while began.elapsed() < Duration::from_secs(2) {
        if let Ok(Some(mut watch)) = tokio::time::timeout(Duration::from_secs(1), server.asked.recv()).await {
            watch.begin().await;
            watch.end().await;
            watches += 1;
        }
        server.until("it says so", |server| server.says().contains("ends each watch at once")).await;
        assert_eq!(server.pods.status_of("b"), PodStatus::Unknown, "nobody is taken for a stranger");
    }
    assert!((1..=4).contains(&watches), "{watches} in two seconds");
}
