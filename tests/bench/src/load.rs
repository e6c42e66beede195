//! The client: as little as can be, so that what is measured is the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Outcome;

/// How requests share connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Connections {
    /// Each has its own, as a CLI call or Ruby has.
    New,
    /// One after the other on the same.
    Kept,
}

/// Who is asked, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// Clients at once: enough to keep both cores busy, few enough not to measure the scheduler.
const CLIENTS: usize = 4;
/// The longest answer read, in bytes: the page of metrics has about 20 KiB.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Asks for `time`; returns how many answers came and how long it took.
pub(crate) async fn run(
    target: &Target,
    connections: Connections,
    time: Duration,
) -> Outcome<(usize, Duration)> {
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let target = target.clone();
        clients.spawn(async move { client(&target, connections, started + time).await });
    }
    let mut answers = 0;
    while let Some(client) = clients.join_next().await {
        answers += client??;
    }
    Ok((answers, started.elapsed()))
}

async fn client(target: &Target, connections: Connections, until: Instant) -> Outcome<usize> {
    let mut asking = Asking::new(target, connections);
    let mut answers = 0;
    while Instant::now() < until {
        asking.ask().await?;
        answers += 1;
    }
    Ok(answers)
}

/// Asks so often a second, one request after the other, until there were so many.
pub(crate) async fn steadily(
    target: &Target,
    connections: Connections,
    per_second: u32,
    count: usize,
) -> Outcome<()> {
    let mut asking = Asking::new(target, connections);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    for _ in 0..count {
        ticks.tick().await;
        asking.ask().await?;
    }
    Ok(())
}

/// One client.
struct Asking {
    address: SocketAddr,
    connections: Connections,
    request: String,
    buffer: Vec<u8>,
    kept: Option<TcpStream>,
}

impl Asking {
    fn new(target: &Target, connections: Connections) -> Self {
        let request = request(target, matches!(connections, Connections::New));
        Self { address: target.address, connections, request, buffer: vec![0; LONGEST_ANSWER], kept: None }
    }

    async fn ask(&mut self) -> Outcome<()> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        stream.write_all(self.request.as_bytes()).await?;
        read_answer(&mut stream, &mut self.buffer).await?;
        match self.connections {
            Connections::Kept => self.kept = Some(stream),
            // A reset at the end, for both servers alike: a minute of TIME_WAIT for each would use up the
            // ports.
            Connections::New => stream.set_zero_linger()?,
        }
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(target: &Target, close: bool) -> String {
    // What botocore sends.
    let connection = if close { "Connection: close\r\n" } else { "" };
    format!(
        "GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\nAccept: application/json\r\n\
         User-Agent: python-urllib3/2.8.0\r\nAuthorization: {}\r\n{connection}\r\n",
        target.token
    )
}

/// Reads one answer; returns head and body.
async fn read_answer<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> Outcome<(&'a str, &'a str)> {
    let mut filled = 0;
    let (head_end, length) = loop {
        let space = buffer.get_mut(filled..).filter(|space| !space.is_empty());
        let space = space.ok_or("an answer of more than 64 KiB")?;
        let read = stream.read(space).await?;
        if read == 0 {
            return Err("the connection was closed in the middle of an answer".into());
        }
        filled += read;
        let so_far = str::from_utf8(buffer.get(..filled).unwrap_or_default())?;
        let Some(head_end) = so_far.find("\r\n\r\n") else { continue };
        let length = content_length(so_far.get(..head_end).unwrap_or_default())?;
        if filled >= head_end + 4 + length {
            break (head_end, length);
        }
    };
    let text = str::from_utf8(buffer.get(..head_end + 4 + length).unwrap_or_default())?;
    let (head, body) = text.split_at(head_end);
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("not served: {text}").into());
    }
    Ok((head, body.trim_start()))
}

fn content_length(head: &str) -> Outcome<usize> {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    Ok(line.ok_or("an answer without Content-Length")?.parse()?)
}

/// The body at an http URL of this machine.
pub(crate) async fn get(url: &str) -> Outcome<String> {
    let rest = url.strip_prefix("http://").ok_or("not an http URL")?;
    let (authority, path) = rest.split_once('/').ok_or("a URL without a path")?;
    let mut stream = connect(authority.parse()?).await?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; LONGEST_ANSWER];
    let (_head, body) = read_answer(&mut stream, &mut buffer).await?;
    Ok(body.to_owned())
}

/// The agent's answer as the floor wants it: headers that hyper does not add by itself, an empty line, the
/// body.
pub(crate) async fn response(address: SocketAddr, token: &str) -> Outcome<String> {
    let target = Target { address, token: token.to_owned() };
    let mut stream = connect(address).await?;
    stream.write_all(request(&target, false).as_bytes()).await?;
    let mut buffer = vec![0; LONGEST_ANSWER];
    let (head, body) = read_answer(&mut stream, &mut buffer).await?;
    let added_by_hyper = ["date", "content-length"];
    let headers = head.lines().skip(1).filter(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !added_by_hyper.contains(&name.as_str())
    });
    Ok(format!("{}\n\n{body}", headers.collect::<Vec<_>>().join("\n")))
}

/// Fetches once with each token, so many at a time.
pub(crate) async fn fetch_all(address: SocketAddr, tokens: &[String], at_once: usize) -> Outcome<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let tokens: Arc<[String]> = tokens.into();
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let (next, tokens) = (Arc::clone(&next), Arc::clone(&tokens));
        clients.spawn(async move {
            let mut buffer = vec![0; LONGEST_ANSWER];
            while let Some(token) = tokens.get(next.fetch_add(1, Ordering::Relaxed)) {
                let target = Target { address, token: token.clone() };
                let mut stream = connect(address).await?;
                stream.write_all(request(&target, true).as_bytes()).await?;
                read_answer(&mut stream, &mut buffer).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}
