//! What the agent tells its operators: logs and metrics.
//!
//! Owns: names, formats and levels. Must not know: why something happens. No secret is ever handed to it.

mod cut;
pub mod error_chain;
mod json_lines;
mod log_queue;
pub mod logging;
pub mod metrics;
pub mod panic_text;
