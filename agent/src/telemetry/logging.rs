//! The log: which targets are logged from which level on, and how panics are logged.
//!
//! Owns: the filter, the panic hook, and the queue of this process. Must not know: what is logged. The filter
//! is part of invariant 9: other crates log whole requests at debug and trace, so no setting lets them log
//! below info; warnings of the AWS SDK quote credentials files, so it logs nothing at all. The queue is part
//! of invariant 10: nothing ever waits for standard error.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::fs::File;
use std::io::{self, IsTerminal, stderr};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, registry};

use super::json_lines::{self, JsonLines};
use super::log_queue::{LogQueue, Notices};
use super::{cut, panic_text};
use crate::config::{Format, Level, Log};

/// The target of the audit log. Its lines are at info, no level leaves them out, and they are JSON in both
/// formats.
pub const AUDIT: &str = "audit";
/// Targets that name a purpose instead of a module.
const RESERVED_TARGETS: [&str; 2] = ["access", AUDIT];
/// The lowest level at which the audit log is logged, whatever the level of all else.
const AUDIT_LEVEL: LevelFilter = LevelFilter::INFO;
/// This crate: the first part of all other targets of its events.
const OWN_CRATE: &str = env!("CARGO_CRATE_NAME");
/// The lowest level at which other crates are logged.
const FOREIGN_LEVEL: LevelFilter = LevelFilter::INFO;
/// The crates of the AWS SDK, which are not logged at any level: they read credentials, and quote what they
/// cannot read. A line of a credentials file is a warning of theirs, an answer of AWS may be an error. What
/// matters of it reaches the agent as an error, which it logs in its own words.
const SILENT_CRATES: [&str; 1] = ["aws_"];

/// For what is still to be written when the process ends. If nobody reads, it ends without.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Everything that this process logs goes through one queue, as there is one standard error.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// It was set up before.
    #[error("logging is already set up")]
    AlreadySetUp,
    /// The thread that writes cannot be started.
    #[error("the log cannot be written")]
    NoWriter(#[from] io::Error),
}

/// Writes what is left when it is dropped, however the process ends by itself. It never waits for long.
#[derive(Debug)]
#[must_use = "dropped at once, it flushes an empty log"]
pub struct LastLines(());

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(queue) = QUEUE.get() {
            queue.flush(LAST_LINES);
        }
    }
}

/// Writes all events and panics of the process to standard error, from a thread that alone waits for it. Keep
/// what is returned until the end.
///
/// # Errors
/// [`LoggingError`], when called twice, or without another thread.
pub fn init(log: &Log) -> Result<LastLines, LoggingError> {
    let notice = match log.format {
        Format::Json => json_lines::notice,
        Format::Text => text_notice,
    };
    let queue = LogQueue::new(Notices { of_lines: notice, of_audit: json_lines::audit_notice });
    // A descriptor of its own: the lock of `std::io::stderr` would be held while a write waits.
    queue.start_writer(File::from(stderr().as_fd().try_clone_to_owned()?))?;
    let set = match log.format {
        Format::Json => tracing::subscriber::set_global_default(json(log.level, queue.clone())),
        Format::Text => {
            let lines = text(log.level, queue.clone(), stderr().is_terminal());
            tracing::subscriber::set_global_default(lines)
        }
    };
    set.map_err(|_| LoggingError::AlreadySetUp)?;
    QUEUE.set(queue).map_err(|_| LoggingError::AlreadySetUp)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(LastLines(()))
}

/// How many lines were left out because standard error was not read in time.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, LogQueue::dropped)
}

fn json<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    registry().with(filter(level)).with(JsonLines::new(writer))
}

fn text<W>(level: Level, writer: W, is_terminal: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let fields = debug_fn(|line, field, value| match field.name() {
        name @ "message" => write!(line, "{}", on_one_line(&cut::debug(name, value))),
        name => write!(line, "{name}={}", on_one_line(&cut::debug(name, value))),
    });
    let lines = tracing_subscriber::fmt::layer().fmt_fields(fields.delimited(" "));
    let lines = lines.with_writer(writer.clone()).with_ansi(is_terminal);
    let audit = JsonLines::new(writer).with_filter(filter_fn(|metadata| metadata.target() == AUDIT));
    let lines = lines.with_filter(filter_fn(|metadata| metadata.target() != AUDIT));
    registry().with(filter(level)).with(lines).with(audit)
}

/// With control characters, a text of another program could write to a terminal, or make up lines.
fn on_one_line(value: &str) -> String {
    value.replace(char::is_control, " ")
}

fn text_notice(lines: u64) -> Vec<u8> {
    format!("{}  WARN {} lines={lines}\n", json_lines::now(), json_lines::LINES_DROPPED).into_bytes()
}

fn filter(level: Level) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let own = threshold(level);
    // A stricter level applies to other crates too; a more verbose one does not.
    let foreign = own.min(FOREIGN_LEVEL);
    filter_fn(move |metadata| {
        // The module too: a target can be any text.
        let is_silent =
            [Some(metadata.target()), metadata.module_path()].into_iter().flatten().any(is_silent);
        let lowest = match metadata.target() {
            AUDIT => own.max(AUDIT_LEVEL),
            target if is_own(target) => own,
            _ => foreign,
        };
        !is_silent && *metadata.level() <= lowest
    })
    .with_max_level_hint(own.max(AUDIT_LEVEL))
}

fn threshold(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Whether a target belongs to this crate. A crate with a name that only begins with this crate's name does
/// not count.
fn is_own(target: &str) -> bool {
    let first = target.split("::").next().unwrap_or(target);
    first == OWN_CRATE || RESERVED_TARGETS.contains(&target)
}

fn is_silent(target: &str) -> bool {
    SILENT_CRATES.iter().any(|prefix| target.starts_with(prefix))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic_text::message(panic);
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        panic.message = message,
        panic.location = location,
        panic.thread = thread.name(),
        "a panic was caught"
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, LazyLock};

    use parking_lot::Mutex;
    use serde_json::Value;
    use tracing::subscriber::{DefaultGuard, set_default, with_default};
    use tracing::{Dispatch, debug, error, info, trace, warn};
    use tracing_subscriber::fmt::MakeWriter;

    use super::{Level, is_own, json, log_panic, text};

    /// Collects the text of each call of `write`.
    #[derive(Clone, Default)]
    struct Capture(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Capture {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Capture {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Capture {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().concat()).unwrap()
        }

        fn events(&self) -> Vec<Value> {
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }

        fn messages(&self) -> Vec<String> {
            self.events().iter().map(|event| event["msg"].as_str().unwrap().to_owned()).collect()
        }
    }

    /// There are always two subscribers. With one in the process, tracing asks the thread that first meets a
    /// line whether anybody wants it: where that is another test's thread, which has none, the line is lost
    /// to all until the next subscriber comes (tracing-core, `callsite::Rebuilder::JustOne`).
    static ANOTHER: LazyLock<Dispatch> =
        LazyLock::new(|| Dispatch::new(json(Level::Info, Capture::default())));

    /// What this thread logs until it is dropped: all tasks of a test's runtime, which has one thread.
    pub(crate) struct Logged {
        capture: Capture,
        _until_dropped: DefaultGuard,
    }

    impl Logged {
        pub(crate) fn from_now_on() -> Self {
            LazyLock::force(&ANOTHER);
            let capture = Capture::default();
            let _until_dropped = set_default(json(Level::Info, capture.clone()));
            Self { capture, _until_dropped }
        }

        pub(crate) fn text(&self) -> String {
            self.capture.text()
        }

        /// How many lines have this message.
        pub(crate) fn lines_of(&self, message: &str) -> usize {
            self.capture.messages().iter().filter(|logged| *logged == message).count()
        }
    }

    fn logged(level: Level, write: impl FnOnce()) -> Capture {
        LazyLock::force(&ANOTHER);
        let capture = Capture::default();
        with_default(json(level, capture.clone()), write);
        capture
    }

    fn one_of_each_level() {
        error!("own error");
        info!("own info");
        debug!("own debug");
        trace!("own trace");
        error!(target: "hyper::client", "foreign error");
        info!(target: "hyper::client", "foreign info");
        debug!(target: "hyper::client", "foreign debug");
        trace!(target: "hyper::client", "foreign trace");
    }

    #[test]
    fn other_crates_never_log_below_info() {
        let at_trace = logged(Level::Trace, one_of_each_level).messages();
        assert_eq!(
            at_trace,
            ["own error", "own info", "own debug", "own trace", "foreign error", "foreign info"]
        );
        let capture = Capture::default();
        with_default(text(Level::Trace, capture.clone(), false), one_of_each_level);
        let lines = capture.text();
        assert!(lines.contains("own trace") && lines.contains("foreign info"), "{lines}");
        assert!(!lines.contains("foreign debug") && !lines.contains("foreign trace"), "{lines}");
    }

    #[test]
    fn the_aws_sdk_logs_nothing_at_any_level() {
        let write = || {
            error!(target: "aws_smithy_runtime_api::client::interceptors::context", "planted");
            warn!(target: "aws_runtime::env_config::normalize", "key ignored because `planted`");
            info!(target: "aws_config::profile::credentials", "planted");
            let span = tracing::error_span!(target: "aws_sigv4", "sign", secret = "planted");
            span.in_scope(|| error!("own error"));
        };
        let capture = logged(Level::Trace, write);
        assert_eq!(capture.messages(), ["own error"]);
        assert!(!capture.text().contains("planted"), "{}", capture.text());
        let capture = Capture::default();
        with_default(text(Level::Trace, capture.clone(), false), write);
        assert!(!capture.text().contains("planted"), "{}", capture.text());
    }

    #[test]
    fn the_level_applies_to_this_crate_and_limits_the_others() {
        assert_eq!(
            logged(Level::Info, one_of_each_level).messages(),
            ["own error", "own info", "foreign error", "foreign info"]
        );
        assert_eq!(logged(Level::Error, one_of_each_level).messages(), ["own error", "foreign error"]);
    }

    #[test]
    fn reserved_targets_belong_to_this_crate_and_similar_names_do_not() {
        for own in ["access", "audit", "pod_identity_agent", "pod_identity_agent::server::pages::credentials"]
        {
            assert!(is_own(own), "{own}");
        }
        for foreign in ["accessory", "pod_identity_agent_helper", "hyper", "pod_identity", "", "access::x"] {
            assert!(!is_own(foreign), "{foreign}");
        }
    }

    #[test]
    fn audit_lines_are_json_in_both_formats_and_at_every_level() {
        let write = || {
            let _request = tracing::error_span!("request", field = "of a span").entered();
            info!(target: super::AUDIT, access_key_id = "ASIA1", "credentials issued");
            tracing::debug!(target: super::AUDIT, "below");
            info!("an ordinary line");
        };
        for level in [Level::Error, Level::Warn, Level::Info] {
            let json = logged(level, write);
            let capture = Capture::default();
            with_default(text(level, capture.clone(), false), write);
            for lines in [json.text(), capture.text()] {
                let of_audit: Vec<Value> = lines
                    .lines()
                    .filter(|line| line.contains("ASIA1"))
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                let [line] = of_audit.as_slice() else { panic!("{level:?}: {lines}") };
                assert_eq!((&line["target"], &line["access_key_id"]), (&"audit".into(), &"ASIA1".into()));
                assert_eq!(lines.contains("an ordinary line"), level == Level::Info, "{lines}");
                assert!(!lines.contains("below"), "{lines}");
            }
        }
    }

    #[test]
    fn a_line_is_one_json_object_in_one_write_whatever_it_contains() {
        let capture = logged(Level::Info, || {
            let nasty = "a\nb\r\"c\"\u{2028}\u{1b}[31m";
            let (count, ok, ratio) = (3_u64, true, 0.5);
            warn!(pod.uid = nasty, err = ?nasty, count, ok, ratio, "message\nof two lines");
        });
        assert_eq!(capture.0.lock().len(), 1, "with two writes, another thread's line could come between");
        let events = capture.events();
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(event["level"], "warn");
        assert_eq!(event["target"], "pod_identity_agent::telemetry::logging::tests");
        assert_eq!(event["msg"], "message\nof two lines");
        assert_eq!(event["pod.uid"], "a\nb\r\"c\"\u{2028}\u{1b}[31m");
        assert_eq!(event["count"], 3);
        assert_eq!(event["ok"], true);
        assert_eq!(event["ratio"], 0.5);
        let time = event["time"].as_str().unwrap();
        let format = &time::format_description::well_known::Rfc3339;
        assert!(time::OffsetDateTime::parse(time, format).is_ok() && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn fields_of_spans_are_in_the_line_and_those_of_the_event_win() {
        let capture = logged(Level::Info, || {
            let conn = tracing::info_span!("conn", peer.addr = "::1", attempt = 1);
            let _conn = conn.enter();
            let request = tracing::info_span!("request", pod.uid = tracing::field::Empty, attempt = 2);
            request.record("pod.uid", "u-1");
            let _request = request.enter();
            info!(attempt = 3, level = "from a field", "done");
            info!("again");
        });
        let events = capture.events();
        assert_eq!(events[0]["peer.addr"], "::1");
        assert_eq!(events[0]["pod.uid"], "u-1");
        assert_eq!(events[0]["attempt"], 3);
        assert_eq!(events[0]["level"], "info", "a field never replaces the level");
        assert_eq!(events[0]["field.level"], "from a field");
        assert_eq!(events[1]["attempt"], 2);
    }

    #[test]
    fn a_panic_is_an_error_event_with_its_location_and_of_its_message_only_what_the_source_code_has() {
        let token = String::from("eyJhbGciOi");
        let capture = logged(Level::Error, || {
            // The hook of the test runner is restored, so that panics of other tests are reported as usual.
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            for panicking in [
                std::panic::catch_unwind(|| panic!("out of luck,\nand more")),
                std::panic::catch_unwind(|| panic!("cannot parse {token}")),
                std::panic::catch_unwind(|| std::panic::panic_any(token.clone())),
            ] {
                assert!(panicking.is_err());
            }
            std::panic::set_hook(previous);
        });
        let events = capture.events();
        let messages: Vec<_> = events.iter().map(|event| &event["panic.message"]).collect();
        let not_shown = "(not shown: it may quote anything)";
        assert_eq!(messages, ["out of luck, and more", not_shown, not_shown]);
        for event in &events {
            assert_eq!(event["level"], "error");
            assert!(event["panic.location"].as_str().unwrap().contains("logging.rs:"), "{event}");
        }
        assert!(!capture.text().contains(&token), "{events:?}");
    }

    #[test]
    fn what_others_send_is_cut_in_both_formats_and_makes_up_no_line() {
        let write = || warn!(claimed.name = "x".repeat(5_000), other = %format!("a\nb{}", "y".repeat(5_000)));
        let event = &logged(Level::Info, write).events()[0];
        assert_eq!(event["claimed.name"].as_str().unwrap().chars().count(), 254);
        let capture = Capture::default();
        with_default(text(Level::Info, capture.clone(), false), write);
        let lines = capture.text();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.len() < 700 && lines.contains("other=a byyy"), "{lines}");
    }
}
