//! `server`: configuration, privileges, logging and runtime, then the application.
//!
//! Owns: their order at start, and the exit code. Must not know: the parts of the application.

use std::process::ExitCode;
use std::time::Duration;

use super::{USAGE, complain, wait_for};
use crate::cli::ServerArgs;
use crate::config::{Config, ConfigError, Environment};
use crate::lifecycle::privileges::{Needs, Privileges, may_change_network};
use crate::lifecycle::threads::start_runtime;
use crate::node::metadata_clients;
use crate::node::nft::NftError;
use crate::node::self_probe::Prober;
use crate::node::{guard, other_agents};
use crate::server::door::capacity::raise_descriptor_limit;
use crate::telemetry::error_chain::ErrorChain;
use crate::telemetry::logging;

/// After the application has ended, only a hanging name lookup in libc can still occupy a thread.
const BLOCKING_WORK_GRACE: Duration = Duration::from_millis(500);

pub(super) fn run(args: &ServerArgs) -> ExitCode {
    let config = match Config::from_args(args, &Environment::of_process()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let descriptors = raise_descriptor_limit();
    let leftover = put_out_of_force(&config);
    // Before the privileges are reduced: the helper process inherits them.
    let prober = config.node_network.probe_namespace.then(Prober::start);
    // Capabilities are per thread: a thread started before this call would keep all of them.
    let privileges = Privileges::reduce_to(&needs(&config));
    // Dropped at the very end: what the last thread has to say is written too.
    let _last_lines = match logging::init(&config.log) {
        Ok(last_lines) => last_lines,
        Err(error) => {
            complain(format_args!("pod-identity-agent: {}", ErrorChain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, config = %config.summary(), "effective configuration");
    privileges.log();
    match descriptors {
        Ok(descriptors) => tracing::debug!(descriptors, "limit of file descriptors"),
        Err(error) => tracing::warn!(err = %error, "cannot raise the limit of file descriptors"),
    }
    log_leftover(leftover);
    for notice in config.notices(args) {
        tracing::warn!(notice, "suspicious configuration");
    }
    let runtime = match start_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(err = %error, "the runtime cannot be started");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(serve(config, prober));
    runtime.shutdown_timeout(BLOCKING_WORK_GRACE);
    ended
}

/// Takes out of force what an earlier run with other flags has left, while this process has the privileges
/// for it: a leftover guard would send pods to a port without a listener, and nobody reads a leftover count.
/// Without the privileges nothing is tried: `nft` takes longer than the rest of the start.
fn put_out_of_force(config: &Config) -> Option<Result<bool, NftError>> {
    let node = &config.node_network;
    if node.keeps_a_table() || !may_change_network() {
        return None;
    }
    wait_for(async {
        let counts = async {
            let is_left = !node.counts_imds() && !other_agents::is_there_any();
            if is_left { metadata_clients::remove().await } else { Ok(false) }
        };
        let (counts, table) = tokio::join!(counts, guard::put_out_of_force());
        Ok(counts? | table?)
    })
    .ok()
}

fn log_leftover(removed: Option<Result<bool, NftError>>) {
    match removed {
        Some(Ok(true)) => tracing::info!("emptied the nftables tables of an earlier run"),
        Some(Err(error)) => {
            tracing::warn!(err = %error, "cannot empty an nftables table that an earlier run may have left")
        }
        Some(Ok(false)) | None => {}
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    complain(format_args!("pod-identity-agent: {error}:"));
    for problem in error.problems() {
        complain(format_args!("  {problem}"));
    }
    complain(format_args!("See pod-identity-agent server --help."));
    ExitCode::from(USAGE)
}

/// The privileges that the agent needs with this configuration.
fn needs(config: &Config) -> Needs {
    let node = &config.node_network;
    let guard = node.guard.into_iter().flat_map(|guard| guard.ports());
    Needs {
        ports: [config.listen.port, config.probe_port, config.metrics.port()]
            .into_iter()
            .chain(guard)
            .collect(),
        network: node.changes_the_node(),
        network_in_programs: node.runs_nft(),
    }
}

/// Runs the application until a signal stops it.
async fn serve(config: Config, prober: Option<std::io::Result<Prober>>) -> ExitCode {
    match crate::app::run(config, prober).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(err = %ErrorChain(&error), "the agent stopped with an error");
            ExitCode::FAILURE
        }
    }
}
