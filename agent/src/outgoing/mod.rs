//! Connections that the agent opens: to EKS Auth, to the metadata service, to the servers of token keys.
//!
//! Owns: name lookup, connecting, proxies, TLS, the pool, bounded answers. Must not know: what is sent, or
//! how long an answer may take; dropping a request's future is how it is given up.
//!
//! The way there is made once and kept. A connection in the making belongs to the pool, not to the request
//! that wanted it: a request that is given up leaves it behind, and the next one finds it. So a way that
//! takes longer than any single attempt (a slow proxy, an inspection of TLS, a distant region) still works.
//!
//! With `server`, which accepts, this is the only folder that names hyper; the two share no code.

mod ca_bundle;
mod carrier;
mod client;
mod connect;
mod dial;
mod error;
mod lookup;
mod pool;
pub(crate) mod proxy;
mod tls;

pub use self::carrier::Carrier;
pub use self::client::{Client, TakenWay};
pub use self::error::{ConnectError, SendError, SetUpError, Unconnected};
pub use self::pool::MOST_SOCKETS;
