//! An ONNX graph built node by node, and its file, to which the weights are written one matrix at a time.

use crate::protobuf::{Dim, Message, value_info};
use crate::quant::QMatrix;
use std::collections::BTreeSet;
use std::io::{BufWriter, Write};

/// Of `ai.onnx`: the first with LayerNormalization.
const OPSET: i64 = 17;
/// That of ONNX 1.12, which brought the opset.
const IR_VERSION: i64 = 8;

/// Types of elements, by their numbers in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    I64 = 7,
    #[cfg(feature = "onnx")]
    F16 = 10,
    #[cfg(feature = "onnx")]
    Bf16 = 16,
}

/// How a matrix becomes a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In f32.
    Floats,
    /// Its int8 values alone.
    Int8,
    /// Its int8 values plus 128.
    Uint8,
}

/// Values of a tensor.
enum Data {
    Bytes(Vec<u8>),
    /// `[rows, cols]`, or turned `[cols, rows]`.
    Matrix {
        matrix: QMatrix,
        form: Form,
        turned: bool,
    },
}

/// A constant tensor of the graph.
struct Initializer {
    name: String,
    element: Element,
    dims: Vec<usize>,
    data: Data,
}

/// An attribute of a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
}

/// A graph: values go by their names.
#[derive(Default)]
pub(super) struct GraphBuilder {
    /// Fields of GraphProto that are small: nodes, inputs, outputs.
    fields: Message,
    initializers: Vec<Initializer>,
    constants: BTreeSet<String>,
    /// What the names of constants and values begin with, where the graph is a part of another.
    prefix: &'static str,
    scope: String,
    nodes: usize,
}

impl GraphBuilder {
    /// A part of another graph: its names begin with `prefix`, but for the outputs'.
    #[cfg(feature = "onnx")]
    pub fn within(prefix: &'static str) -> GraphBuilder {
        GraphBuilder { prefix, ..GraphBuilder::default() }
    }

    /// What the names of the next nodes begin with, such as `layer.0`.
    pub fn scope(&mut self, name: impl Into<String>) {
        self.scope = name.into();
    }

    /// A node with one output, whose name it returns.
    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = format!("{}{}/{op}_{}", self.prefix, self.scope, self.nodes);
        self.node(op, inputs, &[&name], attributes);
        name
    }

    /// A node.
    pub fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) {
        let mut node = Message::new();
        for input in inputs {
            node = node.text(1, input);
        }
        for output in outputs {
            node = node.text(2, output);
        }
        node = node.text(3, &format!("{}{}/{op}_{}.node", self.prefix, self.scope, self.nodes)).text(4, op);
        for (name, value) in attributes {
            let attribute = Message::new().text(1, name);
            let attribute = match value {
                Attribute::Float(v) => attribute.float(2, *v).int(20, 1),
                Attribute::Int(v) => attribute.int(3, *v).int(20, 2),
                Attribute::Ints(v) => v.iter().fold(attribute, |a, v| a.int(8, *v)).int(20, 7),
            };
            node = node.message(5, &attribute);
        }
        self.fields = std::mem::take(&mut self.fields).message(1, &node);
        self.nodes += 1;
    }

    /// An input of the graph.
    pub fn input(&mut self, name: &str, element: Element, dims: &[Dim]) {
        self.fields = std::mem::take(&mut self.fields).message(11, &value_info(name, element as i64, dims));
    }

    /// An output of the graph; a node must have it.
    pub fn output(&mut self, name: &str, element: Element, dims: &[Dim]) {
        self.fields = std::mem::take(&mut self.fields).message(12, &value_info(name, element as i64, dims));
    }

    /// Constant values in f32.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.initializer(name, Element::F32, dims, bytemuck::cast_slice(values))
    }

    /// A constant tensor from its bytes. A name is one tensor: the second time it is that of the first.
    pub fn initializer(&mut self, name: &str, element: Element, dims: &[usize], bytes: &[u8]) -> String {
        self.push(name, element, dims, || Data::Bytes(bytes.to_vec()))
    }

    /// A matrix `[rows, cols]`, or turned `[cols, rows]`.
    pub fn matrix(&mut self, name: &str, matrix: &QMatrix, form: Form, turned: bool) -> String {
        let dims = match turned {
            false => [matrix.rows(), matrix.cols()],
            true => [matrix.cols(), matrix.rows()],
        };
        let element = match form {
            Form::Floats => Element::F32,
            Form::Int8 => Element::I8,
            Form::Uint8 => Element::U8,
        };
        self.push(name, element, &dims, || Data::Matrix { matrix: matrix.clone(), form, turned })
    }

    /// A scalar.
    pub fn scalar(&mut self, value: f32) -> String {
        self.floats(&format!("f32 {value}"), &[], &[value])
    }

    /// A scalar whole number.
    pub fn index(&mut self, value: i64) -> String {
        self.initializer(&format!("i64 {value}"), Element::I64, &[], &value.to_le_bytes())
    }

    /// A list of whole numbers.
    pub fn indices(&mut self, values: &[i64]) -> String {
        self.initializer(
            &format!("i64 {values:?}"),
            Element::I64,
            &[values.len()],
            bytemuck::cast_slice(values),
        )
    }

    fn push(&mut self, name: &str, element: Element, dims: &[usize], data: impl FnOnce() -> Data) -> String {
        let name = format!("{}{name}", self.prefix);
        if self.constants.insert(name.clone()) {
            let initializer = Initializer { name: name.clone(), element, dims: dims.to_vec(), data: data() };
            self.initializers.push(initializer);
        }
        name
    }

    /// A constant of the graph that this is a part of, by the name it has there.
    #[cfg(feature = "onnx")]
    pub fn patch(&mut self, name: &str, element: Element, dims: &[usize], bytes: Vec<u8>) {
        let data = Data::Bytes(bytes);
        self.initializers.push(Initializer { name: name.to_owned(), element, dims: dims.to_vec(), data });
    }

    /// What was built, to be written into another graph.
    pub fn part(self) -> Built {
        let tensors = self.initializers.into_iter().map(|i| (i.header(), i)).collect();
        Built { graph: self.fields, tensors }
    }

    /// The model to be written, with `metadata`.
    pub fn finish(self, name: &str, metadata: &[(&str, String)]) -> ModelProto {
        let mut built = self.part();
        built.graph = built.graph.text(2, name);
        let graph_bytes = built.bytes();
        let mut head =
            Message::new().int(1, IR_VERSION).text(2, "trimtab").text(3, env!("CARGO_PKG_VERSION"));
        head = head.message(8, &Message::new().text(1, "").int(2, OPSET));
        head = head.followed_by(&entries(metadata));
        // Fields may stand in any order, so the long one is last.
        let head = head.open(7, graph_bytes);
        ModelProto { bytes: head.as_bytes().len() as u64 + graph_bytes, head, built }
    }
}

/// Fields of ModelProto that hold its metadata.
pub(super) fn entries(metadata: &[(&str, String)]) -> Message {
    let entry = |m: Message, (key, value): &(&str, String)| {
        m.message(14, &Message::new().text(1, key).text(2, value))
    };
    metadata.iter().fold(Message::new(), entry)
}

/// Fields of a GraphProto, its matrices still where they were.
pub(super) struct Built {
    graph: Message,
    tensors: Vec<(Message, Initializer)>,
}

impl Built {
    /// Length of them all.
    pub fn bytes(&self) -> u64 {
        let bytes = |(header, i): &(Message, Initializer)| header.as_bytes().len() as u64 + i.bytes();
        self.graph.as_bytes().len() as u64 + self.tensors.iter().map(bytes).sum::<u64>()
    }

    /// Writes them.
    pub fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        to.write_all(self.graph.as_bytes())?;
        for (header, initializer) in &self.tensors {
            to.write_all(header.as_bytes())?;
            initializer.write(to)?;
        }
        Ok(())
    }
}

impl Initializer {
    /// Bytes of its values.
    fn bytes(&self) -> u64 {
        match &self.data {
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Matrix { matrix, form, .. } => {
                let width = if *form == Form::Floats { 4 } else { 1 };
                matrix.rows() as u64 * matrix.cols() as u64 * width
            }
        }
    }

    /// The field of GraphProto that it is, up to its values.
    fn header(&self) -> Message {
        let tensor = self.dims.iter().fold(Message::new(), |t, d| t.int(1, *d as i64));
        let tensor = tensor.int(2, self.element as i64).text(8, &self.name).open(9, self.bytes());
        let inside = Message::new().open(5, tensor.as_bytes().len() as u64 + self.bytes());
        inside.followed_by(&tensor)
    }

    fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let (matrix, form, turned) = match &self.data {
            Data::Bytes(bytes) => return to.write_all(bytes),
            Data::Matrix { matrix, form, turned } => (matrix, *form, *turned),
        };
        let (rows, cols) = (matrix.rows(), matrix.cols());
        if !turned {
            return (0..rows).try_for_each(|r| {
                let row: Vec<i8> = matrix.row(r).collect();
                write_values(to, form, row.iter().map(|q| (*q, matrix.scale()[r])))
            });
        }
        let mut turned = vec![0i8; rows * cols];
        for r in 0..rows {
            matrix.row(r).enumerate().for_each(|(c, q)| turned[c * rows + r] = q);
        }
        turned.chunks_exact(rows).try_for_each(|column| {
            write_values(to, form, column.iter().copied().zip(matrix.scale().iter().copied()))
        })
    }
}

/// Writes values `q · scale`, or `q` alone.
fn write_values(
    to: &mut dyn Write,
    form: Form,
    values: impl Iterator<Item = (i8, f32)>,
) -> std::io::Result<()> {
    match form {
        Form::Int8 => to.write_all(&values.map(|(q, _)| q as u8).collect::<Vec<_>>()),
        Form::Uint8 => to.write_all(&values.map(|(q, _)| q as u8 ^ 128).collect::<Vec<_>>()),
        Form::Floats => {
            let floats: Vec<f32> = values.map(|(q, scale)| f32::from(q) * scale).collect();
            to.write_all(bytemuck::cast_slice(&floats))
        }
    }
}

/// A whole ONNX file, its matrices still where they were.
pub(super) struct ModelProto {
    head: Message,
    built: Built,
    /// Length of the file.
    pub bytes: u64,
}

impl ModelProto {
    /// Writes the file.
    pub fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let mut to = BufWriter::new(to);
        to.write_all(self.head.as_bytes())?;
        self.built.write(&mut to)?;
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_is_written() {
        let mut g = GraphBuilder::default();
        g.input("x", Element::F32, &[Dim::Named("batch"), Dim::Fixed(3)]);
        let m = QMatrix::linear(2, 3, &[1, -2, 3, 4, 5, -6], vec![0.5, 2.0]);
        let w = g.matrix("w", &m, Form::Floats, true);
        let q = g.matrix("q", &m, Form::Int8, true);
        assert_eq!(g.matrix("q", &m, Form::Int8, true), q, "one tensor a name");
        let y = g.op("MatMul", &["x", &w], &[]);
        g.node("Transpose", &[&y], &["y"], &[("perm", Attribute::Ints(&[1, 0]))]);
        g.output("y", Element::F32, &[Dim::Fixed(2), Dim::Named("batch")]);
        let model = g.finish("test", &[("key", "value".into())]);
        let mut file = Vec::new();
        model.write(&mut file).unwrap();
        assert_eq!(file.len() as u64, model.bytes);
        // Turned: column after column.
        let floats: Vec<u8> =
            [0.5f32, 8.0, -1.0, 10.0, 1.5, -12.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(file.windows(floats.len()).any(|w| w == floats));
        assert_eq!(&file[file.len() - 6..], [1, 4, -2i8 as u8, 5, 3, -6i8 as u8]);
    }
}
