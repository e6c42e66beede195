//! docs/sdk-matrix.md: what was measured, and what each later run is compared with.
//!
//! Owns: the page's form. Must not know: how anything was measured.
//!
//! `MATRIX=write` writes the sections of the tests that run. Without it a test fails where a client fares
//! worse than the page says; times are for people, and are not compared.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;

/// How one client fared; the better comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Its pauses are by chance, and whether it is served is too.
    ByChance,
    /// It failed, and its user does not read why.
    NotTold,
    /// It failed, and its user reads why.
    Told,
    Served,
}

/// A row of the page.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) fate: Fate,
    pub(super) took: Duration,
    pub(super) requests: usize,
    pub(super) calls: usize,
    pub(super) reads: String,
}

/// More of what a user reads is left out: the rest is the SDK's own words about its chain.
const LONGEST_TEXT: usize = 180;
const HEAD: &str =
    "| Client | Result | After | Requests | Calls of AWS | Its user reads |\n|---|---|---|---|---|---|\n";
static PAGE: Mutex<()> = Mutex::new(());

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::ByChance => "served or not, by the chance of its pauses",
            Self::Served => "served",
            Self::Told => "fails, and says why",
            Self::NotTold => "fails",
        }
    }
}

impl Row {
    fn line(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let text =
            shortened(&self.reads.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" "));
        let Self { name, fate, requests, calls, .. } = self;
        format!("| {name} | {} | {seconds:.1} s | {requests} | {calls} | {text} |\n", fate.word())
    }
}

fn is_to_be_written() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a flag of the tests, not of the agent")]
    let does = std::env::var_os("MATRIX");
    does.is_some_and(|does| does == "write")
}

/// The end of a text, where the cause stands.
fn shortened(text: &str) -> String {
    let left_out = text.chars().count().saturating_sub(LONGEST_TEXT);
    let end: String = text.chars().skip(left_out).collect();
    if left_out > 0 { format!("… {end}") } else { end }
}

/// Compares with the section of this title, or writes it.
pub(super) fn judge(title: &str, rows: &[Row]) {
    let _one_at_a_time = PAGE.lock();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sdk-matrix.md");
    let page = std::fs::read_to_string(&file).expect("docs/sdk-matrix.md");
    let heading = format!("## {title}\n");
    let begin = page.find(&heading).unwrap_or_else(|| panic!("docs/sdk-matrix.md has no section {title:?}"));
    let begin = begin + heading.len();
    let end = page[begin..].find("\n## ").map_or(page.len(), |end| begin + end + 1);
    let section = &page[begin..end];
    if is_to_be_written() {
        let words = section.split("| Client").next().unwrap_or_default().trim();
        let words = if words.is_empty() { "\n".to_owned() } else { format!("\n{words}\n\n") };
        let mut new = words + HEAD;
        rows.iter().for_each(|row| new += &row.line());
        let after = &page[end..];
        let gap = if after.is_empty() { "" } else { "\n" };
        std::fs::write(&file, format!("{}{new}{gap}{after}", &page[..begin])).expect("a page");
        return;
    }
    let mut worse = String::new();
    for row in rows {
        let is_said = |fate: &Fate| section.contains(&format!("| {} | {} |", row.name, fate.word()));
        let said = [Fate::ByChance, Fate::NotTold, Fate::Told, Fate::Served].into_iter().find(is_said);
        let said = said.unwrap_or_else(|| panic!("{title}: the page does not have {}", row.name));
        if row.fate < said {
            let _infallible = write!(worse, "now: {}", row.line());
        }
    }
    assert!(worse.is_empty(), "{title}: worse than the page says\n{section}\n{worse}");
}
