//! What a run needs to go on where it was: after a power cut to the same bytes as without it.
//!
//! A checkpoint is a safetensors file, `step-00000120.safetensors`, with the tensors `theta`, `m` and `v` (AdamW's moments), `best`
//! (theta of the best epoch) and `head_alone`, all F32 `[params]`, and in its metadata the position as JSON. The order of the
//! data and the dropout masks follow from seed and position, so there is no other random state. It is written beside its
//! place, synced and renamed; a SHA-256 over position and tensors tells what a disk has damaged since. The last two are
//! kept.

use super::metrics::Metrics;
use super::{Epoch, Labelled, TrainConfig};
use crate::container::{self, Header, floats};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::Numerics;
use crate::output;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

const FORMAT: &str = "trimtab-checkpoint";
const VERSION: &str = "1";
const PREFIX: &str = "step-";
/// What the files of scored folds begin with, which cross-validation keeps in the same folder.
pub(crate) const FOLD_PREFIX: &str = "fold-";
const SUFFIX: &str = ".safetensors";
/// Largest file read: five times the largest bias file.
const FILE_BYTES_MAX: u64 = 5 * (256 << 20);
/// Folder of the part of a run that comes first.
const FIRST_PART: &str = "first";
/// Checkpoints that are kept.
const KEPT: usize = 2;

/// Where and how often a run keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// A folder of their own; made if it is not there.
    pub dir: PathBuf,
    /// Steps between two of them.
    pub every: usize,
    /// Goes on from the newest one; without one begins anew. Otherwise a folder that has some is refused.
    pub resume: bool,
}

impl Checkpoints {
    /// Those of a part of the run that comes first.
    pub(crate) fn within(&self) -> Checkpoints {
        Checkpoints { dir: self.dir.join(FIRST_PART), ..self.clone() }
    }

    /// Removes what a run has left there, and the folder where nothing else is in it: for when its biases are in their
    /// place. Checkpoints that stay keep the next run from beginning anew there.
    pub fn remove(&self) -> Result<()> {
        if !self.dir.is_dir() {
            return Ok(()); // a linear probe has none
        }
        if self.dir.join(FIRST_PART).is_dir() {
            self.within().remove()?;
        }
        for (_, path) in self.found()? {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        let entries = fs::read_dir(&self.dir).map_err(Error::io(&self.dir))?;
        let is_fold = |name: &str| name.starts_with(FOLD_PREFIX) && name.ends_with(".json");
        for entry in entries.flatten().filter(|e| e.file_name().to_str().is_some_and(is_fold)) {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// Fails if there is no room for those of a run of `params` parameters.
    pub(crate) fn check_room(&self, params: usize) -> Result<()> {
        let bytes = (4 * TENSORS.len() * params) as u64;
        let rooms = (0..KEPT).map(|_| output::reserve_in(&self.dir, bytes));
        rooms.collect::<Result<Vec<_>>>().map(drop)
    }

    /// Checkpoints by their steps, oldest first. What a killed run left half written is removed.
    fn found(&self) -> Result<Vec<(usize, PathBuf)>> {
        let dir = &self.dir;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
            let path = entry.map_err(Error::io(dir))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if container::is_left_over(name) {
                let _ = fs::remove_file(&path);
            } else if let Some(steps) = name.strip_prefix(PREFIX).and_then(|n| n.strip_suffix(SUFFIX))
                && let Ok(steps) = steps.parse()
            {
                found.push((steps, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Where a run stands between two steps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// From 0.
    pub epoch: usize,
    /// Batches of this epoch that are done.
    pub batches: usize,
    /// Sum over this epoch's texts of their loss.
    pub loss_sum: f64,
    /// Texts of the whole run so far.
    pub texts: usize,
    pub steps: usize,
    pub train_s: f64,
    pub kept: usize,
    pub epochs: Vec<Epoch>,
    pub before: Option<Metrics>,
    /// Score and loss of the best epoch.
    pub best: Option<(f64, f64)>,
    /// Updates that the moments have seen.
    pub updates: i32,
}

/// A run's state as a checkpoint holds it.
#[derive(Default)]
pub(super) struct State {
    pub position: Position,
    /// By name; see the module.
    pub tensors: BTreeMap<&'static str, Vec<f32>>,
}

impl State {
    /// Whether it is whole: as a run of `params` parameters left it.
    fn check(&self, params: usize) -> std::result::Result<(), &'static str> {
        let has = |name| self.tensors.contains_key(name);
        let best = self.position.best.is_some();
        match self.tensors.values().all(|values| values.len() == params) {
            false => Err("its tensors are of another length than the model's"),
            true if !["m", "theta", "v"].into_iter().all(has) || best != has("best") => {
                Err("a tensor is missing")
            }
            true => Ok(()),
        }
    }
}

/// Names of a state's tensors.
const TENSORS: [&str; 5] = ["best", "head_alone", "m", "theta", "v"];

/// What makes a run this one and no other; each part as text or SHA-256.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    settings: String,
    examples: String,
    dev: String,
    start: String,
}

impl Identity {
    fn of(
        graph: &Graph,
        theta: &[f32],
        data: &[Labelled],
        dev: Option<&[Labelled]>,
        config: &TrainConfig,
    ) -> Identity {
        // What changes no result may be another: where it goes on there may be less memory.
        let config = TrainConfig { cut: None, prefix_cache: 0, checkpoints: None, ..config.clone() };
        let exact = matches!(graph.numerics(), Numerics::Reference);
        let dropout = [graph.head.dropout.p, graph.emb_ln.dropout.p];
        let settings = format!("{config:?}, dropout {dropout:?}, exact {exact}");
        Identity {
            settings,
            examples: digest(data),
            dev: dev.map_or(String::new(), digest),
            start: hex(Sha256::digest(bytemuck::cast_slice(theta))),
        }
    }

    /// What of another run's identity is not ours.
    fn other(&self, theirs: &Identity) -> Option<&'static str> {
        let pairs = [
            (&self.examples, &theirs.examples, "other examples"),
            (&self.dev, &theirs.dev, "other held-out examples"),
            (&self.settings, &theirs.settings, "other settings"),
            (&self.start, &theirs.start, "another base, or other biases to start from"),
        ];
        pairs.into_iter().find(|(ours, theirs, _)| ours != theirs).map(|(_, _, what)| what)
    }
}

fn digest(data: &[Labelled]) -> String {
    let mut sha = Sha256::new();
    for example in data {
        // Debug of floats is exact: the shortest text that reads back as the same.
        sha.update(format!("{example:?}\n"));
    }
    hex(sha.finalize())
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The folder of a run that goes on.
pub(super) struct CheckpointWriter {
    settings: Checkpoints,
    identity: Identity,
    /// Steps of the newest one.
    newest: Option<usize>,
    failing: bool,
    /// Held as long as the run lives; the system lets go of it however that ends.
    _lock: Option<File>,
}

impl CheckpointWriter {
    /// Opens or makes the folder, and reads what there is to go on from. What a user should know goes to `note`.
    ///
    /// Errors: a folder that cannot be written or that another run is using; checkpoints that nobody asked to go on from, of
    /// another run, or all of them damaged.
    pub fn open(
        settings: &Checkpoints,
        graph: &Graph,
        theta: &[f32],
        (data, dev, config): (&[Labelled], Option<&[Labelled]>, &TrainConfig),
        note: &mut dyn FnMut(&str),
    ) -> Result<(CheckpointWriter, Option<State>)> {
        let dir = &settings.dir;
        if settings.every == 0 {
            return Err(Error::Config("checkpoints: every 0 steps; use 1 or more".into()));
        }
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        // Not every system can open a folder, nor every file system lock one.
        let lock = File::open(dir).ok();
        if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
            let dir = dir.display();
            return Err(Error::Config(format!("{dir}: another run keeps its checkpoints there")));
        }
        let identity = Identity::of(graph, theta, data, dev, config);
        let mut keeper = CheckpointWriter {
            settings: settings.clone(),
            identity,
            newest: None,
            failing: false,
            _lock: lock,
        };
        let found = settings.found()?;
        if found.is_empty() {
            if settings.resume {
                note(&format!("{} has no checkpoint: beginning anew", dir.display()));
            }
            return Ok((keeper, None));
        }
        if !settings.resume {
            return Err(Error::Config(format!(
                "{} has checkpoints of an earlier run: go on from them with --resume, or name another folder",
                dir.display()
            )));
        }
        let mut newest_first = found.into_iter().rev().peekable();
        while let Some((steps, path)) = newest_first.next() {
            match read(&path) {
                Ok((identity, state)) => {
                    if let Some(what) = keeper.identity.other(&identity) {
                        return Err(Error::Config(format!(
                            "{} is of a run with {what}: repeat that run's command, or name another folder",
                            path.display()
                        )));
                    }
                    state.check(theta.len()).map_err(|what| Error::format(&path, what))?;
                    note(&format!("going on from step {steps}, {}", path.display()));
                    keeper.newest = Some(steps);
                    return Ok((keeper, Some(state)));
                }
                Err(e) if newest_first.peek().is_some() => note(&format!("not from the newest one: {e}")),
                Err(e) => {
                    return Err(Error::format(dir, format!("{e}; to begin anew, remove it")));
                }
            }
        }
        Ok((keeper, None))
    }

    /// Whether it is time for one after so many steps.
    pub fn is_due(&self, steps: usize) -> bool {
        steps.is_multiple_of(self.settings.every)
    }

    /// Writes a checkpoint and removes what is older than the last two. What is there already is not written again.
    pub fn save(&mut self, state: &State) -> Result<()> {
        let steps = state.position.steps;
        if self.newest == Some(steps) {
            return Ok(());
        }
        let path = self.settings.dir.join(format!("{PREFIX}{steps:08}{SUFFIX}"));
        write(&path, &self.identity, state)?;
        self.newest = Some(steps);
        let found = self.settings.found()?;
        for (_, old) in &found[..found.len().saturating_sub(KEPT)] {
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    /// The same in the middle of a run, which a full disk should not end: it is told once, and tried again next time.
    pub fn try_save(&mut self, state: &State, note: &mut dyn FnMut(&str)) {
        match self.save(state) {
            Ok(()) if self.failing => {
                self.failing = false;
                note("checkpoints are written again");
            }
            Ok(()) => {}
            Err(e) if !self.failing => {
                self.failing = true;
                note(&format!("no checkpoint at step {}: {e}; the run goes on", state.position.steps));
            }
            Err(_) => {}
        }
    }
}

/// SHA-256 over all that the file says.
fn checksum(identity: &str, position: &str, tensors: &BTreeMap<&'static str, Vec<f32>>) -> String {
    let mut sha = Sha256::new();
    sha.update(format!("{identity}\n{position}\n"));
    for (name, values) in tensors {
        sha.update(format!("{name} {}\n", values.len()));
        sha.update(bytemuck::cast_slice(values));
    }
    hex(sha.finalize())
}

fn write(path: &Path, identity: &Identity, state: &State) -> Result<()> {
    let json = |e: serde_json::Error| Error::Internal(format!("checkpoint: {e}"));
    let identity = serde_json::to_string(identity).map_err(json)?;
    let position = serde_json::to_string(&state.position).map_err(json)?;
    let sum = checksum(&identity, &position, &state.tensors);
    let shapes: Vec<_> = state
        .tensors
        .iter()
        .map(|(name, values)| ((*name).to_owned(), Dtype::F32, vec![values.len()]))
        .collect();
    let (infos, _) = container::lay_out(&shapes)
        .ok_or_else(|| Error::Internal("the tensors are too large to address".into()))?;
    let metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("version", VERSION.to_owned()),
        ("run", identity),
        ("position", position),
        ("sha256", sum),
    ]);
    let header = container::encode_header(&infos, &metadata, 0)?;
    output::replace_file(path, |file| {
        let mut all = || {
            file.write_all(&header)?;
            state.tensors.values().try_for_each(|values| file.write_all(bytemuck::cast_slice(values)))
        };
        all().map_err(Error::io(path))
    })
}

/// Reads a checkpoint; nothing in it is trusted.
fn read(path: &Path) -> Result<(Identity, State)> {
    let bad = |what: &str| Error::format(path, what);
    let length = fs::metadata(path).map_err(Error::io(path))?.len();
    if length > FILE_BYTES_MAX {
        return Err(bad("larger than 1.3 GB: not a checkpoint"));
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let header = Header::of_bytes(path, &bytes)?;
    let get = |key: &str| header.metadata.get(key).ok_or_else(|| bad(&format!("no `{key}` in its metadata")));
    if get("format")? != FORMAT || get("version")? != VERSION {
        return Err(bad("not a checkpoint, or of another version of trimtab"));
    }
    let mut tensors = BTreeMap::new();
    for (name, info) in &header.tensors {
        let known = TENSORS.into_iter().find(|known| known == name);
        let start = header.data_start as usize;
        let data = &bytes[start + info.data_offsets.0..start + info.data_offsets.1];
        match (known, floats(info.dtype, data).filter(|_| info.dtype == Dtype::F32)) {
            (Some(known), Some(values)) => tensors.insert(known, values),
            _ => return Err(Error::tensor(path, name, "is none of a checkpoint's")),
        };
    }
    let (identity, position) = (get("run")?, get("position")?);
    if *get("sha256")? != checksum(identity, position, &tensors) {
        return Err(bad("damaged: its SHA-256 is another than it says"));
    }
    let json = |text: &str, e: serde_json::Error| bad(&format!("metadata `{text}`: {e}"));
    let identity: Identity = serde_json::from_str(identity).map_err(|e| json("run", e))?;
    let position: Position = serde_json::from_str(position).map_err(|e| json("position", e))?;
    Ok((identity, State { position, tensors }))
}
