//! What touches the operating system: files in memory, the heap, cores, and how much memory the process has.
#![allow(unsafe_code)]

pub mod cores;
pub mod heap;
pub mod map;
pub mod resident;
