//! `simulate [SEED|FROM-TO] [HOURS] [PODS] [BUG]`: tells one story, or one for each of these seeds. HOURS can
//! be the name of a short story instead.
//!
//! Owns: argv and exit code (0: no breach; 1: a breach; 64: wrong usage). Must not know: what a story is made
//! of. BUG is accepted only where the bugs are planted (`bugs/cargo.sh`): elsewhere the story would run
//! without it.

use std::io::Write;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use simulation::bug::Bug;
use simulation::kind::Kind;
use simulation::shrink::shrink;
use simulation::side_by_side;
use simulation::story::Story;

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let Some((seeds, story)) = story() else {
        let _ = write_usage(&mut out);
        return ExitCode::from(64);
    };
    let told = if seeds.start() == seeds.end() {
        tell(&story, &mut out)
    } else {
        tell_all(seeds.map(|seed| story.of_seed(seed)).collect(), &mut out)
    };
    match told {
        Ok(has_breach) => ExitCode::from(u8::from(has_breach)),
        Err(error) => {
            let _ = writeln!(out, "the story cannot be told: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_usage(out: &mut impl Write) -> std::io::Result<()> {
    let kinds: Vec<&str> = Kind::SHORT.into_iter().map(Kind::name).collect();
    write!(out, "usage: simulate [SEED|FROM-TO] [HOURS|{}] [PODS]", kinds.join("|"))?;
    if Bug::ARE_PLANTED {
        writeln!(out, " [BUG]\nbugs: {}", Bug::ALL.map(|bug| format!("{bug:?}")).join(" "))
    } else {
        writeln!(out, "\nThis build has no planted bugs. With one: make simulate BUG=NAME")
    }
}

/// Tells the story; if it ends in a breach, a shorter one with the same breach as well.
fn tell(story: &Story, out: &mut impl Write) -> std::io::Result<bool> {
    let outcome = story.run()?;
    write!(out, "{outcome}")?;
    let has_breach = outcome.found.is_some();
    if has_breach {
        writeln!(out, "looking for a shorter story ...")?;
        let (shorter, runs) = shrink(outcome)?;
        writeln!(out, "{shorter}  found in {runs} runs")?;
    }
    Ok(has_breach)
}

/// Tells all these stories, as many at a time as there are processors.
fn tell_all(stories: Vec<Story>, out: &mut impl Write) -> std::io::Result<bool> {
    let began = tokio::time::Instant::now();
    let (mut told, mut breaches, mut calls) = (0, 0, 0);
    side_by_side::run(stories, |outcome| {
        told += 1;
        calls += outcome.totals.2;
        breaches += u32::from(outcome.found.is_some());
        let _ = write!(out, "{outcome}");
    })?;
    let took = began.elapsed().as_secs();
    writeln!(out, "{told} stories in {took} s, {calls} calls to AWS, {breaches} breaches")?;
    Ok(breaches > 0)
}

/// The seeds and the story that argv names; three days of 60 pods if it names nothing.
fn story() -> Option<(RangeInclusive<u64>, Story)> {
    let mut arguments = std::env::args().skip(1);
    let seeds = arguments.next().map_or(Some(1..=1), |text| {
        let (from, to) = text.split_once('-').unwrap_or((&text, &text));
        Some(from.parse().ok()?..=to.parse().ok()?)
    })?;
    let seed = *seeds.start();
    let hours = arguments.next().unwrap_or_else(|| "72".to_owned());
    let pods = arguments.next().map_or(Some(60), |text| text.parse().ok())?;
    let story = match Kind::named(&hours) {
        Some(kind) => Story::short(kind, seed),
        None => Story::new(seed, hours.parse().ok()?, pods),
    };
    let bug = arguments.next();
    let story = match (bug, arguments.next()) {
        (None, _) => Some(story),
        (Some(name), None) if Bug::ARE_PLANTED => Bug::named(&name).map(|bug| story.with(bug)),
        (Some(_), _) => None,
    }?;
    Some((seeds, story))
}
