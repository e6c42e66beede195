//! The agent as its users see it: the real binary, real sockets, the sandbox as AWS, real SDKs as clients.
//!
//! Each test starts a sandbox and an agent of its own; nothing is shared but the machine.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod access_log;
#[cfg(test)]
mod adversary;
#[cfg(test)]
mod ageing;
#[cfg(test)]
mod audit_log;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod dead_log;
#[cfg(test)]
mod events;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod local_eks;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod names;
#[cfg(test)]
mod node;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod own_credentials;
#[cfg(test)]
mod own_rotation;
#[cfg(test)]
mod pod_probe;
#[cfg(test)]
mod privileges;
#[cfg(test)]
mod real_use;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod region;
#[cfg(test)]
mod role_files;
#[cfg(test)]
mod role_tokens;
#[cfg(test)]
mod secrecy;
#[cfg(test)]
mod self_probe;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod shortage;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod slow_paths;
#[cfg(test)]
mod startup;
#[cfg(test)]
mod status;
#[cfg(test)]
mod sts_answers;
#[cfg(test)]
mod switches;
#[cfg(test)]
mod trial;
#[cfg(test)]
mod verification;
#[cfg(test)]
mod web_identity;
#[cfg(test)]
mod wire;
