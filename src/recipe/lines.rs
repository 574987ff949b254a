//! Which lines a bias file was trained on: hashes, kept beside the file and never in it.
//!
//! A later run on more lines needs to know which of them the existing file has not seen. Short texts can be guessed from
//! their hashes, so the hashes stay on the device, in a file that only its owner can read: `me.bias.safetensors.lines`.
//! It names the SHA-256 of its bias file, so that it is not taken for another file's.

use crate::data::Example;
use crate::error::{Error, Result};
use crate::output;
use crate::train::folds::Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

const FORMAT: &str = "trimtab-lines-1";
/// Bytes of a hash that are kept: two of a million texts share them with a probability of 10⁻¹².
const KEPT: usize = 10;
/// Largest file read: eleven million lines.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Hashes of the examples that a model was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeSet<[u8; KEPT]>);

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    /// SHA-256 of the bias file.
    bias: String,
    lines: Vec<String>,
}

/// Hash of an example's texts, without its label.
pub fn key(e: &Example) -> Key {
    let mut sha = Sha256::new();
    for text in [Some(&e.text_a), e.text_b.as_ref()].into_iter().flatten() {
        sha.update((text.len() as u64).to_le_bytes());
        sha.update(text);
    }
    sha.finalize().into()
}

fn short(e: &Example) -> [u8; KEPT] {
    key(e)[..KEPT].try_into().expect("a hash is longer")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Where the hashes of a bias file are.
pub fn beside(bias: &Path) -> PathBuf {
    let mut name = bias.as_os_str().to_owned();
    name.push(".lines");
    name.into()
}

impl Lines {
    /// Of these examples.
    pub fn of<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Lines {
        Lines(examples.into_iter().map(short).collect())
    }

    /// Whether the example is among them.
    pub fn has(&self, e: &Example) -> bool {
        self.0.contains(&short(e))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of them are among the examples.
    pub fn shared(&self, examples: &[Example]) -> usize {
        Lines::of(examples).0.intersection(&self.0).count()
    }

    /// Bytes of the file that they are kept in.
    pub(super) fn bytes(examples: usize) -> u64 {
        // Each in hexadecimal, with quotes and a comma.
        100 + (2 * KEPT as u64 + 3) * examples as u64
    }

    /// Those of the bias file at `bias`. `None` if there are none, or if they belong to another bias file.
    pub fn read(bias: &Path) -> Option<Lines> {
        let path = beside(bias);
        if std::fs::metadata(&path).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let stored: Stored = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let digest = hex(&Sha256::digest(std::fs::read(bias).ok()?));
        if stored.format != FORMAT || stored.bias != digest {
            return None;
        }
        let bytes = |text: &String| {
            let byte = |i: usize| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..KEPT).map(byte).collect();
            bytes?.try_into().ok()
        };
        stored.lines.iter().map(bytes).collect::<Option<_>>().map(Lines)
    }

    /// Writes them beside the bias file, which is there already. Nothing stands beside a stream.
    pub fn write(&self, bias: &Path) -> Result<()> {
        if output::is_stream(bias) {
            return Ok(());
        }
        let digest = hex(&Sha256::digest(std::fs::read(bias).map_err(Error::io(bias))?));
        let lines = self.0.iter().map(|line| hex(line)).collect();
        let stored = Stored { format: FORMAT.into(), bias: digest, lines };
        let json = serde_json::to_vec(&stored).map_err(|e| Error::Internal(format!("lines: {e}")))?;
        let path = beside(bias);
        output::replace_file(&path, |file| {
            private(file);
            file.write_all(&json).map_err(Error::io(&path))
        })
    }
}

/// Readable by the owner alone, where the system has such a thing.
fn private(file: &std::fs::File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
    }
    #[cfg(not(unix))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(text: &str, pair: Option<&str>) -> Example {
        Example { text_a: text.into(), text_b: pair.map(str::to_owned), ..Example::default() }
    }

    #[test]
    fn lines_belong_to_one_bias_file() {
        let dir = tempfile::tempdir().unwrap();
        let bias = dir.path().join("me.bias");
        std::fs::write(&bias, "weights").unwrap();
        let some = [example("one", None), example("two", Some("b"))];
        let lines = Lines::of(&some);
        lines.write(&bias).unwrap();
        assert_eq!(Lines::read(&bias), Some(lines.clone()));
        assert!(lines.has(&example("one", None)) && lines.has(&some[1]));
        assert!(
            !lines.has(&example("two", None)) && !lines.has(&example("twob", None)),
            "a pair is another example"
        );
        let written = std::fs::read_to_string(beside(&bias)).unwrap();
        assert!(!written.contains("one") && !written.contains("two"));
        std::fs::write(&bias, "other weights").unwrap();
        assert_eq!(Lines::read(&bias), None, "another bias file stands there now");
        std::fs::remove_file(beside(&bias)).unwrap();
        assert_eq!(Lines::read(&bias), None);
    }

    #[test]
    fn damaged_lines_are_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        let bias = dir.path().join("me.bias");
        std::fs::write(&bias, "weights").unwrap();
        Lines::of(&[example("one", None)]).write(&bias).unwrap();
        let good = std::fs::read_to_string(beside(&bias)).unwrap();
        for bad in [
            "",
            "{}",
            &good[..good.len() / 2],
            &good.replace("lines-1", "lines-2"),
            &good.replace("\"lines\":[\"", "\"lines\":[\"zz"),
        ] {
            std::fs::write(beside(&bias), bad).unwrap();
            assert_eq!(Lines::read(&bias), None, "{bad}");
        }
    }
}
