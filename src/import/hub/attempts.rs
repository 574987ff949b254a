//! Whether another attempt at a request makes sense, and how long to wait before it.

use super::failure::Failure;
use super::http::{Answer, Client, Limits};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Counts failed attempts and waits between them.
pub(super) struct Tries<'a> {
    client: &'a Client,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub fn new(client: &'a Client) -> Tries<'a> {
        Tries { client, failed: 0 }
    }

    /// Waits if another attempt makes sense, and returns the failure otherwise. After an attempt that made progress, the count
    /// begins at 0 again.
    pub fn again(&mut self, failure: Failure, progress: bool) -> Result<(), Failure> {
        let limits = &self.client.limits;
        if progress {
            self.failed = 0;
        }
        self.failed += 1;
        let (what, asked) = match failure {
            Failure::Passing(what, asked) => (what, asked),
            // A network that worked a moment ago may work again in another.
            Failure::Unreachable(what) if self.client.reached() => (what, None),
            other => return Err(other),
        };
        if self.failed >= limits.tries {
            let times = match self.failed {
                1 => String::new(),
                n => format!(" ({n} attempts)"),
            };
            return Err(Failure::Passing(what + &times, None));
        }
        std::thread::sleep(self.pause(asked, limits));
        Ok(())
    }

    fn pause(&self, asked: Option<Duration>, limits: &Limits) -> Duration {
        let doubled = limits.pause.saturating_mul(1 << (self.failed - 1).min(10));
        asked.unwrap_or(doubled).min(limits.longest_pause)
    }
}

/// What an answer's status says about `what` (a repository, a revision or a file of one). None of 200 and 206.
pub(super) fn check_status(answer: &Answer, what: &str, client: &Client) -> Result<(), Failure> {
    let status = answer.status();
    let code = answer.header("x-error-code").unwrap_or_default();
    let denied = |text: String| Err(Failure::Denied(text));
    match status {
        200 | 206 => Ok(()),
        401 | 403 if code == "GatedRepo" => denied(format!(
            "{what} is gated: accept its conditions on its page, then set HF_TOKEN to a token of that account (status {status})"
        )),
        _ if code == "RevisionNotFound" => {
            denied(format!("{what}: there is no such branch, tag or commit (status {status})"))
        }
        403 if code == "DisabledRepo" => denied(format!("{what} has been disabled by the hub (status 403)")),
        401 if client.has_token() => denied(format!(
            "no {what} there, or the hub does not accept the token: check HF_TOKEN and its file (status 401)"
        )),
        401 => denied(format!("no {what} there, or it is private or gated: then set HF_TOKEN (status 401)")),
        403 if client.has_token() => denied(format!(
            "the token may not read {what}: it may be gated, or the token lacks the right (status 403)"
        )),
        403 => denied(format!("the hub does not give {what} to everybody: set HF_TOKEN (status 403)")),
        404 if client.has_token() => {
            denied(format!("no {what} there, or the token may not see it (status 404)"))
        }
        404 => denied(format!("no {what} there, or it is private: then set HF_TOKEN (status 404)")),
        408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=529 => {
            let asked = answer.header("retry-after").and_then(|text| wait_until(&text, SystemTime::now()));
            let name = match status {
                429 => "the hub answers too many requests (status 429)".to_owned(),
                _ => format!("the server has a problem (status {status})"),
            };
            match asked {
                Some(asked) if asked > client.limits.longest_pause => Err(Failure::Refused(format!(
                    "{name} and asks to wait {} s; try again then",
                    asked.as_secs()
                ))),
                _ => Err(Failure::Passing(name, asked)),
            }
        }
        407 => Err(Failure::Refused("the proxy asks for a name and password (status 407)".into())),
        _ => Err(Failure::Refused(format!("the server answered with status {status}"))),
    }
}

/// The header `Retry-After`: seconds, or a date such as `Wed, 21 Oct 2015 07:28:00 GMT`.
pub(super) fn wait_until(text: &str, now: SystemTime) -> Option<Duration> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else { return None };
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970-01-01, in years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 719_469;
    let at = UNIX_EPOCH + Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second);
    Some(at.duration_since(now).unwrap_or_default())
}
