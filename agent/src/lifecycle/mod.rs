//! The life of the process: when it is ready, how it ends, and which tasks run in between.
//!
//! Owns: readiness conditions, streaks of failures, limits, the phases of shutdown, named tasks, the
//! privileges of the process. Must not know: HTTP, AWS or Kubernetes; the parts that do report here, and read
//! here.

pub mod condition_name;
pub mod limits;
pub mod privileges;
pub mod readiness;
pub mod remedy;
pub mod shutdown;
pub mod streak;
pub mod tasks;
pub mod threads;
