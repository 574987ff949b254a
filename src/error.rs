//! The one error type of the crate, and how its kinds map to exit codes.

use std::path::{Path, PathBuf};

/// What went wrong, with the facts needed to mend it: file, tensor, expected and found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written or mapped.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what it claims to be: truncated, hostile, of another version.
    #[error("{path}: {what}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        what: String,
    },
    /// A tensor is missing, or has another type or shape than the config calls for.
    #[error("{path}: tensor `{tensor}`: {what}", path = .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// Expected and found.
        what: String,
    },
    /// An encoder, activation or setting this version cannot run.
    #[error("{path}: {what}", path = .path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// The name of what is not supported, and what is.
        what: String,
    },
    /// Labelled data that cannot be used, with its line.
    #[error("{path}{line}: {what}", path = .path.display(), line = .line.map(|n| format!(":{n}")).unwrap_or_default())]
    Data {
        /// The file.
        path: PathBuf,
        /// Line number, from 1, where one line is at fault.
        line: Option<usize>,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// A bias file that was trained on another base.
    #[error(
        "{bias} was trained on another base: it needs the base with fingerprint {wants}, but {base} has {has}",
        bias = .bias.display(), base = .base.display()
    )]
    WrongBase {
        /// The bias file.
        bias: PathBuf,
        /// The base it was used with.
        base: PathBuf,
        /// Fingerprint stored in the bias file.
        wants: String,
        /// Fingerprint of the base.
        has: String,
    },
    /// An argument or a combination of settings that makes no sense.
    #[error("{0}")]
    Config(String),
    /// The loss or a gradient became NaN or infinite.
    #[error("{0}")]
    Diverged(String),
    /// What was learned is no better than what is there, which stays.
    #[error("{0}")]
    NotBetter(String),
    /// The user asked to stop.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// Running the graph failed: a bug in trimtab rather than in its input.
    #[error("internal: {0}")]
    Internal(String),
}

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Exit code of the command line: 2 bad usage or input, 3 diverged, 4 not better than before, 130 interrupted, 1 the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Io { .. } | Error::Internal(_) => 1,
            Error::Diverged(_) => 3,
            Error::NotBetter(_) => 4,
            Error::Interrupted(_) => 130,
            _ => 2,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn format(path: &Path, what: impl Into<String>) -> Error {
        Error::Format { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, what: impl Into<String>) -> Error {
        Error::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), what: what.into() }
    }

    pub(crate) fn data(path: &Path, line: Option<usize>, what: impl Into<String>) -> Error {
        Error::Data { path: path.to_owned(), line, what: what.into() }
    }
}
