//! A name server that answers every name alike, as it is told to.
//!
//! Owns: DNS over UDP, as far as a resolver needs it. Must not know: who asks. It listens where a resolver
//! looks by itself, so the test has a network of its own; and the agent is given its address by a
//! `resolv.conf` that only it sees.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What is said of a name, for one family of addresses.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These; none at all where there are none of this family.
    Addresses(Vec<IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL.
    Failure,
    /// Nothing, ever.
    Nothing,
}

/// What is said, and how late.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) ipv4: Says,
    pub(crate) ipv6: Says,
    pub(crate) late: Duration,
}

/// The server, until it is dropped.
pub(crate) struct Dns {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicUsize>,
    resolv_conf: PathBuf,
    /// Ends with it.
    _serving: JoinSet<()>,
}

impl Zone {
    /// Of these addresses, at once.
    pub(crate) fn of(addresses: &[IpAddr]) -> Self {
        let of_family = |is_ipv4| {
            let of_family = addresses.iter().copied().filter(|address| address.is_ipv4() == is_ipv4);
            Says::Addresses(of_family.collect())
        };
        Self { ipv4: of_family(true), ipv6: of_family(false), late: Duration::ZERO }
    }

    /// The same of every address.
    pub(crate) fn saying(says: Says) -> Self {
        Self { ipv4: says.clone(), ipv6: says, late: Duration::ZERO }
    }

    /// The same, so late.
    pub(crate) fn late(self, late: Duration) -> Self {
        Self { late, ..self }
    }
}

impl Dns {
    /// On port 53 of the loopback of the network that the test is in.
    pub(crate) async fn start(zone: Zone) -> Self {
        let at = (Ipv4Addr::LOCALHOST, 53);
        let socket = Arc::new(UdpSocket::bind(at).await.expect("a network of the test's own"));
        let (zone, asked) = (Arc::new(Mutex::new(zone)), Arc::new(AtomicUsize::new(0)));
        let (current, counted) = (Arc::clone(&zone), Arc::clone(&asked));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (mut answering, mut query) = (JoinSet::new(), [0; 512]);
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (zone, socket) = (current.lock().clone(), Arc::clone(&socket));
                let answer = answer(&query[..length], &zone);
                answering.spawn(async move {
                    sleep(zone.late).await;
                    if let Some(answer) = answer {
                        let _gone = socket.send_to(&answer, client).await;
                    }
                });
            }
        });
        let name = format!("pod-identity-e2e-{}-{:p}.resolv.conf", std::process::id(), Arc::as_ptr(&zone));
        let resolv_conf = std::env::temp_dir().join(name);
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").expect("a file");
        Self { zone, asked, resolv_conf, _serving: serving }
    }

    /// What is said from now on.
    pub(crate) fn set(&self, zone: Zone) {
        *self.zone.lock() = zone;
    }

    /// How many queries came so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// For whoever is to ask this one.
    pub(crate) fn resolv_conf(&self) -> &PathBuf {
        &self.resolv_conf
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _removed = std::fs::remove_file(&self.resolv_conf);
    }
}

/// The answer to a query of one question (RFC 1035); `None` is none.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    const A: [u8; 2] = [0, 1];
    const AAAA: [u8; 2] = [0, 28];
    let name_ends = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(12..name_ends + 5)?;
    let kind: [u8; 2] = question[question.len() - 4..question.len() - 2].try_into().ok()?;
    let says = if kind == A {
        &zone.ipv4
    } else if kind == AAAA {
        &zone.ipv6
    } else {
        &Says::Addresses(Vec::new())
    };
    let (code, addresses): (u8, &[IpAddr]) = match says {
        Says::Addresses(addresses) => (0, addresses),
        Says::Failure => (2, &[]),
        Says::NoSuchName => (3, &[]),
        Says::Nothing => return None,
    };
    let count = u8::try_from(addresses.len()).expect("few");
    let mut answer = query[..2].to_vec();
    // An answer, recursion wanted and available; one question, and what there is.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        // The question's name, class IN, and no time to keep it for.
        answer.extend([0xc0, 12]);
        answer.extend(kind);
        answer.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(octets.len()).expect("4 or 16")]);
        answer.extend(octets);
    }
    Some(answer)
}
