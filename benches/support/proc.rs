//! What Linux tells about this process. Elsewhere there is nothing to read, and every function says so.
#![allow(dead_code)] // each user takes its part

use std::fs;

/// As megabytes of 2^20 bytes, with one digit.
pub fn mb(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| (bytes as f64 / (1 << 20) as f64 * 10.0).round() / 10.0)
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
