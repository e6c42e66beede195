//! Something between the agent and a service of the sandbox that changes what the service answers: what the
//! real one is not known to say, and what a broken one would.
//!
//! Owns: counting calls and changing their answers. Must not know: what is asked.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tamper {
    /// It passes as it is.
    Nothing,
    /// Another body, made of the right one.
    Body(fn(&str) -> String),
    /// One more line in its head.
    Header(&'static str),
    /// Its head, and then silence.
    HeadOnly,
    /// The connection is closed in its place.
    Close,
}

/// It stands before one service, until it is dropped.
pub(crate) struct Tampering {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    tamper: Arc<Mutex<Tamper>>,
    /// Ends with it.
    _tasks: JoinSet<()>,
}

impl Tampering {
    /// Before the service at this URL; everything passes at first.
    pub(crate) async fn before(url: &str) -> Self {
        let to: SocketAddr =
            url.rsplit('/').next().and_then(|to| to.parse().ok()).expect("http://ADDRESS:PORT");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (calls, tamper) = (Arc::default(), Arc::new(Mutex::new(Tamper::Nothing)));
        let (counted, current) = (Arc::clone(&calls), Arc::clone(&tamper));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (counted, current) = (Arc::clone(&counted), Arc::clone(&current));
                // An error is one side that has left.
                connections.spawn(async move { pass(client, to, &counted, &current).await.ok() });
            }
        });
        Self { address, calls, tamper, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What becomes of answers from now on.
    pub(crate) fn set(&self, tamper: Tamper) {
        *self.tamper.lock() = tamper;
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut client: TcpStream,
    to: SocketAddr,
    calls: &AtomicUsize,
    current: &Mutex<Tamper>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(to).await?;
    loop {
        let (head, body) = read_message(&mut client).await?;
        calls.fetch_add(1, Ordering::Relaxed);
        server.write_all(format!("{head}{body}").as_bytes()).await?;
        let (head, body) = read_message(&mut server).await?;
        // As it is now: a call that waits is met by what is set meanwhile.
        let tamper = *current.lock();
        let (head, body) = match tamper {
            Tamper::Nothing => (head, body),
            Tamper::Body(make) => {
                let made = make(&body);
                (with_length(&head, made.len()), made)
            }
            Tamper::Header(line) => (format!("{}\r\n{line}\r\n\r\n", head.trim_end()), body),
            Tamper::HeadOnly => (head, String::new()),
            Tamper::Close => return Ok(()),
        };
        client.write_all(format!("{head}{body}").as_bytes()).await?;
    }
}

/// A request or an answer: its head with the empty line, and its body.
async fn read_message(stream: &mut TcpStream) -> io::Result<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body).await?;
    Ok((head, String::from_utf8(body).expect("UTF-8")))
}

fn length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let length = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.map(|(_, value)| value.parse().expect("a number")).next().unwrap_or_default()
}

fn with_length(head: &str, length: usize) -> String {
    let others =
        head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
    let others: Vec<_> = others.collect();
    format!("{}\r\ncontent-length: {length}\r\n\r\n", others.join("\r\n"))
}
