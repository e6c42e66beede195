//! What the agent costs, against what hyper costs.
//!
//! Every figure that is a time is a ratio of two measurements of one run: the agent, and a bare hyper server
//! that sends the same bytes, asked in turns by the same client. All figures go to
//! `target/bench/summary.json` by name; `bench judge` then compares them with what README.md says.

mod api_server;
mod authentication;
mod floor;
mod judge;
mod load;
mod memory;
mod node_pods;
mod process;
mod rounds;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sandbox::{Options, PodSpec, Sandbox, TokenSpec};
use serde_json::{Map, Value, json};

use crate::load::{Connections, Target};
use crate::process::{Agent, Floor};

/// Identities for the memory figure.
const IDENTITIES: usize = 10_000;
/// Where the figures go.
const SUMMARY: &str = "target/bench/summary.json";
/// What a busy pod asks a second, below the pace that pods have by default.
const STEADY_PER_SECOND: u32 = 600;
/// Ten seconds of it.
const STEADY_HITS: usize = 6_000;
/// Starts for the median of exec to ready.
const STARTS: usize = 21;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    match std::env::args().nth(1).as_deref() {
        Some("floor") => floor::serve(),
        Some("judge") => judged(),
        Some(other) => Err(format!("no such command: {other}").into()),
        None => measured(),
    }
}

fn measured() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let summary = runtime.block_on(measure())?;
    let path = Path::new(SUMMARY);
    path.parent().map(std::fs::create_dir_all).transpose()?;
    std::fs::write(path, serde_json::to_string_pretty(&summary)? + "\n")?;
    say(&format!("written to {SUMMARY}"))
}

/// Fails if a figure of the last run is not as README.md says.
fn judged() -> Outcome<()> {
    let summary: Map<String, Value> = serde_json::from_str(&std::fs::read_to_string(SUMMARY)?)?;
    let outside = judge::judge(&summary, &judge::read(&std::fs::read_to_string("README.md")?)?)?;
    if outside.is_empty() {
        return say("every figure is as README.md says");
    }
    outside.iter().try_for_each(|figure| say(figure))?;
    Err("figures are more than a tenth outside of what README.md says: mend the agent, or README.md".into())
}

async fn measure() -> Outcome<Map<String, Value>> {
    let mut summary = Map::new();
    let sandbox = Sandbox::start(Options::default())?;

    let ready = process::median_ready(&sandbox, STARTS).await?;
    record(&mut summary, "ready_ms", rounded(ready.as_secs_f64() * 1000.0))?;

    let agent = Agent::start(&sandbox).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    record(&mut summary, "rss_start_mib", rounded(agent.rss_mib()?))?;

    hits(&mut summary, &sandbox, &agent).await?;
    steady_hits(&mut summary, &sandbox).await?;

    let ratios = authentication::measure(&sandbox, &token(&sandbox, 0)?).await?;
    record(&mut summary, "first_verification_vs_rs256", rounded(ratios.first))?;
    record(&mut summary, "cached_authentication_vs_sha256", rounded(ratios.cached))?;

    // A fresh agent: what the load above left in its allocator is not what identities cost.
    drop(agent);
    let agent = Agent::start(&sandbox).await?;
    let tokens = (0..IDENTITIES).map(|n| token(&sandbox, n)).collect::<Outcome<Vec<_>>>()?;
    say(&format!("{IDENTITIES} tokens of {} bytes", tokens.first().map_or(0, String::len)))?;
    load::fetch_all(agent.address(), &tokens, 64).await?;
    let held = agent.identities().await?;
    if held != IDENTITIES {
        return Err(format!("the agent has {held} identities in hand: their memory says nothing").into());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    record(&mut summary, "rss_10k_identities_mib", rounded(agent.rss_mib()?))?;
    drop(agent);

    let node = memory::measure(&sandbox, &tokens).await?;
    record(&mut summary, "rss_250_pods_mib", rounded(node.all))?;
    record(&mut summary, "rss_250_pods_of_kubernetes_mib", rounded(node.of_kubernetes))?;
    Ok(summary)
}

/// What 100,000 hits at a steady rate cost the agent, with the pace that pods have by default, and the floor.
async fn steady_hits(summary: &mut Map<String, Value>, sandbox: &Sandbox) -> Outcome<()> {
    let agent = Agent::start_with_pace(sandbox).await?;
    let token = token(sandbox, 0)?;
    let floor = Floor::start(&load::response(agent.address(), &token).await?)?;
    for (name, connections) in [("new_connection", Connections::New), ("keep_alive", Connections::Kept)] {
        for (who, address, pid) in
            [("hit", agent.address(), agent.pid()), ("floor", floor.address(), floor.pid())]
        {
            let target = Target { address, token: token.clone() };
            let before = process::cpu_time(pid)?;
            load::steadily(&target, connections, STEADY_PER_SECOND, STEADY_HITS).await?;
            let cpu = process::cpu_time(pid)?.saturating_sub(before).as_secs_f64();
            let of_100k = cpu * 100_000.0 / f64::from(u32::try_from(STEADY_HITS)?);
            record(summary, &format!("{who}_steady_{name}_cpu_s_per_100k"), rounded(of_100k))?;
        }
    }
    Ok(())
}

/// Hits with a new connection each and with keep-alive, against the floor.
async fn hits(summary: &mut Map<String, Value>, sandbox: &Sandbox, agent: &Agent) -> Outcome<()> {
    let token = token(sandbox, 0)?;
    let response = load::response(agent.address(), &token).await?;
    let floor = Floor::start(&response)?;
    let ours = Target { address: agent.address(), token: token.clone() };
    let theirs = Target { address: floor.address(), token };
    for (name, connections) in [("new_connection", Connections::New), ("keep_alive", Connections::Kept)] {
        let result = rounds::compare((&ours, agent.pid()), (&theirs, floor.pid()), connections).await?;
        record(summary, &format!("hit_{name}_vs_floor"), rounded(result.ratio))?;
        record(summary, &format!("hit_{name}_vs_floor_spread"), rounded(result.spread))?;
        record(summary, &format!("hit_{name}_per_second"), json!(result.ours_per_second.round()))?;
        record(summary, &format!("hit_{name}_cpu_us"), rounded(result.ours_cpu_us))?;
        record(summary, &format!("floor_{name}_cpu_us"), rounded(result.floor_cpu_us))?;
    }
    Ok(())
}

fn token(sandbox: &Sandbox, n: usize) -> Outcome<String> {
    Ok(sandbox.token(&TokenSpec::new(PodSpec::new("default", "app", &format!("app-{n}"))))?)
}

fn rounded(figure: f64) -> Value {
    json!((figure * 1000.0).round() / 1000.0)
}

fn record(summary: &mut Map<String, Value>, name: &str, figure: Value) -> Outcome<()> {
    say(&format!("{name:<34} {figure}"))?;
    summary.insert(name.to_owned(), figure);
    Ok(())
}

fn say(line: &str) -> Outcome<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
