//! One event as one JSON object on one line.
//!
//! Owns: the format of a line: `time`, `level`, `target`, `msg`, then the fields under their dotted names,
//! those of the enclosing spans first. Must not know: which events are logged; the filter in `logging`
//! decides. Nor how much of a field is written, which `cut` decides.
//!
//! The JSON format of tracing-subscriber nests the fields and names the message `fields.message`; log stores
//! index flat names.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::cut;
use super::logging::AUDIT;

/// What is said where lines were left out.
pub(super) const LINES_DROPPED: &str = "log lines were dropped: standard error was not read in time";
/// The same of the audit log, for those who read nothing else of the log.
const AUDIT_LINES_DROPPED: &str = "audit lines were dropped: standard error was not read in time";
/// Reserved names; a field with such a name gets the prefix `field.`.
const RESERVED: [&str; 4] = ["time", "level", "target", "msg"];

/// Writes each event as a line of JSON.
#[derive(Debug)]
pub(super) struct JsonLines<W> {
    writer: W,
}

impl<W> JsonLines<W> {
    /// Writes to the writers that `writer` makes.
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        // From the outermost span inwards, so that the innermost value of a name wins.
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_span.0.iter().for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let head = [
            ("time", Value::from(now())),
            ("level", Value::from(name_of(*metadata.level()))),
            ("target", Value::from(metadata.target())),
            ("msg", fields.take("message").unwrap_or_else(|| Value::from(""))),
        ];
        let Ok(mut line) = serde_json::to_vec(&Line { head, fields }) else { return };
        line.push(b'\n');
        // One write, so that lines of two threads do not mix. If standard error is closed, an error cannot be
        // reported.
        let _ = self.writer.make_writer_for(metadata).write_all(&line);
    }
}

/// The fields of a span or an event, in the order of their first values.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(given, _)| *given == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.remove(index).1)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), Value::from(cut::debug(field.name(), value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Value::from(cut::text(field.name(), value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Value::from(value));
    }
}

struct Line {
    head: [(&'static str, Value); 4],
    fields: Fields,
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = self.head.iter().map(|(name, value)| (Cow::Borrowed(*name), value));
        let fields = self.fields.0.iter().map(|(name, value)| {
            let name = if RESERVED.contains(name) {
                Cow::Owned(format!("field.{name}"))
            } else {
                Cow::Borrowed(*name)
            };
            (name, value)
        });
        serializer.collect_map(head.chain(fields))
    }
}

/// The line that stands where `lines` others were left out, because nobody read them.
pub(super) fn notice(lines: u64) -> Vec<u8> {
    warning(module_path!(), LINES_DROPPED, lines)
}

/// The same on the target of the audit log, where `lines` of that are missing.
pub(super) fn audit_notice(lines: u64) -> Vec<u8> {
    warning(AUDIT, AUDIT_LINES_DROPPED, lines)
}

fn warning(target: &str, message: &str, lines: u64) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.set("lines", Value::from(lines));
    let head = [
        ("time", Value::from(now())),
        ("level", Value::from(name_of(Level::WARN))),
        ("target", Value::from(target)),
        ("msg", Value::from(message)),
    ];
    let mut line = serde_json::to_vec(&Line { head, fields }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The time in UTC as RFC 3339, with microseconds.
pub(super) fn now() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

fn name_of(level: Level) -> &'static str {
    if level == Level::ERROR {
        "error"
    } else if level == Level::WARN {
        "warn"
    } else if level == Level::INFO {
        "info"
    } else if level == Level::DEBUG {
        "debug"
    } else {
        "trace"
    }
}
