//! What this machine is: CPU, clock, memory, system, temperature. Every fact the system does not tell is absent.

use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// Facts that do not change while we look.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The model's name; of several kinds of cores each, with how many there are.
    pub cpu: Option<String>,
    /// The board, as a device tree names it.
    pub board: Option<String>,
    /// Of the program, such as `x86_64`.
    pub arch: &'static str,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Highest clock of any CPU.
    pub mhz_max: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub os: String,
}

/// What work changes.
#[derive(Debug, PartialEq, Serialize)]
pub struct State {
    /// Highest clock of any CPU now.
    pub mhz: Option<u64>,
    /// Mean number of tasks that ran or wanted to in the last minute; ours too, once we are at work.
    pub load: Option<f64>,
    /// The sensors.
    pub celsius: Vec<Sensor>,
    /// The firmware's word on a Raspberry Pi: bits of [`throttling`].
    pub throttled: Option<u32>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Sensor {
    pub name: String,
    pub celsius: f64,
}

impl Machine {
    pub fn look() -> Machine {
        Machine::at(Path::new("/"))
    }

    /// `root` is where `/proc` and `/sys` are.
    fn at(root: &Path) -> Machine {
        let cpuinfo = text(root, "proc/cpuinfo").unwrap_or_default();
        Machine {
            cpu: cpu(&cpuinfo),
            board: text(root, "proc/device-tree/model")
                .or_else(|| value(&cpuinfo, "Model").map(String::from)),
            arch: std::env::consts::ARCH,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            mhz_max: frequency(root, "cpuinfo_max_freq"),
            memory_bytes: memory(root),
            os: system(root),
        }
    }
}

impl State {
    pub fn look() -> State {
        State::at(Path::new("/"))
    }

    fn at(root: &Path) -> State {
        let cpuinfo = || text(root, "proc/cpuinfo");
        let told = || Some(value(&cpuinfo()?, "cpu MHz")?.parse::<f64>().ok()?.round() as u64);
        State {
            mhz: frequency(root, "scaling_cur_freq").or_else(told),
            load: text(root, "proc/loadavg").and_then(|l| l.split_whitespace().next()?.parse().ok()),
            celsius: sensors(root),
            throttled: throttled(root),
        }
    }
}

/// What the bits of [`State::throttled`] say; nothing if none is set.
pub fn throttling(bits: u32) -> String {
    const WHAT: [(u32, &str); 4] =
        [(0, "under-voltage"), (1, "clock capped"), (2, "throttled"), (3, "soft temperature limit")];
    let now = WHAT.iter().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, what)| format!("{what} now"));
    let since = WHAT.iter().filter(|(bit, _)| bits >> (16 + bit) & 1 == 1);
    now.chain(since.map(|(_, what)| format!("{what} since the start"))).collect::<Vec<_>>().join(", ")
}

/// A small file's text, without the zero that ends strings of a device tree.
pub(super) fn text(root: &Path, path: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(path)).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\0', '\n', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

/// `key : value`, the first of its kind.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    values(text, key).next()
}

fn values<'a>(text: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (k, v) = line.split_once(':')?;
        (k.trim() == key).then(|| v.trim())
    })
}

/// x86 names its model. ARM tells a number for each core, at most.
fn cpu(cpuinfo: &str) -> Option<String> {
    if let Some(name) = value(cpuinfo, "model name") {
        return Some(name.to_owned());
    }
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for (by, part) in values(cpuinfo, "CPU implementer").zip(values(cpuinfo, "CPU part")) {
        let name = arm_core(by, part);
        match kinds.iter_mut().find(|k| k.0 == name) {
            Some(kind) => kind.1 += 1,
            None => kinds.push((name, 1)),
        }
    }
    let names: Vec<_> = kinds.iter().map(|(name, n)| format!("{n} × {name}")).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Numbers from Arm's reference manuals (MIDR_EL1).
fn arm_core(implementer: &str, part: &str) -> String {
    let name = match (implementer, part) {
        ("0x41", "0xc07") => "Cortex-A7",
        ("0x41", "0xd03") => "Cortex-A53",
        ("0x41", "0xd04") => "Cortex-A35",
        ("0x41", "0xd05") => "Cortex-A55",
        ("0x41", "0xd07") => "Cortex-A57",
        ("0x41", "0xd08") => "Cortex-A72",
        ("0x41", "0xd09") => "Cortex-A73",
        ("0x41", "0xd0a") => "Cortex-A75",
        ("0x41", "0xd0b") => "Cortex-A76",
        ("0x41", "0xd0c") => "Neoverse-N1",
        ("0x41", "0xd0d") => "Cortex-A77",
        ("0x41", "0xd40") => "Neoverse-V1",
        ("0x41", "0xd41") => "Cortex-A78",
        ("0x41", "0xd44") => "Cortex-X1",
        ("0x41", "0xd46") => "Cortex-A510",
        ("0x41", "0xd47") => "Cortex-A710",
        ("0x41", "0xd49") => "Neoverse-N2",
        ("0x41", "0xd4f") => "Neoverse-V2",
        _ => return format!("ARM core {implementer}/{part}"),
    };
    name.to_owned()
}

/// Megahertz: the highest that a file of each CPU's `cpufreq` tells, in kHz.
fn frequency(root: &Path, file: &str) -> Option<u64> {
    let cpus = std::fs::read_dir(root.join("sys/devices/system/cpu")).ok()?.flatten();
    let khz = cpus.filter_map(|cpu| text(&cpu.path(), &format!("cpufreq/{file}"))?.parse::<u64>().ok());
    khz.max().map(|khz| khz / 1000)
}

fn memory(root: &Path) -> Option<u64> {
    let kib: u64 =
        value(&text(root, "proc/meminfo")?, "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn system(root: &Path) -> String {
    let release = text(root, "etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    let name = name.map_or(std::env::consts::OS.to_owned(), |n| n.trim_matches(['"', '\'']).to_owned());
    match text(root, "proc/sys/kernel/osrelease") {
        Some(kernel) => format!("{name}, Linux {kernel}"),
        None => name,
    }
}

/// The thermal zones, in the order of their numbers.
fn sensors(root: &Path) -> Vec<Sensor> {
    let Ok(zones) = std::fs::read_dir(root.join("sys/class/thermal")) else { return Vec::new() };
    let mut found: Vec<(u32, Sensor)> = zones
        .flatten()
        .filter_map(|zone| {
            let number = zone.file_name().to_str()?.strip_prefix("thermal_zone")?.parse().ok()?;
            let milli: f64 = text(&zone.path(), "temp")?.parse().ok()?;
            let name = text(&zone.path(), "type").unwrap_or_else(|| format!("zone {number}"));
            Some((number, Sensor { name, celsius: milli / 1e3 }))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, sensor)| sensor).collect()
}

/// A Raspberry Pi's firmware tells in a file or, on other kernels, by a program of the system's.
pub(super) fn throttled(root: &Path) -> Option<u32> {
    let hex = |text: &str| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
    if let Some(bits) = text(root, "sys/devices/platform/soc/soc:firmware/get_throttled") {
        return hex(&bits);
    }
    if !text(root, "proc/device-tree/model")?.contains("Raspberry Pi") {
        return None;
    }
    let told = Command::new("vcgencmd").arg("get_throttled").output().ok().filter(|o| o.status.success())?;
    hex(String::from_utf8_lossy(&told.stdout).trim().strip_prefix("throttled=")?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A directory with files in the places of a system's.
    pub fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_raspberry_pi() {
        let core = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n";
        let pi = root(&[
            ("proc/cpuinfo", &(core.repeat(4) + "Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n")),
            ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            ("proc/meminfo", "MemTotal:        3884360 kB\nMemFree:  1 kB\n"),
            ("proc/loadavg", "0.52 0.58 0.59 1/389 4711\n"),
            ("proc/sys/kernel/osrelease", "6.6.51+rpt-rpi-v8\n"),
            ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1800000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "600000\n"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48686\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
        ]);
        let m = Machine::at(pi.path());
        assert_eq!(m.cpu.as_deref(), Some("4 × Cortex-A72"));
        assert_eq!(m.board.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
        assert_eq!((m.mhz_max, m.memory_bytes), (Some(1800), Some(3884360 * 1024)));
        assert_eq!(m.os, "Debian GNU/Linux 12 (bookworm), Linux 6.6.51+rpt-rpi-v8");
        let s = State::at(pi.path());
        let celsius = vec![Sensor { name: "cpu-thermal".into(), celsius: 48.686 }];
        assert_eq!(s, State { mhz: Some(600), load: Some(0.52), celsius, throttled: Some(0x50005) });
        assert_eq!(
            throttling(0x50005),
            "under-voltage now, throttled now, under-voltage since the start, throttled since the start"
        );
    }

    #[test]
    fn two_kinds_of_cores() {
        let core = |part: &str| format!("CPU implementer\t: 0x41\nCPU part\t: {part}\n");
        let cpuinfo = core("0xd05").repeat(4) + &core("0xd0b").repeat(2) + &core("0xfff");
        assert_eq!(cpu(&cpuinfo).unwrap(), "4 × Cortex-A55, 2 × Cortex-A76, 1 × ARM core 0x41/0xfff");
    }

    #[test]
    fn a_cloud_machine_tells_little() {
        let vm =
            root(&[("proc/cpuinfo", "model name\t: Intel(R) Xeon(R) Processor\ncpu MHz\t\t: 2299.998\n")]);
        let m = Machine::at(vm.path());
        assert_eq!(m.cpu.as_deref(), Some("Intel(R) Xeon(R) Processor"));
        assert_eq!((m.board, m.mhz_max, m.memory_bytes), (None, None, None));
        assert_eq!(
            State::at(vm.path()),
            State { mhz: Some(2300), load: None, celsius: vec![], throttled: None }
        );
    }

    #[test]
    fn nothing_and_nonsense_are_absent() {
        let odd = root(&[
            ("proc/cpuinfo", "\u{0}\n:::\ncpu MHz : fast\n"),
            ("proc/meminfo", "MemTotal: lots"),
            ("proc/loadavg", "high"),
            ("sys/class/thermal/thermal_zone0/temp", "warm"),
            ("sys/class/thermal/thermal_zoneX/temp", "1"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "zz"),
        ]);
        for dir in [odd, root(&[])] {
            let m = Machine::at(dir.path());
            assert_eq!((m.cpu, m.board, m.mhz_max, m.memory_bytes), (None, None, None, None));
            assert_eq!(
                State::at(dir.path()),
                State { mhz: None, load: None, celsius: vec![], throttled: None }
            );
        }
    }
}
