//! What the agent costs, against what hyper costs.
//!
//! Every figure that is a time is a ratio of two measurements of one run: the agent, and a bare hyper server
//! that sends the same bytes, asked in turns by the same client. All figures go to
//! `target/bench/summary.json` by name; `bench judge` then compares them with what README.md says.
//! `bench of ADDRESS PID TOKEN_FILE` measures the hits of another agent that is running, in the same way.

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
use crate::process::{Agent, Floor, Server};

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => measured(),
        ["floor"] => floor::serve(),
        ["judge"] => judged(),
        ["of", address, pid, token_file] => of_another(address, pid, token_file),
        other => Err(format!("no such command: {}", other.join(" ")).into()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// What hits cost an agent that somebody else has started, to be seen and not kept.
fn of_another(address: &str, pid: &str, token_file: &str) -> Outcome<()> {
    let server = Server { address: address.parse()?, pid: pid.parse()? };
    let token = std::fs::read_to_string(token_file)?.trim().to_owned();
    runtime()?.block_on(async {
        let mut summary = Map::new();
        hits(&mut summary, server, &token).await?;
        steady_hits(&mut summary, server, &token).await
    })
}

fn measured() -> Outcome<()> {
    let summary = runtime()?.block_on(measure())?;
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

    let a_token = token(&sandbox, 0)?;
    hits(&mut summary, agent.server(), &a_token).await?;
    let paced = Agent::start_with_pace(&sandbox).await?;
    steady_hits(&mut summary, paced.server(), &a_token).await?;
    drop(paced);

    let ratios = authentication::measure(&sandbox, &a_token).await?;
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
    record(&mut summary, "rss_250_pods_without_kubernetes_mib", rounded(node.without_kubernetes))?;
    let of_kubernetes = node.all - node.without_kubernetes;
    record(&mut summary, "rss_250_pods_of_kubernetes_mib", rounded(of_kubernetes))?;
    Ok(summary)
}

/// What 100,000 hits at a steady rate cost an agent, and the floor.
async fn steady_hits(summary: &mut Map<String, Value>, agent: Server, token: &str) -> Outcome<()> {
    let floor = Floor::start(&load::response(agent.address, token).await?)?;
    for (name, connections) in [("new_connection", Connections::New), ("keep_alive", Connections::Kept)] {
        let mut of_each = Vec::new();
        for (who, server) in [("hit", agent), ("floor", floor.server())] {
            let target = Target { address: server.address, token: token.to_owned() };
            let before = process::cpu_time(server.pid)?;
            load::steadily(&target, connections, STEADY_PER_SECOND, STEADY_HITS).await?;
            let cpu = process::cpu_time(server.pid)?.saturating_sub(before).as_secs_f64();
            let of_100k = cpu * 100_000.0 / f64::from(u32::try_from(STEADY_HITS)?);
            record(summary, &format!("{who}_steady_{name}_cpu_s_per_100k"), rounded(of_100k))?;
            of_each.push(of_100k);
        }
        let ratio =
            of_each.iter().copied().reduce(|ours, floor| ours / floor).ok_or("nothing was measured")?;
        record(summary, &format!("hit_steady_{name}_cpu_vs_floor"), rounded(ratio))?;
    }
    Ok(())
}

/// Hits with a new connection each and with keep-alive, against the floor.
async fn hits(summary: &mut Map<String, Value>, agent: Server, token: &str) -> Outcome<()> {
    let floor = Floor::start(&load::response(agent.address, token).await?)?;
    let ours = Target { address: agent.address, token: token.to_owned() };
    let theirs = Target { address: floor.server().address, token: token.to_owned() };
    for (name, connections) in [("new_connection", Connections::New), ("keep_alive", Connections::Kept)] {
        let result = rounds::compare((&ours, agent.pid), (&theirs, floor.server().pid), connections).await?;
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
