//! The ONNX file that a base was made from, written again with a personal model's biases and head.
//!
//! Weights and nodes of the encoder are copied as they are, in whatever precision; biases (and gains) that differ are
//! replaced by the model's, in the type that the file has for them. What only led to the file's own outputs is left out,
//! and pooling and head are appended, with the outputs that [`super::onnx`] has.

use super::onnx::{Weights, Wiring, check_length, metadata};
use super::onnx_graph::{Built, Element, GraphBuilder, entries};
use super::{Merged, Report, companions};
use crate::config::Pooling;
use crate::error::{Error, Result};
use crate::import::Piece;
use crate::import::onnx::{Dtype, Kind, Origin, Part, Vector};
use crate::model::Model;
use crate::output;
use crate::params::Term;
use crate::protobuf::Message;
use crate::quant::{Base, quantize_row};
use half::{bf16, f16};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufWriter, Write};
use std::path::Path;

/// The first with axes as inputs, as what is appended has them.
const OLDEST_OPSET: u64 = 13;
/// Bytes copied at a time.
const PIECE: usize = 1 << 16;
/// What the names of what is appended begin with.
const PREFIX: &str = "trimtab/";

/// Writes the file `out` after the ONNX file `from`, from whose weights the model's base was made, and what stands beside it.
///
/// Errors: `Error::Format`, `Error::Unsupported` and `Error::Tensor` where `from` is broken or not understood;
/// `Error::Config` where it is not what the base was made from, or cannot take the biases, naming the tensor.
pub fn export(model: &Model, from: &Path, out: &Path) -> Result<Report> {
    let m = Merged::of(model)?;
    let origin = Origin::open(from)?;
    let fail = |what: String| Err(Error::Config(format!("{}: {what}", from.display())));
    if let Some(what) = differs(m.base, &origin)? {
        return fail(format!("its {what}; --from takes the file that the base was made from"));
    }
    if origin.opset < OLDEST_OPSET {
        return fail(format!("opset {}; a head is appended from {OLDEST_OPSET} on", origin.opset));
    }
    let mut w =
        Wiring { m: &m, g: GraphBuilder::within(PREFIX), weights: Weights::Floats, mask: &origin.mask };
    let patches = patches(&m, &origin)?;
    let vectors: BTreeMap<&str, Vector> = origin.vectors().map(|v| (v.name, v)).collect();
    for (name, values) in &patches {
        let (element, bytes) = stored(vectors[name.as_str()].dtype, values);
        w.g.patch(name, element, vectors[name.as_str()].dims, bytes);
    }
    let through_pooler = m.pooling == Pooling::Cls;
    let read = match through_pooler {
        true => behind(&m, &origin, Term::Pooler, 0)?,
        false => behind(&m, &origin, Term::Ln2, m.config().layers - 1)?,
    };
    w.g.scope("pooler");
    let floats = w.floats_of(&read);
    let pooled = match through_pooler {
        true => {
            // The file may still have the axis of the one token.
            let rows = w.g.indices(&[-1, m.config().hidden as i64]);
            let y = w.g.op("Reshape", &[&floats, &rows], &[]);
            w.pooler_activation(&y)
        }
        false => w.pooled(&floats)?,
    };
    let outputs = w.outputs(&pooled)?;
    let live = Live::of(&origin.graph, &read);
    if let Some(taken) =
        live.names.iter().find(|n| n.starts_with(PREFIX) || outputs.split(", ").any(|o| o == **n))
    {
        return fail(format!("the encoder has a value called `{taken}`, as what is appended would be"));
    }
    let kept: Vec<&Part> = origin.graph.iter().filter(|p| live.keeps(p, &patches)).collect();
    let is_elsewhere = |p: &&&Part| matches!(p.kind, Kind::Tensor { is_external: true, .. });
    if kept.iter().any(|p| is_elsewhere(&p)) && !same_folder(from, out) {
        return fail(
            "its weights lie in another file beside it, so --output must be in the same folder".into(),
        );
    }
    let metadata = metadata(&m)?;
    let is_told =
        |p: &&Part| matches!(&p.kind, Kind::Metadata(key) if metadata.iter().any(|(k, _)| k == key));
    let model = origin.model.iter().filter(|p| !is_told(p)).collect();
    let file = Patched { origin: &origin, model, kept, added: w.g.part(), metadata: entries(&metadata) };
    let bytes = file.bytes();
    check_length(bytes)?;
    drop(output::reserve(out, bytes)?);
    output::write_file(out, |to| file.write(to, out))?;
    let beside = companions::write(&m, out)?;
    Ok(Report { what: outputs, bytes, beside })
}

/// What of the file is not the base's, once it is rounded as the base's weights were.
fn differs(base: &Base, origin: &Origin) -> Result<Option<String>> {
    if base.config() != &origin.config || origin.has_pooler && !base.has_pooler() {
        return Ok(Some("sizes are not the base's".into()));
    }
    for spec in &origin.specs {
        let mut same = true;
        if spec.shape.len() == 1 {
            let values = base.vector(&spec.name)?;
            origin.read(&spec.name, &mut |piece, _| {
                same &= matches!(piece, Piece::F32(v) if v == values);
                Ok(())
            })?;
        } else {
            let (matrix, cols) = (base.matrix(&spec.name)?, spec.shape[1]);
            let mut row = 0;
            let mut rounded = vec![0; cols];
            origin.read(&spec.name, &mut |piece, _| {
                let mut check = |q: &[i8], scale: f32| {
                    same &= matrix.scale()[row] == scale && matrix.row(row).eq(q.iter().copied());
                    row += 1;
                };
                match piece {
                    Piece::Int8 { q, scale } => {
                        q.chunks_exact(cols).zip(scale).for_each(|(q, scale)| check(q, *scale));
                    }
                    Piece::F32(values) => values.chunks_exact(cols).for_each(|values| {
                        let scale = quantize_row(values, &mut rounded);
                        check(&rounded, scale);
                    }),
                }
                Ok(())
            })?;
        }
        if !same {
            return Ok(Some(format!("`{}` is not the base's", spec.name)));
        }
    }
    Ok(None)
}

/// The biases and gains that are not the file's, by their names there.
fn patches(m: &Merged, origin: &Origin) -> Result<BTreeMap<String, Vec<f32>>> {
    let (mut all, mut patches) = (BTreeMap::<&str, (&str, Vec<f32>)>::new(), BTreeMap::new());
    for Vector { canonical, name, .. } in origin.vectors() {
        let values = m.vector(canonical)?;
        if let Some((other, known)) = all.get(name) {
            if *known != values {
                let (path, other) = (origin.path(), (*other).to_owned());
                let what = format!(
                    "it is both `{other}` and `{canonical}`, which differ now; export without --from"
                );
                return Err(Error::tensor(path, name, what));
            }
            continue;
        }
        if values != m.base.vector(canonical)? {
            patches.insert(name.to_owned(), values.clone());
        }
        all.insert(name, (canonical, values));
    }
    Ok(patches)
}

/// Values in the file's type.
fn stored(dtype: Dtype, values: &[f32]) -> (Element, Vec<u8>) {
    match dtype {
        Dtype::F16 => (Element::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
        Dtype::Bf16 => {
            (Element::Bf16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect())
        }
        _ => (Element::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    }
}

/// The value that comes of adding a bias, and nothing else.
fn behind(m: &Merged, origin: &Origin, term: Term, layer: usize) -> Result<String> {
    let canonical = format!("{}.bias", term.module(m.config().family, layer));
    let bias = origin.vectors().find(|v| v.canonical == canonical).map(|v| v.name);
    let mut name = bias.ok_or_else(|| {
        let what = format!("{}: it has no `{canonical}`; export without --from", origin.path().display());
        Error::Config(what)
    })?;
    loop {
        let mut readers = origin.graph.iter().filter_map(|p| match &p.kind {
            Kind::Node { op, inputs, outputs } if inputs.iter().any(|i| i == name) => {
                Some((op, outputs.first()?))
            }
            _ => None,
        });
        match (readers.next(), readers.next()) {
            (Some((op, output)), None) => {
                name = output;
                if !matches!(op.as_str(), "Cast" | "Identity") {
                    return Ok(name.to_owned());
                }
            }
            _ => {
                let what = format!("`{canonical}` is not read by one node; export without --from");
                return Err(Error::tensor(origin.path(), name, what));
            }
        }
    }
}

/// What leads to a value of a graph.
struct Live<'a> {
    names: HashSet<&'a str>,
}

impl<'a> Live<'a> {
    fn of(graph: &'a [Part], wanted: &'a str) -> Live<'a> {
        let mut names = HashSet::from([wanted]);
        // Nodes come behind those that they read from.
        for part in graph.iter().rev() {
            if let Kind::Node { inputs, outputs, .. } = &part.kind
                && outputs.iter().any(|o| names.contains(o.as_str()))
            {
                names.extend(inputs.iter().chain(outputs).map(String::as_str).filter(|n| !n.is_empty()));
            }
        }
        Live { names }
    }

    /// Whether a field of the graph stays.
    fn keeps(&self, part: &Part, patches: &BTreeMap<String, Vec<f32>>) -> bool {
        match &part.kind {
            Kind::Node { outputs, .. } => {
                outputs.iter().any(|o| self.names.contains(o.as_str()) && !patches.contains_key(o))
            }
            Kind::Tensor { name, .. } => self.names.contains(name.as_str()) && !patches.contains_key(name),
            Kind::Input(name) | Kind::Between(name) => self.names.contains(name.as_str()),
            Kind::Output => false,
            Kind::Metadata(_) | Kind::Other => true,
        }
    }
}

fn same_folder(from: &Path, out: &Path) -> bool {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().ok()
    };
    folder(from).is_some_and(|f| Some(f) == folder(out))
}

/// The file to be written.
struct Patched<'a> {
    origin: &'a Origin,
    /// Fields of the model that are copied.
    model: Vec<&'a Part>,
    /// Fields of the graph that are copied.
    kept: Vec<&'a Part>,
    added: Built,
    metadata: Message,
}

impl Patched<'_> {
    fn numbers(&self) -> Message {
        self.origin.numbers.iter().fold(Message::new(), |m, (field, n)| m.int(*field, *n as i64))
    }

    fn graph_bytes(&self) -> u64 {
        self.kept.iter().map(|p| p.bytes()).sum::<u64>() + self.added.bytes()
    }

    /// Length of the file.
    fn bytes(&self) -> u64 {
        let head = [self.numbers(), self.metadata.clone(), Message::new().open(7, self.graph_bytes())];
        let head: usize = head.iter().map(|m| m.as_bytes().len()).sum();
        head as u64 + self.model.iter().map(|p| p.bytes()).sum::<u64>() + self.graph_bytes()
    }

    fn write(&self, to: &mut dyn Write, out: &Path) -> Result<()> {
        let mut to = BufWriter::new(to);
        let io = || Error::io(out);
        to.write_all(self.numbers().as_bytes()).map_err(io())?;
        for part in &self.model {
            self.copy(part, &mut to, out)?;
        }
        to.write_all(self.metadata.as_bytes()).map_err(io())?;
        to.write_all(Message::new().open(7, self.graph_bytes()).as_bytes()).map_err(io())?;
        for part in &self.kept {
            self.copy(part, &mut to, out)?;
        }
        self.added.write(&mut to).map_err(io())?;
        to.flush().map_err(io())
    }

    fn copy(&self, part: &Part, to: &mut dyn Write, out: &Path) -> Result<()> {
        to.write_all(part.header().as_bytes()).map_err(Error::io(out))?;
        let mut piece = vec![0; PIECE.min(part.len as usize)];
        let mut at = 0;
        while at < part.len {
            let n = piece.len().min((part.len - at) as usize);
            self.origin.bytes(part.at + at, &mut piece[..n])?;
            to.write_all(&piece[..n]).map_err(Error::io(out))?;
            at += n as u64;
        }
        Ok(())
    }
}

impl Part {
    fn header(&self) -> Message {
        Message::new().open(self.field, self.len)
    }

    /// Length of the field, its number and length included.
    fn bytes(&self) -> u64 {
        self.header().as_bytes().len() as u64 + self.len
    }
}
