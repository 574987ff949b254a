//! Texts as they come, from a file or from stdin, handed on many at a time where many are waiting.

use super::{args, terminal};
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::sync::mpsc;
use trimtab::Result;
use trimtab::data::{Example, LabelForm, Lines};

/// Lines that are answered together when many are waiting.
pub const TOGETHER: usize = 32;

/// Has `answer` see every text of a file, or of stdin where the path is `-`. Of plain text each line is one, blank ones too;
/// other files are read as `data` says.
///
/// Errors: what `answer` says, after which nothing is read; a line that cannot be read, after the ones before it were
/// answered.
pub fn texts(path: &Path, data: &args::Data, answer: impl FnMut(&[Example]) -> Result<()>) -> Result<()> {
    if !data.is_lines(path) {
        let examples = data.read(path, LabelForm::Nothing)?;
        if examples.iter().any(|e| e.text_b.is_some()) {
            terminal::say(
                "note: only the first text of each pair is used; --text-column names another column",
            );
        }
        return examples.chunks(TOGETHER).try_for_each(answer);
    }
    match path == Path::new("-") {
        true => stdin_lines(answer),
        false => answer_all(data.open_text(path)?, path, answer),
    }
}

/// Has `answer` see every line of stdin; blank ones too. Errors: as of [`texts`].
pub fn stdin_lines(answer: impl FnMut(&[Example]) -> Result<()>) -> Result<()> {
    if std::io::stdin().is_terminal() {
        terminal::say("a text a line; Ctrl-D ends");
    }
    answer_all(BufReader::new(std::io::stdin()), Path::new("standard input"), answer)
}

/// A reader of its own: what has come while an answer was computed is answered together.
fn answer_all(
    input: impl BufRead + Send + 'static,
    path: &Path,
    mut answer: impl FnMut(&[Example]) -> Result<()>,
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

fn read_lines(input: impl BufRead, path: &Path, send: &mpsc::SyncSender<Result<Example>>) {
    let mut lines = Lines::new(input, path).keep_blank();
    loop {
        let line = match lines.next_line() {
            Ok(Some((line, text))) => Ok(Example { text_a: text.to_owned(), line, ..Example::default() }),
            Ok(None) => return,
            Err(e) => Err(e),
        };
        let failed = line.is_err();
        if send.send(line).is_err() || failed {
            return;
        }
    }
}
