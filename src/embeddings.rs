//! Texts as vectors: the modules of sentence-transformers behind the pooling, length 1, and a file.

use crate::config::{DenseActivation, Gelu, Module};
use crate::container;
use crate::error::{Error, Result};
use crate::ops::linear::reference_gelu;
use crate::output;
use crate::quant::Base;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// The one tensor of a file of vectors.
const NAME: &str = "embeddings";

/// Makes a vector one of length 1, as sentence-transformers' `Normalize` does; zeros stay.
pub fn normalize(v: &mut [f32]) {
    let length = v.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}

/// The embedding that a base's modules make of a pooled vector `[hidden]`: `[width]`, see [`Module::width`].
///
/// Errors: `Error::Tensor`, `Error::Config` for a vector of another width.
pub(crate) fn apply(base: &Base, mut v: Vec<f32>) -> Result<Vec<f32>> {
    for (i, module) in base.modules().iter().enumerate() {
        match module {
            Module::Normalize => normalize(&mut v),
            Module::Dense { inputs, bias, activation, .. } => {
                if v.len() != *inputs {
                    let has = v.len();
                    return Err(Error::Config(format!(
                        "a vector of {has} values; the Dense module takes {inputs}"
                    )));
                }
                let weight = base.floats(&format!("modules.{i}.linear.weight"))?;
                let bias = if *bias { base.floats(&format!("modules.{i}.linear.bias"))? } else { &[] };
                v = dense(&v, weight, bias, *activation);
            }
        }
    }
    Ok(v)
}

/// `f(W x + b)` in f64, summed in a fixed order: one row a text, beside an encoder's layers it costs little.
///
/// Shapes: `x: [in]`, `weight: [out, in]`, `bias: [out]` or empty.
fn dense(x: &[f32], weight: &[f32], bias: &[f32], activation: DenseActivation) -> Vec<f32> {
    // Eight partial sums, so that the compiler can use vectors.
    let dot = |w: &[f32]| {
        let mut sums = [0f64; 8];
        for (w, x) in w.chunks(8).zip(x.chunks(8)) {
            for (sum, (w, x)) in sums.iter_mut().zip(w.iter().zip(x)) {
                *sum += f64::from(*w) * f64::from(*x);
            }
        }
        sums.iter().sum::<f64>()
    };
    let bias = bias.iter().map(|b| f64::from(*b)).chain(std::iter::repeat(0.0));
    weight.chunks_exact(x.len()).zip(bias).map(|(w, b)| activate(dot(w) + b, activation) as f32).collect()
}

fn activate(x: f64, activation: DenseActivation) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    match activation {
        DenseActivation::Identity => x,
        DenseActivation::Tanh => libm::tanh(x),
        // Not `max`, which would turn NaN into 0.
        DenseActivation::Relu if x < 0.0 => 0.0,
        DenseActivation::LeakyRelu if x < 0.0 => 0.01 * x,
        DenseActivation::Elu if x < 0.0 => libm::expm1(x),
        DenseActivation::Relu | DenseActivation::LeakyRelu | DenseActivation::Elu => x,
        DenseActivation::Gelu => reference_gelu(Gelu::Erf, x).0,
        DenseActivation::Silu => x * sigmoid(x),
        DenseActivation::Sigmoid => sigmoid(x),
    }
}

/// Writes vectors to a safetensors file as the one F32 tensor `embeddings` `[texts, hidden]`: beside `path`, synced, then
/// renamed over it.
///
/// Errors: `Error::Config` for vectors of different widths, or none; `Error::Io`.
pub fn save(path: &Path, vectors: &[Vec<f32>]) -> Result<()> {
    let hidden = vectors.first().map_or(0, Vec::len);
    if hidden == 0 || vectors.iter().any(|v| v.len() != hidden) {
        return Err(Error::Config("a file of vectors needs one or more, all of one width".into()));
    }
    let (infos, _) = container::lay_out(&[(NAME.into(), Dtype::F32, vec![vectors.len(), hidden])])
        .ok_or_else(|| Error::Internal("the vectors are too many to address".into()))?;
    let header = container::encode_header(&infos, &BTreeMap::new(), 0)?;
    output::write_file(path, |file| {
        let mut file = std::io::BufWriter::new(file);
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
        write(&header)?;
        vectors.iter().try_for_each(|v| write(bytemuck::cast_slice(v)))?;
        file.flush().map_err(Error::io(path))
    })
}

/// Reads what [`save`] wrote.
///
/// Errors: `Error::Io`; `Error::Format` for a file that is none of vectors.
pub fn open(path: &Path) -> Result<Vec<Vec<f32>>> {
    let fail = |what: String| Error::format(path, what);
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let all = safetensors::SafeTensors::deserialize(&bytes)
        .map_err(|e| fail(format!("no safetensors file: {e}")))?;
    let tensor = all
        .tensor(NAME)
        .map_err(|_| fail(format!("there is no tensor `{NAME}`; `embed --out` writes it")))?;
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::F32, &[_, hidden]) if hidden > 0 => {
            let value = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
            let rows = tensor.data().chunks_exact(4 * hidden);
            Ok(rows.map(|row| row.chunks_exact(4).map(value).collect()).collect())
        }
        (dtype, shape) => {
            Err(fail(format!("`{NAME}` should be F32 [texts, hidden] but is {dtype:?} {shape:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_vectors_and_none_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        for bad in [vec![], vec![vec![]], vec![vec![1.0], vec![1.0, 2.0]]] {
            assert!(matches!(save(&path, &bad), Err(Error::Config(_))) && !path.exists());
        }
        save(&path, &[vec![1.0, -2.0], vec![3.0, 0.5], vec![0.0, 1e-9]]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let t = all.tensor(NAME).unwrap();
        assert_eq!((t.shape(), t.dtype(), all.len()), (&[3, 2][..], Dtype::F32, 1));
        assert_eq!(t.data()[4..8], (-2f32).to_le_bytes());
        assert_eq!(open(&path).unwrap(), [vec![1.0, -2.0], vec![3.0, 0.5], vec![0.0, 1e-9]]);
        std::fs::write(&path, b"nothing").unwrap();
        assert!(matches!(open(&path), Err(Error::Format { .. })));
    }

    /// `torch.nn.{name}()(torch.tensor([-1.5, 0.25], dtype=torch.float64))`.
    #[test]
    fn activations_as_in_torch() {
        for (name, wanted) in [
            ("Identity", [-1.5, 0.25]),
            ("Tanh", [-0.9051482536448664, 0.24491866240370913]),
            ("ReLU", [0.0, 0.25]),
            ("LeakyReLU", [-0.015, 0.25]),
            ("ELU", [-0.7768698398515702, 0.25]),
            ("GELU", [-0.10021080190328704, 0.14967658142073093]),
            ("SiLU", [-0.2736382857095345, 0.14054412522144952]),
            ("Sigmoid", [0.18242552380635635, 0.5621765008857981]),
        ] {
            let (_, activation) = DenseActivation::ALL.into_iter().find(|(n, _)| *n == name).unwrap();
            for (x, wanted) in [-1.5, 0.25].into_iter().zip(wanted) {
                let y = activate(x, activation);
                assert!((y - wanted).abs() < 1e-15, "{name}({x}) = {y}, not {wanted}");
            }
        }
    }

    #[test]
    fn a_dense_layer_by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let weight: Vec<f32> = (0..18).map(|i| if i < 9 { 1.0 } else { (i - 9) as f32 }).collect();
        assert_eq!(dense(&x, &weight, &[0.5, -1.0], DenseActivation::Identity), [45.5, 239.0]);
        assert_eq!(dense(&x, &weight, &[], DenseActivation::Identity), [45.0, 240.0]);
        assert!(dense(&[f32::NAN], &[1.0], &[], DenseActivation::Relu)[0].is_nan());
    }

    #[test]
    fn length_one() {
        let (mut v, mut zero) = ([3.0, -4.0], [0.0, 0.0]);
        normalize(&mut v);
        normalize(&mut zero);
        assert_eq!((v, zero), ([0.6, -0.8], [0.0, 0.0]));
    }
}
