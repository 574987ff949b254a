//! How many threads to use where nobody says, one for each performance core; and how to keep them at hand.
//!
//! Phones and some laptops have cores of two or three kinds. A product is cut evenly, so a slow core would be waited
//! for; and it shares caches and power with the fast ones. Results do not depend on the number.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Cores of at least half the largest capacity, no more than this process may use; at least 1.
///
/// Linux tells capacities on ARM (`cpu_capacity`, where device trees have them) and clocks elsewhere
/// (`cpuinfo_max_freq`); other systems and containers that hide them give all CPUs.
pub fn performance() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    fast(Path::new("/sys/devices/system/cpu")).map_or(usable, |fast| fast.clamp(1, usable))
}

/// How long a thread looks for work before it goes to sleep after all: some times the gap between two products.
const PATIENCE: Duration = Duration::from_micros(300);

/// Runs `f` on the current pool, whose other threads look out for its parallel parts meanwhile.
///
/// A small model comes to the next product after some ten microseconds, and waking a thread takes longer than that: on
/// their own, threads of the pool would go to sleep and be woken dozens of times in a forward.
pub(crate) fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if rayon::current_num_threads() == 1 {
        return f();
    }
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let own = rayon::current_thread_index();
        let done = &done;
        scope.spawn_broadcast(move |_, thread| {
            if own != Some(thread.index()) {
                help(done);
            }
        });
        let result = f();
        done.store(true, Ordering::Release);
        result
    })
}

/// Does what work there is. Gives up after a while without any, also lest two runs whose threads help each other wait
/// for each other.
fn help(done: &AtomicBool) {
    let mut idle = Instant::now();
    while !done.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle = Instant::now();
        } else if idle.elapsed() > PATIENCE {
            return;
        }
        std::hint::spin_loop();
    }
}

fn fast(cpus: &Path) -> Option<usize> {
    let capacities = |file: &str| -> Vec<u64> {
        (0..)
            .map(|i| cpus.join(format!("cpu{i}")))
            .take_while(|cpu| cpu.is_dir())
            .filter_map(|cpu| std::fs::read_to_string(cpu.join(file)).ok()?.trim().parse().ok())
            .collect()
    };
    let mut all = capacities("cpu_capacity");
    if all.is_empty() {
        all = capacities("cpufreq/cpuinfo_max_freq");
    }
    let largest = *all.iter().max()?;
    Some(all.iter().filter(|c| **c > largest / 2).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(file: &str, values: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (i, value) in values.iter().enumerate() {
            let path = root.path().join(format!("cpu{i}")).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value).unwrap();
        }
        root
    }

    #[test]
    fn a_phones_big_cores_and_a_boards_equal_ones() {
        let phone = ["250\n", "250\n", "250\n", "250\n", "870\n", "870\n", "870\n", "1024\n"];
        assert_eq!(fast(machine("cpu_capacity", &phone).path()), Some(4));
        assert_eq!(fast(machine("cpu_capacity", &["1024\n"; 4]).path()), Some(4));
        let laptop = ["4700000\n", "4700000\n", "3500000\n"];
        assert_eq!(fast(machine("cpufreq/cpuinfo_max_freq", &laptop).path()), Some(3));
        assert_eq!(fast(machine("nothing", &["1\n"; 2]).path()), None);
        assert_eq!(fast(machine("cpu_capacity", &["many\n"]).path()), None);
        assert!(performance() >= 1);
    }
}
