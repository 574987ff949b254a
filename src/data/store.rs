//! A user's examples, kept where they were made: an SQLite file that only this device has.
//!
//! What [`Store::learn`] was given is on disk when it returns, each text once: the same again changes nothing, another label
//! for a known text corrects it. The file holds the texts as they are; it is made readable for its owner alone, and what
//! is forgotten is overwritten in it. Nothing of it reaches a bias file but the labels' names.

use super::{Example, LabelForm, clean_label, shorten};
use crate::error::{Error, Result};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `application_id` of the file: "trim".
const APPLICATION: i32 = 0x7472_696d;
const VERSION: i32 = 1;
/// Examples that are kept unless told otherwise.
const CAP: usize = 10_000;
/// Longest text or label, in bytes, that is written or read.
const LONGEST: i32 = 16 << 20;
/// How long another process may hold the file.
const PATIENCE: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE examples (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        -- SHA-256 of the texts: each is there once
        key BLOB NOT NULL UNIQUE,
        -- empty for a pair without one
        label TEXT NOT NULL,
        text_a TEXT NOT NULL,
        text_b TEXT
    ) STRICT;
    CREATE INDEX by_label ON examples (label, id);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
";

/// An open store. Several processes may have one open; each waits for the other.
pub struct Store {
    db: Connection,
    path: PathBuf,
}

/// What became of examples that were learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Learned {
    /// Texts that were not there.
    pub new: usize,
    /// Texts that were there with another label.
    pub corrected: usize,
    /// Texts that were there with this label.
    pub known: usize,
    /// Older examples that had to go, for there were more than the cap.
    pub dropped: usize,
}

/// Which examples to forget.
#[derive(Clone, Copy, Debug)]
pub enum Forget<'a> {
    /// By the number that [`Store::examples`] gives as their line.
    Number(i64),
    /// A text, or a pair.
    Text(&'a str, Option<&'a str>),
    /// All of a label.
    Label(&'a str),
    /// Every one.
    All,
}

impl Store {
    /// Opens a store, or makes one where there is no file.
    ///
    /// Errors: `Error::Io`; `Error::Format` for a file that is no store, or a damaged one.
    pub fn open(path: &Path) -> Result<Store> {
        if !path.exists() {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(false);
            // Texts of a person: for nobody else to read.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(path).map_err(Error::io(path))?;
        }
        let mut store = Store::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.make()?;
        Ok(store)
    }

    /// Opens a store that is there, to read it. Errors: as of [`Store::open`].
    pub fn open_existing(path: &Path) -> Result<Store> {
        std::fs::metadata(path).map_err(Error::io(path))?;
        let store = Store::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.check()?;
        Ok(store)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Store> {
        let fail = |e| failed(path, e);
        // Whole: to SQLite a file called `:memory:` is none.
        let real = path.canonicalize().map_err(Error::io(path))?;
        let db = Connection::open_with_flags(real, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fail)?;
        db.busy_timeout(PATIENCE).map_err(fail)?;
        db.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, LONGEST).map_err(fail)?;
        // On disk when a call returns, the journal's end too; overwritten when forgotten; a hostile file runs nothing.
        db.execute_batch(
            "PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF;",
        )
        .map_err(fail)?;
        Ok(Store { db, path: path.to_owned() })
    }

    /// Writes the schema into an empty file.
    fn make(&mut self) -> Result<()> {
        let path = self.path.clone();
        let fail = |e| failed(&path, e);
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let tables: i64 =
            tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
        if tables == 0 {
            tx.execute_batch(SCHEMA).map_err(fail)?;
            tx.pragma_update(None, "application_id", APPLICATION).map_err(fail)?;
            tx.pragma_update(None, "user_version", VERSION).map_err(fail)?;
        }
        tx.commit().map_err(fail)?;
        self.check()
    }

    fn check(&self) -> Result<()> {
        let get = |name| self.db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (id, version) = (get("application_id"), get("user_version"));
        match (id.map_err(|e| self.failed(e))?, version.map_err(|e| self.failed(e))?) {
            (APPLICATION, VERSION) => Ok(()),
            (APPLICATION, other) => {
                let what = format!("a store of version {other}; this trimtab reads {VERSION}");
                Err(Error::format(&self.path, what))
            }
            _ => Err(Error::format(&self.path, "a database, but not of trimtab's examples")),
        }
    }

    /// Adds examples; they are on disk when this returns. If it fails, none of them is.
    ///
    /// Where there are more than the cap then, the oldest of the most frequent label goes, and so on.
    /// Errors: `Error::Data` for a single text without a label, or one that is too long; `Error::Io`.
    pub fn learn(&mut self, examples: &[Example]) -> Result<Learned> {
        let path = self.path.clone();
        let fail = |e| failed(&path, e);
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let mut learned = Learned::default();
        for e in examples {
            let label = clean_label(e.label.as_deref().unwrap_or_default());
            let label = label.as_ref();
            let text_b = e.text_b.as_deref();
            if label.is_empty() && text_b.is_none() {
                let what = "there is no label to learn; only pairs, for contrastive, need none";
                return Err(Error::data(&path, Some(e.line), what));
            }
            if [label, &e.text_a, text_b.unwrap_or_default()].iter().any(|s| s.len() >= LONGEST as usize / 2)
            {
                return Err(Error::data(&path, Some(e.line), "a text of more than 8 MB"));
            }
            let key = key(&e.text_a, text_b);
            let known: Option<String> = tx
                .query_row("SELECT label FROM examples WHERE key = ?1", params![key], |row| row.get(0))
                .optional()
                .map_err(fail)?;
            match known {
                Some(known) if known == label => {
                    learned.known += 1;
                    continue;
                }
                // It goes to the end: it is the newest again.
                Some(_) => {
                    tx.execute("DELETE FROM examples WHERE key = ?1", params![key]).map_err(fail)?;
                    learned.corrected += 1;
                }
                None => learned.new += 1,
            }
            tx.execute(
                "INSERT INTO examples (key, label, text_a, text_b) VALUES (?1, ?2, ?3, ?4)",
                params![key, label, e.text_a, text_b],
            )
            .map_err(fail)?;
        }
        learned.dropped = shrink(&tx).map_err(fail)?;
        tx.commit().map_err(fail)?;
        Ok(learned)
    }

    /// Removes examples and returns how many there were. Models that have learned them still have: train anew.
    pub fn forget(&mut self, which: Forget) -> Result<usize> {
        let delete = "DELETE FROM examples";
        match which {
            Forget::Number(id) => self.db.execute(&format!("{delete} WHERE id = ?1"), params![id]),
            Forget::Text(a, b) => self.db.execute(&format!("{delete} WHERE key = ?1"), params![key(a, b)]),
            Forget::Label(label) => self.db.execute(&format!("{delete} WHERE label = ?1"), params![label]),
            Forget::All => self.db.execute(delete, []),
        }
        .map_err(|e| self.failed(e))
    }

    /// Every example, oldest first; its line is the number it has here.
    pub fn examples(&self) -> Result<Vec<Example>> {
        let mut rows = self
            .db
            .prepare("SELECT id, label, text_a, text_b FROM examples ORDER BY id")
            .map_err(|e| self.failed(e))?;
        let example = |row: &rusqlite::Row| {
            Ok(Example {
                line: usize::try_from(row.get::<_, i64>(0)?).unwrap_or_default(),
                label: Some(row.get(1)?).filter(|label: &String| !label.is_empty()),
                text_a: row.get(2)?,
                text_b: row.get(3)?,
                ..Example::default()
            })
        };
        rows.query_map([], example).and_then(Iterator::collect).map_err(|e| self.failed(e))
    }

    /// Labels, the most frequent first, with the number of their examples; pairs without a label count under the empty one.
    pub fn labels(&self) -> Result<Vec<(String, usize)>> {
        let sql = "SELECT label, count(*) AS n FROM examples GROUP BY label ORDER BY n DESC, label";
        let mut rows = self.db.prepare(sql).map_err(|e| self.failed(e))?;
        let pair = |row: &rusqlite::Row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize));
        rows.query_map([], pair).and_then(Iterator::collect).map_err(|e| self.failed(e))
    }

    /// Most examples that are kept.
    pub fn cap(&self) -> Result<usize> {
        cap(&self.db).map_err(|e| self.failed(e))
    }

    /// Keeps at most so many examples from now on, and returns how many had to go.
    pub fn set_cap(&mut self, most: usize) -> Result<usize> {
        let path = self.path.clone();
        let fail = |e| failed(&path, e);
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        tx.execute("INSERT OR REPLACE INTO settings VALUES ('cap', ?1)", params![most]).map_err(fail)?;
        let dropped = shrink(&tx).map_err(fail)?;
        tx.commit().map_err(fail)?;
        Ok(dropped)
    }

    fn failed(&self, e: rusqlite::Error) -> Error {
        failed(&self.path, e)
    }
}

/// The examples of a store that is there, to learn from as from any file.
pub(super) fn read(path: &Path, want: LabelForm) -> Result<Vec<Example>> {
    if matches!(want, LabelForm::Tags | LabelForm::Answers) {
        return Err(Error::data(path, None, "a store has labels of whole texts: not for --task tag or qa"));
    }
    let examples = Store::open_existing(path)?.examples()?;
    match examples.is_empty() {
        true => Err(Error::data(path, None, "there are no examples; `trimtab learn` adds some")),
        false => Ok(examples),
    }
}

fn key(text_a: &str, text_b: Option<&str>) -> [u8; 32] {
    let mut sha = Sha256::new();
    // The length tells where the second begins.
    sha.update((text_a.len() as u64).to_le_bytes());
    sha.update(text_a);
    sha.update([u8::from(text_b.is_some())]);
    sha.update(text_b.unwrap_or_default());
    sha.finalize().into()
}

fn cap(db: &Connection) -> rusqlite::Result<usize> {
    let get = |row: &rusqlite::Row| row.get::<_, i64>(0);
    let cap = db.query_row("SELECT value FROM settings WHERE name = 'cap'", [], get).optional()?;
    Ok(cap.map_or(CAP, |cap| cap.max(0) as usize))
}

/// Removes what is over the cap: of the most frequent label the oldest, so that rare labels stay.
fn shrink(tx: &Transaction) -> rusqlite::Result<usize> {
    let cap = cap(tx)?;
    let count: i64 = tx.query_row("SELECT count(*) FROM examples", [], |row| row.get(0))?;
    let over = (count as usize).saturating_sub(cap);
    let mut largest =
        tx.prepare("SELECT label FROM examples GROUP BY label ORDER BY count(*) DESC, label LIMIT 1")?;
    for _ in 0..over {
        let label: String = largest.query_row([], |row| row.get(0))?;
        tx.execute(
            "DELETE FROM examples WHERE id = (SELECT min(id) FROM examples WHERE label = ?1)",
            params![label],
        )?;
    }
    Ok(over)
}

fn failed(path: &Path, e: rusqlite::Error) -> Error {
    let text = shorten(&e.to_string(), 200);
    match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::format(path, "not a store of examples"),
        Some(ErrorCode::DatabaseCorrupt) => Error::format(path, format!("damaged: {text}")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let source = std::io::Error::other(format!("another process has held it for {PATIENCE:?}"));
            Error::Io { path: path.to_owned(), source }
        }
        Some(_) => Error::Io { path: path.to_owned(), source: std::io::Error::other(text) },
        None => Error::format(path, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(label: &str, text: &str) -> Example {
        Example { text_a: text.into(), label: Some(label.into()), ..Example::default() }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("me.store")).unwrap();
        (dir, store)
    }

    #[test]
    fn each_text_is_there_once_with_its_last_label() {
        let (dir, mut s) = store();
        let pair = Example { text_b: Some("c".into()), ..example("x", "b") };
        let learned =
            s.learn(&[example("x", "a"), example("y", "b"), pair.clone(), example("x", "a")]).unwrap();
        assert_eq!(learned, Learned { new: 3, known: 1, ..Learned::default() });
        let learned = s.learn(&[example("y", "a")]).unwrap();
        assert_eq!(learned, Learned { corrected: 1, ..Learned::default() });
        let all = Store::open_existing(&dir.path().join("me.store")).unwrap().examples().unwrap();
        let seen: Vec<_> =
            all.iter().map(|e| (e.line, e.label.as_deref().unwrap(), e.text_a.as_str())).collect();
        assert_eq!(seen, [(2, "y", "b"), (3, "x", "b"), (4, "y", "a")], "the corrected one is the newest");
        assert_eq!(all[1].text_b.as_deref(), Some("c"));
        assert_eq!(s.labels().unwrap(), [("y".to_owned(), 2), ("x".to_owned(), 1)]);
        assert!(s.learn(&[example("z", "new"), example(" ", "none")]).is_err());
        assert_eq!(s.learn(&[example("y ", "a")]).unwrap().known, 1, "labels are trimmed");
        let bare = Example { label: None, text_b: Some("e".into()), ..example("", "d") };
        assert_eq!(
            s.learn(&[bare.clone(), bare]).unwrap(),
            Learned { new: 1, known: 1, ..Learned::default() }
        );
        assert_eq!(s.examples().unwrap()[3].label, None, "a pair needs no label");
        assert_eq!(s.forget(Forget::Text("d", Some("e"))).unwrap(), 1);
        assert_eq!(s.examples().unwrap().len(), 3, "all or none");
    }

    #[test]
    fn forgotten_text_is_gone_from_the_file() {
        let (dir, mut s) = store();
        s.learn(&[example("x", "a most telling secret"), example("x", "b"), example("y", "c")]).unwrap();
        let bytes = || std::fs::read(dir.path().join("me.store")).unwrap();
        let holds = |bytes: Vec<u8>| bytes.windows(7).any(|w| w == b"telling");
        assert!(holds(bytes()));
        assert_eq!(s.forget(Forget::Text("a most telling secret", None)).unwrap(), 1);
        assert!(!holds(bytes()));
        assert_eq!(s.forget(Forget::Text("a most telling secret", None)).unwrap(), 0);
        assert_eq!(s.forget(Forget::Label("x")).unwrap(), 1);
        assert_eq!(s.forget(Forget::Number(3)).unwrap(), 1);
        assert_eq!(s.forget(Forget::All).unwrap(), 0);
    }

    #[test]
    fn rare_labels_outlive_the_cap() {
        let (_dir, mut s) = store();
        assert_eq!(s.cap().unwrap(), CAP);
        s.set_cap(5).unwrap();
        let many: Vec<_> = (0..9).map(|i| example("often", &format!("t{i}"))).collect();
        s.learn(&[example("rare", "r")]).unwrap();
        assert_eq!(s.learn(&many).unwrap(), Learned { new: 9, dropped: 5, ..Learned::default() });
        let left: Vec<String> = s.examples().unwrap().into_iter().map(|e| e.text_a).collect();
        assert_eq!(left, ["r", "t5", "t6", "t7", "t8"]);
        assert_eq!(s.set_cap(2).unwrap(), 3);
        assert_eq!(s.labels().unwrap().len(), 2);
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = Store::open(&path).err().expect("refused").to_string();
            assert!(Store::open_existing(&path).is_err());
            assert!(error.contains('f'), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "left alone");
            error
        };
        assert!(
            refused(b"label\ttext\nx\ta text that is long enough to be no header of SQLite's")
                .contains("not a store")
        );
        {
            let other = Connection::open(dir.path().join("other")).unwrap();
            other.execute_batch("CREATE TABLE t (x)").unwrap();
        }
        assert!(refused(&std::fs::read(dir.path().join("other")).unwrap()).contains("not of trimtab's"));
        let mut s = Store::open(&dir.path().join("good")).unwrap();
        s.learn(&(0..500).map(|i| example("x", &format!("text {i}"))).collect::<Vec<_>>()).unwrap();
        drop(s);
        let good = std::fs::read(dir.path().join("good")).unwrap();
        for at in (100..good.len()).step_by(997) {
            let mut bytes = good.clone();
            bytes[at..(at + 64).min(good.len())].fill(0xa5);
            std::fs::write(&path, &bytes).unwrap();
            // Whatever it says, it says it: no panic, no endless loop.
            if let Ok(s) = Store::open(&path) {
                let _ = s.examples();
                let _ = s.labels();
            }
        }
    }
}
