//! The one way in: ports of the machine's 127.0.0.1 that lead to servers of the cluster's network.
//!
//! Owns: that the machine's network needs no link, address or route for it: a socket stays in the namespace
//! it was made in, so listeners are made before the cluster's namespace is entered. Must not know: what is
//! said through it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::failure::{Failure, at};

/// A listener on the machine's loopback that leads nowhere yet.
pub(crate) struct Door(TcpListener);

impl Door {
    pub(crate) fn new() -> Result<Self, Failure> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(Self).map_err(at("no port on 127.0.0.1"))
    }

    pub(crate) fn port(&self) -> Result<u16, Failure> {
        Ok(self.0.local_addr().map_err(at("no port on 127.0.0.1"))?.port())
    }

    /// Leads to a server from now on.
    pub(crate) fn lead_to(self, server: SocketAddr) {
        thread::spawn(move || {
            for client in self.0.incoming().flatten() {
                thread::spawn(move || through(&client, server));
            }
        });
    }
}

/// One connection, until both sides have said all.
fn through(client: &TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ended = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let _ended = io::copy(&mut &server, &mut &*client);
    client.shutdown(Shutdown::Write)?;
    let _joined = up.join();
    Ok(())
}
