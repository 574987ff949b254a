//! What the machine says of itself while a run goes on, and rest where it says that it is too hot or short of memory.
//!
//! Linux tells: a Raspberry Pi's firmware whether it slows the CPU down, thermal zones how hot they are and from where on
//! they slow it down, and `/proc/pressure/memory` how long everything waited for memory. Elsewhere nothing is known.

use super::machine::{self, text};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Longest rest after a look: a run is at worst half as fast, and never waits for a sensor that is always hot.
const REST: Duration = Duration::from_secs(5);
/// How often a rest looks whether it may end.
const NAP: Duration = Duration::from_millis(250);
/// Share of the last ten seconds in which nothing went on for want of memory, in percent.
const STALLED: f64 = 20.0;
/// Temperatures at which something may begin to slow down, in thousandths of a degree; others are of a sensor that is none.
const PLAUSIBLE: std::ops::Range<i64> = 40_000..130_000;
/// Bits of the firmware's answer: the frequency is capped, it is throttled, the soft limit of the temperature is reached.
const THROTTLED: u32 = 0b1110;

/// A machine, and when it was last looked at.
pub struct Cooling {
    root: PathBuf,
    looked: Instant,
    has_told: bool,
}

impl Cooling {
    /// This one.
    pub fn new() -> Cooling {
        Cooling { root: "/".into(), looked: Instant::now(), has_told: false }
    }

    /// Between two steps: rests where there is need, until there is none, `REST` is over, or `ended` says so. `tell` hears of
    /// the first time why.
    pub fn rest(&mut self, tell: impl FnOnce(&str), ended: impl Fn() -> bool) {
        if self.looked.elapsed() < EVERY {
            return;
        }
        if let Some(why) = trouble(&self.root) {
            if !self.has_told {
                tell(&format!("{why}; resting up to half of the time (--never-rest goes on)"));
                self.has_told = true;
            }
            let start = Instant::now();
            while start.elapsed() < REST && !ended() && trouble(&self.root).is_some() {
                std::thread::sleep(NAP);
            }
        }
        self.looked = Instant::now();
    }
}

/// Why it is better to rest, as far as the files under `root` tell.
fn trouble(root: &Path) -> Option<String> {
    slowed_down(root).or_else(|| hot(root)).or_else(|| short_of_memory(root))
}

fn slowed_down(root: &Path) -> Option<String> {
    let now = machine::throttled(root)? & THROTTLED;
    (now != 0).then(|| format!("the board slows its CPU down: {}", machine::throttling(now)))
}

/// A zone that is as hot as its first limit.
fn hot(root: &Path) -> Option<String> {
    let zones = std::fs::read_dir(root.join("sys/class/thermal")).ok()?;
    zones.flatten().find_map(|zone| {
        let read = |file: &str| text(&zone.path(), file);
        let number = |file: &str| read(file)?.parse::<i64>().ok();
        let slows_down =
            |i: &usize| matches!(read(&format!("trip_point_{i}_type")).as_deref(), Some("passive" | "hot"));
        let limit = (0..16)
            .filter(slows_down)
            .filter_map(|i| number(&format!("trip_point_{i}_temp")))
            .filter(|limit| PLAUSIBLE.contains(limit))
            .min()?;
        let now = number("temp").filter(|now| PLAUSIBLE.contains(now) && *now >= limit)?;
        Some(format!("the machine is hot: {} °C, and slows down from {} on", now / 1000, limit / 1000))
    })
}

fn short_of_memory(root: &Path) -> Option<String> {
    let said = text(root, "proc/pressure/memory")?;
    let full = said.lines().find_map(|line| line.strip_prefix("full "))?;
    let share: f64 = full.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    (share >= STALLED).then(|| "the machine is short of memory; a smaller --memory takes less".into())
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::root;
    use super::*;

    const TEMP: &str = "sys/class/thermal/thermal_zone0/temp";

    fn zone<'a>(temp: &'a str, kind: &'a str, limit: &'a str) -> [(&'a str, &'a str); 3] {
        [
            (TEMP, temp),
            ("sys/class/thermal/thermal_zone0/trip_point_0_type", kind),
            ("sys/class/thermal/thermal_zone0/trip_point_0_temp", limit),
        ]
    }

    #[test]
    fn trouble_is_what_the_machine_tells() {
        let pi = "sys/devices/platform/soc/soc:firmware/get_throttled";
        let memory = "proc/pressure/memory";
        let calm = "some avg10=3.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=1.50 avg60=0.00 avg300=0.00 total=0\n";
        for (files, word) in [
            (&[][..], None),
            (&[(pi, "50000\n")], None), // it was throttled once, and is not now
            (&[(pi, "0x50004\n")], Some("slows its CPU down: throttled now")),
            (&[(pi, "what\n")], None),
            (&zone("79999\n", "passive\n", "80000\n"), None),
            (&zone("80000\n", "passive\n", "80000\n"), Some("80 °C")),
            (&zone("80000\n", "critical\n", "80000\n"), None),
            (&zone("50000\n", "passive\n", "-274000\n"), None),
            (&zone("999999\n", "hot\n", "80000\n"), None),
            (&[(memory, calm)], None),
            (&[(memory, &calm.replace("1.50", "45.10"))], Some("short of memory")),
        ] {
            let root = root(files);
            let found = trouble(root.path());
            assert_eq!(found.is_some(), word.is_some(), "{files:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(word.unwrap_or_default()), "{files:?}");
        }
    }

    #[test]
    fn a_rest_ends_when_it_may() {
        let root = root(&zone("90000", "passive", "80000"));
        let at = |looked| Cooling { root: root.path().into(), looked, has_told: false };
        let Some(long_ago) = Instant::now().checked_sub(EVERY) else { return };
        let start = Instant::now();
        at(Instant::now()).rest(|_| panic!("it is too early to look"), || true);
        let (mut cooling, mut told) = (at(long_ago), String::new());
        cooling.rest(|why| told = why.into(), || true);
        assert!(told.contains("90 °C") && told.contains("--never-rest"), "{told}");
        cooling.looked = long_ago;
        std::fs::write(root.path().join(TEMP), "60000").unwrap();
        cooling.rest(|_| panic!("said before, and over"), || false);
        assert!(start.elapsed() < REST, "{:?}", start.elapsed());
    }
}
