//! How much memory the process has, where the system tells: Linux, in `/proc/self`.

use std::fs;

/// Bytes that are resident now.
pub fn now() -> Option<u64> {
    status("VmRSS")
}

/// The most bytes that were resident so far.
pub fn peak() -> Option<u64> {
    status("VmHWM")
}

/// Sets [`peak`] to what is resident now. Returns false if the system does not allow it.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes of a key of `/proc/self/status`, which has them in KiB.
fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn grows_with_what_is_touched() {
        let before = super::now().unwrap();
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(super::now().unwrap() >= before + (48 << 20), "64 MiB were touched");
        assert!(super::peak().unwrap() >= before + (48 << 20));
        drop(touched);
    }
}
