//! What the hub gives to tell whether a file came whole: its SHA-256 if it is in Git LFS, else the id of its git blob.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek};

/// A checksum in lower-case hex.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sum {
    /// Of the file's bytes.
    Sha256(String),
    /// SHA-1 of `blob LENGTH`, a NUL and the file's bytes, as git names its contents.
    Git(String),
}

impl Sum {
    /// A SHA-256, if `text` is one.
    pub fn sha256(text: &str) -> Option<Sum> {
        is_hex(text, 64).then(|| Sum::Sha256(text.to_ascii_lowercase()))
    }

    /// The id of a git blob, if `text` is one.
    pub fn git(text: &str) -> Option<Sum> {
        is_hex(text, 40).then(|| Sum::Git(text.to_ascii_lowercase()))
    }

    /// The digits, by which the cache names the content as the hub's ETag does.
    pub fn digits(&self) -> &str {
        match self {
            Sum::Sha256(digits) | Sum::Git(digits) => digits,
        }
    }

    /// What it is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Sum::Sha256(_) => "SHA-256",
            Sum::Git(_) => "git blob id (SHA-1)",
        }
    }

    /// The sum of the same kind that a file has.
    pub fn of(&self, file: &mut File) -> io::Result<Sum> {
        match self {
            Sum::Sha256(_) => digest(Sha256::new(), file).map(Sum::Sha256),
            Sum::Git(_) => {
                let length = file.metadata()?.len();
                digest(Sha1::new_with_prefix(format!("blob {length}\0")), file).map(Sum::Git)
            }
        }
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Of the whole file, behind what `hash` has been given already.
fn digest(mut hash: impl Digest, file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// `git hash-object` and `sha256sum` of the same bytes.
    #[test]
    fn sums_are_those_of_git_and_sha256sum() {
        for (bytes, git, sha256) in [
            (
                &b""[..],
                "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                b"hello\n",
                "ce013625030ba8dba906f756967f9e9ca394464a",
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            ),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            for wanted in [Sum::git(&git.to_uppercase()).unwrap(), Sum::sha256(sha256).unwrap()] {
                assert_eq!(wanted.of(&mut file).unwrap(), wanted);
            }
        }
        assert_eq!(Sum::git("ce01"), None);
        assert_eq!(Sum::sha256("ce013625030ba8dba906f756967f9e9ca394464a"), None);
        assert_eq!(Sum::git("zz013625030ba8dba906f756967f9e9ca394464a"), None);
    }
}
