//! Two servers in turns: whatever else the machine does meets both.

use std::time::Duration;

use crate::Outcome;
use crate::load::{self, Connections, Target};
use crate::process;

/// Rounds of each; odd, for a median.
const ROUNDS: usize = 11;
/// How long each server is asked in a round.
const ROUND: Duration = Duration::from_millis(700);

/// What came of it.
pub(crate) struct Comparison {
    /// Requests per second of ours over theirs: the median over the rounds.
    pub(crate) ratio: f64,
    /// Half the distance between the quartiles of that ratio.
    pub(crate) spread: f64,
    /// Requests per second of ours, in the median round. Tells nothing but of this machine.
    pub(crate) ours_per_second: f64,
    /// CPU time of our process for one request, in microseconds.
    pub(crate) ours_cpu_us: f64,
    /// The same of the floor.
    pub(crate) floor_cpu_us: f64,
}

struct Round {
    ratio: f64,
    ours_per_second: f64,
    ours_cpu_us: f64,
    floor_cpu_us: f64,
}

/// Compares two servers, given with their pids.
pub(crate) async fn compare(
    ours: (&Target, u32),
    floor: (&Target, u32),
    connections: Connections,
) -> Outcome<Comparison> {
    // One round to warm up, not counted.
    round(ours, floor, connections, false).await?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for n in 0..ROUNDS {
        // Who is asked first changes each time.
        rounds.push(round(ours, floor, connections, n % 2 == 0).await?);
    }
    let quantile = |of: fn(&Round) -> f64, quarter: usize| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get((ROUNDS - 1) * quarter / 4).copied().unwrap_or(f64::NAN)
    };
    Ok(Comparison {
        ratio: quantile(|round| round.ratio, 2),
        spread: (quantile(|round| round.ratio, 3) - quantile(|round| round.ratio, 1)) / 2.0,
        ours_per_second: quantile(|round| round.ours_per_second, 2),
        ours_cpu_us: quantile(|round| round.ours_cpu_us, 2),
        floor_cpu_us: quantile(|round| round.floor_cpu_us, 2),
    })
}

async fn round(
    ours: (&Target, u32),
    floor: (&Target, u32),
    connections: Connections,
    ours_first: bool,
) -> Outcome<Round> {
    let (ours, floor) = if ours_first {
        let ours = ask(ours, connections).await?;
        (ours, ask(floor, connections).await?)
    } else {
        let floor = ask(floor, connections).await?;
        (ask(ours, connections).await?, floor)
    };
    Ok(Round {
        ratio: ours.per_second / floor.per_second,
        ours_per_second: ours.per_second,
        ours_cpu_us: ours.cpu_us,
        floor_cpu_us: floor.cpu_us,
    })
}

struct Asked {
    per_second: f64,
    cpu_us: f64,
}

#[expect(clippy::cast_precision_loss, reason = "some thousands of requests")]
async fn ask((target, pid): (&Target, u32), connections: Connections) -> Outcome<Asked> {
    let before = process::cpu_time(pid)?;
    let (answers, took) = load::run(target, connections, ROUND).await?;
    let cpu = process::cpu_time(pid)?.saturating_sub(before);
    let answers = answers as f64;
    Ok(Asked { per_second: answers / took.as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 / answers })
}
