//! A safetensors file of f32 tensors, written matrix by matrix: no more than a row of the model is in memory.

use crate::container;
use crate::error::{Error, Result};
use crate::quant::QMatrix;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

/// Values of a tensor.
pub(super) enum Values {
    /// As they are.
    Floats(Vec<f32>),
    /// To be dequantized.
    Matrix(QMatrix),
}

/// A tensor: its name, its shape and its values.
pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// Writes the header and all tensors; equal content gives equal bytes.
pub(super) fn write(tensors: &[Tensor], to: &mut dyn Write) -> std::io::Result<()> {
    let mut to = BufWriter::new(to);
    to.write_all(&header(tensors).map_err(|e| std::io::Error::other(e.to_string()))?)?;
    for tensor in tensors {
        match &tensor.values {
            Values::Floats(values) => to.write_all(bytemuck::cast_slice(values))?,
            Values::Matrix(matrix) => {
                let mut row = vec![0.0; matrix.cols()];
                for r in 0..matrix.rows() {
                    matrix.dequantize_row(r, &mut row);
                    to.write_all(bytemuck::cast_slice(&row))?;
                }
            }
        }
    }
    to.flush()
}

/// Length of the file.
pub(super) fn bytes(tensors: &[Tensor]) -> Result<u64> {
    let values: usize = tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
    Ok(header(tensors)?.len() as u64 + 4 * values as u64)
}

fn header(tensors: &[Tensor]) -> Result<Vec<u8>> {
    let shapes: Vec<_> = tensors.iter().map(|t| (t.name.clone(), Dtype::F32, t.shape.clone())).collect();
    let (infos, _) = container::lay_out(&shapes)
        .ok_or_else(|| Error::Internal("the tensors are too large to address".into()))?;
    // transformers refuses a file that does not say `pt`.
    container::encode_header(&infos, &BTreeMap::from([("format", "pt".to_owned())]), 0)
}
