//! What `status` and `doctor` show of a running agent, and how.
//!
//! Owns: the snapshot (also the JSON that users read), the checks that follow from it, and both pages of
//! text. Must not know: where the numbers come from (`app`, `credentials`), or how they travel (`server`,
//! `command`). All of it is pure. No secret ever enters a snapshot: there is no field for one.

pub mod checks;
pub mod doctor_page;
pub mod snapshot;
pub mod status_page;
mod table;
#[cfg(test)]
pub(crate) mod testing;
