//! A TCP connection to whichever of a name's addresses answers first (Happy Eyeballs, RFC 8305).
//!
//! Owns: the order of the addresses, and the head start that each has. Must not know: where they come from.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// What an address has before the next is tried beside it. The least that RFC 8305 recommends: an attempt too
/// many is cheap, and a pod waits.
const HEAD_START: Duration = Duration::from_millis(100);
/// So many addresses at most; AWS's names have three to six.
const MOST_ADDRESSES: usize = 8;
/// So many are tried at the same time: each is a descriptor, and a race is run for each of the connections in
/// the making.
pub(super) const MOST_AT_ONCE: usize = 3;
/// What an address has while others still wait for their turn: a second SYN fits in.
const TURN: Duration = Duration::from_millis(1_500);

/// Connects.
pub(super) async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = race(addresses, connect).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An error names the address: a name has several, and only one of them may be wrong.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    TcpStream::connect(address).await.map_err(named)
}

/// The first of these connections that is made. The others are given up.
async fn race<T, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let addresses = alternating(addresses);
    // The last ones need not make way for anybody.
    let first_of_last = addresses.len().saturating_sub(MOST_AT_ONCE);
    let mut left = addresses.into_iter().enumerate();
    let connect = |(number, address): (usize, SocketAddr)| {
        let turn = (number < first_of_last).then_some(TURN);
        let connecting = connect(address);
        async move {
            match turn {
                None => connecting.await,
                Some(turn) => tokio::time::timeout(turn, connecting)
                    .await
                    .unwrap_or_else(|_elapsed| Err(silent(address))),
            }
        }
    };
    let mut under_way = FuturesUnordered::new();
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if under_way.is_empty() {
            match left.next() {
                Some(address) => under_way.push(connect(address)),
                None => return Err(error),
            }
        }
        tokio::select! {
            biased;
            Some(made) = under_way.next() => match made {
                Ok(connection) => return Ok(connection),
                Err(refused) => {
                    error = refused;
                    under_way.extend(left.next().map(&connect));
                }
            },
            () = tokio::time::sleep(HEAD_START), if left.len() > 0 && under_way.len() < MOST_AT_ONCE => {
                under_way.extend(left.next().map(&connect));
            }
        }
    }
}

fn silent(address: SocketAddr) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{address}: no answer in {} ms", TURN.as_millis()))
}

/// One address of each family in turn, the system's first choice first.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let family = |is_ipv4| addresses.iter().copied().filter(move |address| address.is_ipv4() == is_ipv4);
    let (mut first, mut second) = (family(is_first_ipv4), family(!is_first_ipv4));
    let mut all = Vec::with_capacity(addresses.len());
    loop {
        let before = all.len();
        all.extend(first.next());
        all.extend(second.next());
        if all.len() == before {
            all.truncate(MOST_ADDRESSES);
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::{HEAD_START, MOST_AT_ONCE, alternating, dial, race};

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_alternate_and_there_is_an_end() {
        let all = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"]);
        assert_eq!(alternating(&all), addresses(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]));
        let many: Vec<SocketAddr> = (1..100).map(|port| SocketAddr::from(([1, 0, 0, 1], port))).collect();
        assert_eq!(alternating(&many).len(), 8);
        assert!(alternating(&[]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_ipv6_address_costs_its_head_start_and_no_more() {
        let start = tokio::time::Instant::now();
        let connect = |address: SocketAddr| async move {
            // IPv6 is a black hole; IPv4 has a round trip of 120 ms.
            let takes =
                if address.is_ipv6() { Duration::from_secs(3600) } else { Duration::from_millis(120) };
            tokio::time::sleep(takes).await;
            Ok(address)
        };
        let made =
            race(&addresses(&["[2001:db8::1]:443", "[2001:db8::2]:443", "192.0.2.1:443"]), connect).await;
        assert!(made.unwrap().is_ipv4());
        assert_eq!(start.elapsed(), HEAD_START + Duration::from_millis(120));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_addresses_are_dead_few_are_tried_at_once_and_the_last_is_found() {
        let under_way = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let connect = |address: SocketAddr| {
            let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            let ended = Ended(&under_way);
            async move {
                let _ended = ended;
                match address.port() {
                    8 => Ok(address),
                    _ => std::future::pending().await,
                }
            }
        };
        let all: Vec<SocketAddr> = (1..=8).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        let start = tokio::time::Instant::now();
        assert_eq!(race(&all, connect).await.unwrap().port(), 8);
        assert_eq!(most.load(Ordering::Relaxed), MOST_AT_ONCE);
        // Within the time of a step (`connect`).
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    struct Ended<'a>(&'a AtomicUsize);

    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_has_the_next_tried_at_once() {
        let start = tokio::time::Instant::now();
        let connect = |address: SocketAddr| async move {
            if address.is_ipv6() { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) } else { Ok(()) }
        };
        assert!(race(&addresses(&["[::1]:1", "192.0.2.1:443"]), connect).await.is_ok());
        assert!(race(&addresses(&["[::1]:1", "[::2]:1"]), connect).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn over_real_sockets_a_listener_that_takes_nobody_does_not_hold_up_the_next() {
        // A queue of one that is full: the kernel drops every further SYN, as a dead address does.
        let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        dead.listen(0).unwrap();
        let dead_at = dead.local_addr().unwrap().as_socket().unwrap();
        let _full = std::net::TcpStream::connect(dead_at).unwrap();
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live_at = live.local_addr().unwrap();
        let start = tokio::time::Instant::now();
        let stream = dial(&[dead_at, live_at]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live_at);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}
