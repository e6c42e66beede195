//! The process itself, as every Prometheus client describes it (`process_*`).
//!
//! Owns: reading the kernel's numbers when Prometheus asks. Must not know: what the process does. What the
//! kernel does not say has no sample.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks of `/proc/PID/stat` in a second: USER_HZ, 100 on every architecture of Linux but Alpha.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct Process {
    /// Read once: it never changes, and `/proc/stat` is long on large machines.
    start_time: Option<f64>,
}

impl Process {
    pub(super) fn new() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { start_time: start_time(&read("/proc/self/stat"), &read("/proc/stat")) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        if let Some(at) = self.start_time {
            let help = "Unix time at which the process started.";
            ConstGauge::new(at).encode(gauge(encoder, "process_start_time", help, Some(&Unit::Seconds))?)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let help = "Processor time that the process used, in user and in system mode.";
            let cpu =
                encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(seconds).encode(cpu)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = [
            ("process_resident_memory", "Memory that is resident.", "VmRSS:"),
            ("process_virtual_memory", "Address space in use.", "VmSize:"),
        ];
        for (name, help, field) in memory {
            if let Some(bytes) = memory_bytes(&status, field) {
                ConstGauge::new(bytes).encode(gauge(encoder, name, help, Some(&Unit::Bytes))?)?;
            }
        }
        if let Some(open) = open_descriptors() {
            let help = "Open file descriptors.";
            ConstGauge::new(open).encode(gauge(encoder, "process_open_fds", help, None)?)?;
        }
        if let Ok((soft, _hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let help = "File descriptors that the process may have open.";
            ConstGauge::new(soft).encode(gauge(encoder, "process_max_fds", help, None)?)?;
        }
        Ok(())
    }
}

fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
    unit: Option<&'a Unit>,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, unit, MetricType::Gauge)
}

/// From `/proc/self/stat` and `/proc/stat`: ticks since boot, and when that was.
fn start_time(own: &str, system: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may have blanks and parentheses in it. The
    // start is the 22nd field, and the 20th after that.
    let (_, fields) = own.rsplit_once(") ")?;
    let ticks: f64 = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

/// A field of `/proc/self/status`, which is in KiB.
fn memory_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(std::time::Duration::from_micros(u64::try_from(micros).ok()?).as_secs_f64())
}

/// Without the one that reads the directory.
fn open_descriptors() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::UNIX_EPOCH;

    use super::{Process, cpu_seconds, memory_bytes, open_descriptors, start_time};
    use crate::clock::Clock;

    #[test]
    fn the_start_is_found_behind_a_name_with_blanks_and_parentheses() {
        let own = "7 (a ) b) S 1 7 7 0 -1 4194560 2 0 0 0 9 4 0 0 20 0 5 0 12345 1000000 250 1";
        let system = "cpu  1 2 3\nintr 5\nctxt 6\nbtime 1700000000\nprocesses 9\n";
        assert_eq!(start_time(own, system), Some(1_700_000_123.45));
        for (own, system) in [("", system), (own, ""), ("7 (a) S 1", system), (own, "btime x\n")] {
            assert_eq!(start_time(own, system), None, "{own} {system}");
        }
    }

    #[test]
    fn memory_is_given_in_bytes() {
        let status = "Name:\ta\nVmPeak:\t    9 kB\nVmSize:\t  2048 kB\nVmRSS:\t     12 kB\nThreads:\t3\n";
        assert_eq!(memory_bytes(status, "VmSize:"), Some(2 * 1024 * 1024));
        assert_eq!(memory_bytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(memory_bytes(status, "VmSwap:"), None);
        assert_eq!(memory_bytes("VmRSS:\t12 MB\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_started_before_now_and_within_a_day() {
        let now = Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = Process::new().start_time.unwrap();
        // `btime` is in whole seconds.
        assert!((now - 86_400.0..now + 2.0).contains(&started), "{started} is not a little before {now}");
    }

    #[test]
    fn a_file_that_is_opened_and_time_that_is_spent_are_counted() {
        // Other tests of this process open and close files meanwhile, so many are opened.
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..200).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        assert!(open_descriptors().unwrap() > before + 100, "{} files do not show", files.len());
        let before = cpu_seconds().unwrap();
        while cpu_seconds().unwrap() <= before {}
    }
}
