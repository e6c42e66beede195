//! A client that sends what it is told and shows every byte it gets: SDKs hide too much.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// No answer of the agent takes longer: a client that it does not know is held 4.5 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    from: Option<IpAddr>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// `GET /v1/credentials` with a token, as botocore sends it.
    pub(crate) fn credentials(token: &str) -> Self {
        Self::get("/v1/credentials").header("Authorization", token).header("Accept", "application/json")
    }

    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), from: None }
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Calls from another address: another peer.
    pub(crate) fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// Sends it on a connection of its own.
    pub(crate) async fn send(&self, to: SocketAddr) -> std::io::Result<Answer> {
        let mut stream = self.open(to).await?;
        read_answer(&mut stream).await
    }

    /// Sends it and leaves the answer to be read, or not.
    pub(crate) async fn open(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let mut stream = socket.connect(to).await?;
        stream.write_all(self.text(to).as_bytes()).await?;
        Ok(stream)
    }

    fn text(&self, to: SocketAddr) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text += &format!("Host: {to}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text + "Connection: close\r\n\r\n"
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The access key id of a success.
    pub(crate) fn access_key_id(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["AccessKeyId"].as_str().expect("a string").to_owned()
    }
}

/// Reads one answer to its end: the request said `Connection: close`.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 20 s"))??;
    parse(&bytes)
}

/// Reads one answer and no byte more, from a connection that stays.
pub(crate) async fn read_next_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let reading = async {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await?);
        }
        let head = parse(&bytes)?;
        let length = head.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Answer { body: String::from_utf8(body).expect("UTF-8"), ..head })
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 20 s"))?
}

fn parse(bytes: &[u8]) -> std::io::Result<Answer> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed without an answer"))?;
    let mut lines = head.lines();
    let mut status_line = lines.next().expect("a status line").splitn(3, ' ');
    assert_eq!(status_line.next(), Some("HTTP/1.1"));
    let status = status_line.next().expect("a status").parse().expect("a number");
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned()));
    Ok(Answer {
        status,
        reason: status_line.next().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: body.to_owned(),
    })
}
