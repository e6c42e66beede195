//! A plain HTTP client and a SigV4 signer of its own: just enough to play an agent.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use sandbox::{AwsCredentials, Sandbox};
use serde_json::Value;
use time::OffsetDateTime;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code, as EKS Auth gives them.
    pub(crate) fn error(&self) -> (u16, &str) {
        (self.status, self.header("x-amzn-errortype").unwrap_or("none"))
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// `http://host:port/path?query`
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn new(method: &'static str, url: impl Into<String>, body: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn target(&self) -> (&str, &str) {
        let rest = self.url.strip_prefix("http://").unwrap();
        let slash = rest.find('/').unwrap_or(rest.len());
        rest.split_at(slash)
    }

    pub(crate) fn send(&self) -> io::Result<Answer> {
        let (host, path) = self.target();
        let mut stream = TcpStream::connect(host)?;
        // None of these tests is about time, and they run beside others.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (method, length) = (self.method, self.body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{}",
            self.body
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let broken = || io::Error::other(format!("not an answer: {text:?}"));
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(broken)?;
        let headers =
            lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned()));
        Ok(Answer { status: status.parse().unwrap(), headers: headers.collect(), body: body.to_owned() })
    }

    /// Signs it, as if the clock were `skew` seconds ahead.
    pub(crate) fn sign(self, credentials: &AwsCredentials, service: &str, skew: i64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a signature is dated by the wall clock")]
        let now = OffsetDateTime::from(SystemTime::now()) + time::Duration::seconds(skew);
        let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
        let date = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
        let (host, target) = self.target();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let token = credentials.session_token.clone();
        let (line, name) = match &token {
            Some(token) => (format!("x-amz-security-token:{token}\n"), ";x-amz-security-token"),
            None => (String::new(), ""),
        };
        let canonical = format!(
            "{}\n{path}\n{query}\nhost:{host}\nx-amz-date:{date}\n{line}\nhost;x-amz-date{name}\n{}",
            self.method,
            hex(digest(&SHA256, self.body.as_bytes()).as_ref())
        );
        let scope = format!("{day}/us-west-2/{service}/aws4_request");
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex(digest(&SHA256, canonical.as_bytes()).as_ref())
        );
        let mut key = format!("AWS4{}", credentials.secret_access_key).into_bytes();
        for part in scope.split('/').chain([to_sign.as_str()]) {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-date{name}, Signature={}",
            credentials.access_key_id,
            hex(&key)
        );
        let signed = self.header("authorization", authorization).header("x-amz-date", date);
        match token {
            Some(token) => signed.header("x-amz-security-token", token),
            None => signed,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A sandbox with default options.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::start(sandbox::Options::default()).unwrap()
}

/// The node's credentials.
pub(crate) fn node(sandbox: &Sandbox) -> AwsCredentials {
    sandbox.node_credentials(Duration::from_hours(1))
}

/// The right call of EKS Auth for `token`, unsigned.
pub(crate) fn assume(sandbox: &Sandbox, token: &str) -> Request {
    let url = format!("{}/clusters/sandbox/assume-role-for-pod-identity", sandbox.eks_auth_url());
    Request::new("POST", url, format!(r#"{{"token":"{token}"}}"#))
}

/// The answer of EKS Auth to the node asking with `token`.
pub(crate) fn assumed(sandbox: &Sandbox, token: &str) -> io::Result<Answer> {
    assume(sandbox, token).sign(&node(sandbox), "eks-auth", 0).send()
}

/// The credentials in a good answer of EKS Auth.
pub(crate) fn credentials(answer: &Answer) -> AwsCredentials {
    let body = answer.json();
    let member = |name: &str| body["credentials"][name].as_str().unwrap().to_owned();
    AwsCredentials {
        access_key_id: member("accessKeyId"),
        secret_access_key: member("secretAccessKey"),
        session_token: Some(member("sessionToken")),
        expires_at: None,
    }
}

/// The call of AssumeRoleWithWebIdentity, unsigned as the real one.
pub(crate) fn assume_web_identity(sandbox: &Sandbox, token: &str, parameters: &[(&str, &str)]) -> Request {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", "AssumeRoleWithWebIdentity").append_pair("Version", "2011-06-15");
    form.append_pair("WebIdentityToken", token).extend_pairs(parameters);
    Request::new("POST", format!("{}/", sandbox.sts_url()), form.finish())
}

/// The first element of that name in an answer of STS, or `none`.
pub(crate) fn element(answer: &Answer, name: &str) -> String {
    let start = format!("<{name}>");
    let text = answer.body.split(&start).nth(1).and_then(|rest| rest.split('<').next());
    text.unwrap_or("none").to_owned()
}
