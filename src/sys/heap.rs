//! How the process's heap treats large blocks.

/// Asks the C library to keep freed memory for the next allocation instead of handing it back to the system.
///
/// A training step allocates and frees the same megabytes over and over; handed back, they are cleared and
/// mapped page by page each time (15 % of a step, measured). For programs; a library should leave its host's
/// heap alone. Does nothing where the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: i32 = 1 << 20;
        // SAFETY: `mallopt` takes plain integers and only changes settings of the allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * MIB);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * MIB);
        }
    }
}
