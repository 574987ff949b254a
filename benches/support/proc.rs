//! What Linux tells about this process. Elsewhere there is nothing to read, and every function says so.
#![allow(dead_code)] // each user takes its part

use std::fs;

/// Megabytes (2^20 bytes) of a key of `/proc/self/status`: `VmRSS` now, `VmHWM` at its highest.
pub fn status_mb(key: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}

/// Makes `VmHWM` start anew from what is resident now; false where the system does not let us.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Seconds of processor time that everybody used so far, and that this process did.
///
/// In ticks of 10 ms, which Linux reports to programs on every architecture that runs this.
pub fn busy_s() -> Option<(f64, f64)> {
    let ticks = |text: &str, fields: std::ops::Range<usize>| -> Option<f64> {
        let values: Vec<f64> = text.split_whitespace().map(|v| v.parse().ok()).collect::<Option<_>>()?;
        Some(values.get(fields)?.iter().sum::<f64>() / 100.0)
    };
    let all = fs::read_to_string("/proc/stat").ok()?;
    let all = all.lines().next()?.strip_prefix("cpu")?;
    // user nice system, then idle iowait, then irq softirq steal
    let everybody = ticks(all, 0..3)? + ticks(all, 5..8)?;
    // utime and stime are the 12th and 13th behind the name, which may hold spaces and ends with the last ')'
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    let own = own.rsplit_once(')')?.1.trim_start();
    let own = own.split_once(' ')?.1; // the state, a letter
    Some((everybody, ticks(own, 10..12)?))
}
