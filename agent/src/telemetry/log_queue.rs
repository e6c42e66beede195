//! The queue of log lines, and the one thread that writes them to standard error.
//!
//! Owns: how much waits, what is left out when nobody reads, and the flush at the end. Must not know: what a
//! line says. A pipe that nobody reads makes a write wait for ever. With a write in each task, as many lines
//! as there are worker threads stopped the whole agent, `/healthz` included.
//!
//! `tracing-appender` has such a writer. It counts lines and not bytes, says nowhere in the log that lines
//! are missing, and prints to standard output when its queue is full at the end, which may wait for ever.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::logging::AUDIT;

/// What waits at most, in bytes: the lines of a node on which all pods start at once while standard error is
/// stuck for a second, and a small part of the smallest memory limit (64 MiB).
const ROOM: usize = 1024 * 1024;
/// What lines below `warn` leave free for those above and for the audit log: a flood of requests must not
/// hide why it came, or who got credentials meanwhile.
const RESERVE: usize = ROOM / 4;
/// What a line costs beside its text: its place in the queue, and its allocation.
const OVERHEAD: usize = 64;
/// The longest line. Fields are cut before; this is for a line of very many.
const LONGEST_LINE: usize = 32 * 1024;
/// Before the next try where standard error is set to not block and is full.
const WRITE_AGAIN: Duration = Duration::from_millis(20);

/// The queue. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    notices: Notices,
}

/// What makes the lines about so many that were left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notices {
    /// About lines of any kind.
    pub(super) of_lines: fn(u64) -> Vec<u8>,
    /// About those of them that were the audit log's.
    pub(super) of_audit: fn(u64) -> Vec<u8>,
}

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Below `warn`.
    Ordinary,
    /// At `warn` or above.
    Urgent,
    /// Of the audit log.
    Audit,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
    /// Lines are left out until half of the room is free again: gaps are few, each with one notice.
    is_full: bool,
    dropped: u64,
    /// Those that no notice has mentioned yet.
    unmentioned: u64,
    /// Those of them that are the audit log's.
    unmentioned_audit: u64,
}

impl LogQueue {
    /// An empty queue without a writer. `notices` make the lines that stand where lines were left out.
    pub(super) fn new(notices: Notices) -> Self {
        let (state, filled, emptied) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { state, filled, emptied, notices }) }
    }

    /// Starts the one thread that writes. It lasts as long as the process.
    pub(super) fn start_writer(&self, mut output: impl Write + Send + 'static) -> io::Result<()> {
        let queue = self.clone();
        let write_lines = move || queue.write_to(&mut output);
        thread::Builder::new().name("log".to_owned()).spawn(write_lines).map(|_runs_for_ever| ())
    }

    /// How many lines were left out since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.state.lock().dropped
    }

    /// Waits until everything is written, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let mut state = self.shared.state.lock();
        let is_busy = |state: &mut State| state.is_writing || state.has_something();
        let _in_time = self.shared.emptied.wait_while_for(&mut state, is_busy, patience);
    }

    fn write_to(&self, output: &mut impl Write) {
        loop {
            if write(output, &self.next()).is_err() {
                self.lost();
            }
        }
    }

    /// Never waits for standard error.
    fn push(&self, mut line: Vec<u8>, kind: Kind) {
        if line.len() > LONGEST_LINE {
            line.truncate(LONGEST_LINE);
            line.push(b'\n');
        }
        let mut state = self.shared.state.lock();
        if state.is_full && state.bytes <= ROOM / 2 {
            state.is_full = false;
            state.mention(self.shared.notices);
        }
        let is_urgent = kind != Kind::Ordinary;
        let room = if is_urgent { ROOM } else { ROOM - RESERVE };
        let has_room = state.bytes + line.len() + OVERHEAD <= room;
        if !has_room || (state.is_full && !is_urgent) {
            state.is_full = true;
            state.dropped += 1;
            state.unmentioned += 1;
            state.unmentioned_audit += u64::from(kind == Kind::Audit);
            return;
        }
        state.add(line);
        self.shared.filled.notify_one();
    }

    /// The next line to write; waits for one.
    fn next(&self) -> Vec<u8> {
        let mut state = self.shared.state.lock();
        state.is_writing = false;
        if !state.has_something() {
            self.shared.emptied.notify_all();
            self.shared.filled.wait_while(&mut state, |state| !state.has_something());
        }
        if state.lines.is_empty() {
            state.is_full = false;
            state.mention(self.shared.notices);
        }
        let line = state.lines.pop_front().unwrap_or_default();
        state.bytes = state.bytes.saturating_sub(line.len() + OVERHEAD);
        state.is_writing = true;
        line
    }

    /// A line could not be written.
    fn lost(&self) {
        self.shared.state.lock().dropped += 1;
    }
}

impl Kind {
    fn of(metadata: &Metadata<'_>) -> Self {
        if metadata.target() == AUDIT {
            Self::Audit
        } else if *metadata.level() <= Level::WARN {
            Self::Urgent
        } else {
            Self::Ordinary
        }
    }
}

impl State {
    fn has_something(&self) -> bool {
        !self.lines.is_empty() || self.unmentioned > 0
    }

    fn add(&mut self, line: Vec<u8>) {
        self.bytes += line.len() + OVERHEAD;
        self.lines.push_back(line);
    }

    fn mention(&mut self, notices: Notices) {
        if self.unmentioned > 0 {
            self.add((notices.of_lines)(self.unmentioned));
            self.unmentioned = 0;
        }
        if self.unmentioned_audit > 0 {
            self.add((notices.of_audit)(self.unmentioned_audit));
            self.unmentioned_audit = 0;
        }
    }
}

/// Writes all of a line, also to a pipe that is set to not block.
fn write(output: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(WRITE_AGAIN),
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

/// Takes one line: each call of `write` is a whole one.
#[derive(Debug)]
pub(super) struct LineWriter<'a> {
    queue: &'a LogQueue,
    kind: Kind,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line.to_vec(), self.kind);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { queue: self, kind: Kind::Ordinary }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        LineWriter { queue: self, kind: Kind::of(metadata) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, PipeReader, Read, Write};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::{Kind, LONGEST_LINE, LogQueue, Notices, OVERHEAD, RESERVE, ROOM};

    const PATIENCE: Duration = Duration::from_secs(10);
    /// A full line of an access log.
    const LINE: usize = 600;

    const NOTICES: Notices = Notices {
        of_lines: |lines| format!("{lines} left out\n").into_bytes(),
        of_audit: |lines| format!("{lines} of the audit log left out\n").into_bytes(),
    };

    /// A queue with a writer to a pipe, and the other end, which nobody reads yet.
    fn to_a_pipe() -> (LogQueue, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::new(NOTICES);
        queue.start_writer(writer).unwrap();
        (queue, reader)
    }

    fn line(number: usize) -> Vec<u8> {
        format!("{number:0>width$}\n", width = LINE - 1).into_bytes()
    }

    /// Reads lines until one has this in it.
    fn read_lines(mut reader: PipeReader, until: &'static str) -> Vec<String> {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let (mut text, mut bytes) = (String::new(), [0; 64 * 1024]);
            while !text.contains(until) {
                let read = reader.read(&mut bytes).unwrap();
                text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            }
            tell.send(text).unwrap();
        });
        told.recv_timeout(PATIENCE).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn while_nobody_reads_what_waits_is_bounded_and_the_rest_is_counted_and_mentioned_in_its_place() {
        let (queue, reader) = to_a_pipe();
        for number in 0..10_000 {
            queue.push(line(number), Kind::Ordinary);
        }
        let dropped = queue.dropped();
        assert!(queue.shared.state.lock().bytes <= ROOM - RESERVE);
        let fit = u64::try_from((ROOM - RESERVE) / (LINE + OVERHEAD)).unwrap();
        assert!(10_000 - dropped >= fit && 10_000 - dropped < fit + 64 * 1024 / 600 + 100, "{dropped}");
        queue.push(b"why it came\n".to_vec(), Kind::Urgent);
        assert_eq!(queue.dropped(), dropped, "what is urgent has room of its own");
        // Everything that waits is written as soon as somebody reads, and then what is missing.
        let lines = read_lines(reader, "left out");
        let kept = usize::try_from(10_000 - dropped).unwrap();
        assert_eq!(lines.len(), kept + 2);
        assert!(lines[..kept].iter().enumerate().all(|(number, line)| line.parse() == Ok(number)));
        assert_eq!(lines[kept..], ["why it came".to_owned(), format!("{dropped} left out")]);
        queue.flush(PATIENCE);
        assert!(!queue.shared.state.lock().is_full, "lines are taken again");
    }

    #[test]
    fn audit_lines_that_are_left_out_are_mentioned_once_more_by_themselves() {
        let queue = LogQueue::new(NOTICES);
        for number in 0..2_000 {
            queue.push(line(number), Kind::Ordinary);
        }
        let dropped = queue.dropped();
        assert!(dropped > 0);
        queue.push(b"who got what\n".to_vec(), Kind::Audit);
        assert_eq!(queue.dropped(), dropped, "the audit log has room that a flood of requests leaves free");
        for number in 0..2_000 {
            queue.push(line(number), Kind::Audit);
        }
        let of_audit = queue.dropped() - dropped;
        assert!(of_audit > 0);
        let mut last = String::new();
        while queue.shared.state.lock().has_something() {
            let line = String::from_utf8(queue.next()).unwrap();
            last += Some(&*line).filter(|line| line.contains("left out")).unwrap_or_default();
        }
        let all = queue.dropped();
        assert_eq!(last, format!("{all} left out\n{of_audit} of the audit log left out\n"));
    }

    #[test]
    fn a_flush_returns_when_all_is_written_and_no_later_than_it_may() {
        let (queue, mut reader) = to_a_pipe();
        queue.push(b"last\n".to_vec(), Kind::Ordinary);
        queue.flush(PATIENCE);
        let mut read = [0; 5];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"last\n");
        for number in 0..1_000 {
            queue.push(line(number), Kind::Ordinary);
        }
        queue.flush(Duration::from_millis(50));
        assert!(!queue.shared.state.lock().lines.is_empty());
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let queue = LogQueue::new(NOTICES);
        queue.push(vec![b'x'; ROOM], Kind::Ordinary);
        let line = queue.next();
        assert_eq!((line.len(), line.last()), (LONGEST_LINE + 1, Some(&b'\n')));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_a_full_pipe_that_does_not_block_is_waited_for() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = LogQueue::new(NOTICES);
        queue.start_writer(writer).unwrap();
        queue.push(b"to nobody\n".to_vec(), Kind::Ordinary);
        queue.flush(PATIENCE);
        assert_eq!(queue.dropped(), 1);

        /// Takes one byte of two tries.
        struct Reluctant(Vec<u8>, bool);
        impl Write for Reluctant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.0.push(bytes[0]);
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Reluctant(Vec::new(), false);
        super::write(&mut output, b"in the end\n").unwrap();
        assert_eq!(output.0, b"in the end\n");
    }
}
