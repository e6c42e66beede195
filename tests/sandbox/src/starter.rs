//! Services on listeners.
//!
//! Owns: that each has one, its own task, and the faults and the log of calls that all share. Must not know:
//! what the services answer.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::calls::Calls;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::http::server::{Answer, Server};
use crate::sandbox::SandboxError;

/// Puts services on listeners.
pub(crate) struct Starter<'a> {
    pub(crate) runtime: &'a Runtime,
    clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    tasks: TaskTracker,
}

impl<'a> Starter<'a> {
    /// No services yet.
    pub(crate) fn new(runtime: &'a Runtime, clock: Clock) -> Self {
        Self { runtime, clock, faults: Faults::default(), calls: Calls::default(), tasks: TaskTracker::new() }
    }

    pub(crate) fn http(
        &mut self,
        service: Arc<dyn Answer>,
        listener: TcpListener,
    ) -> Result<String, SandboxError> {
        let address = self.start(service, listener, None)?;
        Ok(format!("http://{address}"))
    }

    pub(crate) fn start(
        &mut self,
        service: Arc<dyn Answer>,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
    ) -> Result<SocketAddr, SandboxError> {
        let address = listener.local_addr().map_err(SandboxError::Bind)?;
        listener.set_nonblocking(true).map_err(SandboxError::Bind)?;
        let _inside = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(SandboxError::Bind)?;
        let (clock, faults, calls) = (self.clock.clone(), self.faults.clone(), self.calls.clone());
        let server = Arc::new(Server { service, clock, faults, calls, tls });
        self.tasks.spawn(server.run(listener, self.tasks.clone()));
        Ok(address)
    }
}

/// A listener.
pub(crate) fn bind(at: SocketAddr) -> Result<TcpListener, SandboxError> {
    TcpListener::bind(at).map_err(SandboxError::Bind)
}

/// Its base URL.
pub(crate) fn url(listener: &TcpListener) -> Result<String, SandboxError> {
    let address = listener.local_addr().map_err(SandboxError::Bind)?;
    Ok(format!("http://{address}"))
}
