//! The life of the process: when it is ready, how it ends, and which tasks run in between.
//!
//! Owns: readiness conditions, the phases of shutdown, named tasks, what the process may do. Must not know: HTTP, AWS or Kubernetes; those
//! report here and ask here.

pub mod condition_name;
pub mod limits;
pub mod privileges;
pub mod readiness;
pub mod shutdown;
pub mod tasks;
