//! How a request failed.

use crate::error::Error;
use std::time::Duration;

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection could be made.
    Unreachable(String),
    /// Another attempt may succeed, at the earliest after the time that the server asked for.
    Passing(String, Option<Duration>),
    /// The hub has no such thing, or does not give it to us.
    Denied(String),
    /// An answer that cannot be used, and that another attempt would bring again.
    Refused(String),
    /// This machine's own trouble, such as a full disk.
    Local(Error),
}
