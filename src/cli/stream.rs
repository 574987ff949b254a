//! Lines as they come, from a file or from stdin, handed on many at a time where many are waiting.

use super::terminal;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc;
use trimtab::data::Lines;
use trimtab::{Error, Result};

/// Lines that are answered together when many are waiting.
pub const TOGETHER: usize = 32;

/// Has `answer` see every line of a file, or of stdin where the path is `-`; blank lines too.
///
/// Errors: what `answer` says, after which nothing is read; a line that cannot be read, after the ones before it were
/// answered.
pub fn lines(path: &Path, answer: impl FnMut(&[String]) -> Result<()>) -> Result<()> {
    if path != Path::new("-") {
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        return answer_all(file, path, answer);
    }
    if std::io::stdin().is_terminal() {
        terminal::say("a text a line; Ctrl-D ends");
    }
    answer_all(std::io::stdin(), Path::new("standard input"), answer)
}

/// A reader of its own: what has come while an answer was computed is answered together.
fn answer_all(
    input: impl Read + Send + 'static,
    path: &Path,
    mut answer: impl FnMut(&[String]) -> Result<()>,
) -> Result<()> {
    let (send, lines) = mpsc::sync_channel(4 * TOGETHER);
    let path = path.to_owned();
    std::thread::spawn(move || read_lines(input, &path, &send));
    while let Ok(first) = lines.recv() {
        let mut texts = vec![first?];
        let mut failed = None;
        while texts.len() < TOGETHER {
            match lines.try_recv() {
                Ok(Ok(text)) => texts.push(text),
                Ok(Err(e)) => {
                    failed = Some(e);
                    break;
                }
                Err(_) => break,
            }
        }
        answer(&texts)?;
        if let Some(e) = failed {
            return Err(e);
        }
    }
    Ok(())
}

fn read_lines(input: impl Read, path: &Path, send: &mpsc::SyncSender<Result<String>>) {
    let mut lines = Lines::new(BufReader::new(input), path).keep_blank();
    loop {
        let line = match lines.next_line() {
            Ok(Some((_, text))) => Ok(text.to_owned()),
            Ok(None) => return,
            Err(e) => Err(e),
        };
        let failed = line.is_err();
        if send.send(line).is_err() || failed {
            return;
        }
    }
}
