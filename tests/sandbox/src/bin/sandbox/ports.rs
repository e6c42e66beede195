//! Ports that are free at the moment.
//!
//! Owns: the asking. Must not know: who will take them. Between asking and taking, another process can be
//! quicker; who starts a server on such a port must be ready to try again.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// `N` different free ports of 127.0.0.1.
pub(crate) fn free<const N: usize>() -> io::Result<[u16; N]> {
    // All are held until all are known, so that none is given twice.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
