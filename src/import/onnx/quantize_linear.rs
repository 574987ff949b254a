//! `QuantizeLinear` with a scale that is computed while the model runs.
//!
//! tract reads this operator only if scale and zero point are constants. `trimtab export --format onnx-int8` computes both from
//! each token. Here the operator becomes what ONNX defines it to be:
//! `y = saturate(round_half_to_even(x / scale) + zero_point)`.

use tract_core::internal::*;
use tract_core::ops::cast::cast;
use tract_core::ops::math::{add, div, max, min, round_half_to_even};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// The operator's name.
pub(super) const NAME: &str = "QuantizeLinear";

/// Reads the node.
pub(super) fn read(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    ensure!(node.get_attr_opt::<i64>("block_size")?.unwrap_or(0) == 0, "blocked quantization is not read");
    ensure!(
        node.get_attr_opt::<i64>("output_dtype")?.unwrap_or(0) == 0,
        "the attribute output_dtype is not read"
    );
    let axis = node.get_attr_opt("axis")?.unwrap_or(1);
    Ok((expand(QuantizeLinear { axis, has_zero: node.input.len() == 3 }), vec![]))
}

/// The operator. A scale is a scalar, or has one value for each index of `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct QuantizeLinear {
    axis: i64,
    has_zero: bool,
}

impl QuantizeLinear {
    /// Scale or zero point in f32, with the rank of `x`, so that it broadcasts along the axis.
    fn along_axis(
        &self,
        name: &str,
        target: &mut TypedModel,
        value: OutletId,
        rank: usize,
    ) -> TractResult<OutletId> {
        let mut wire = target.wire_node(format!("{name}.cast"), cast(f32::datum_type()), &[value])?[0];
        let own = target.outlet_fact(value)?.rank();
        let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
        ensure!(own <= 1, "a scale of rank {own}; expected 0 or 1");
        ensure!(
            own == 0 || (0..rank as i64).contains(&axis),
            "axis {} of a tensor of rank {rank}",
            self.axis
        );
        for i in own..rank {
            // `axis` ones before the values, the rest behind them.
            let at = if own == 1 && i as i64 <= axis { 0 } else { i };
            wire = target.wire_node(format!("{name}.axis{i}"), AxisOp::Add(at), &[wire])?[0];
        }
        Ok(wire)
    }
}

impl Expansion for QuantizeLinear {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.has_zero))?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[1].datum_type, f32::datum_type())?;
        match self.has_zero {
            true => s.equals(&outputs[0].datum_type, &inputs[2].datum_type)?,
            false => s.equals(&outputs[0].datum_type, u8::datum_type())?,
        }
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        target: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let to = match self.has_zero {
            true => target.outlet_fact(inputs[2])?.datum_type,
            false => u8::datum_type(),
        };
        let (low, high) = match to {
            DatumType::U8 => (f32::from(u8::MIN), f32::from(u8::MAX)),
            DatumType::I8 => (f32::from(i8::MIN), f32::from(i8::MAX)),
            other => bail!("QuantizeLinear to {other:?} is not read; expected u8 or i8"),
        };
        let rank = target.outlet_fact(inputs[0])?.rank();
        let x = target.wire_node(format!("{prefix}.x"), cast(f32::datum_type()), &[inputs[0]])?[0];
        let scale = self.along_axis(&format!("{prefix}.scale"), target, inputs[1], rank)?;
        let mut y = target.wire_node(format!("{prefix}.div"), div(), &[x, scale])?;
        y = target.wire_node(format!("{prefix}.round"), round_half_to_even(), &y)?;
        if self.has_zero {
            let zero = self.along_axis(&format!("{prefix}.zero"), target, inputs[2], rank)?;
            y = target.wire_node(format!("{prefix}.add"), add(), &[y[0], zero])?;
        }
        for (name, op, bound) in [("max", max(), low), ("min", min(), high)] {
            let bound = tensor0(bound).broadcast_into_rank(rank)?;
            let bound = target.add_const(format!("{prefix}.{name}.bound"), bound)?;
            y = target.wire_node(format!("{prefix}.{name}"), op, &[y[0], bound])?;
        }
        target.wire_node(prefix, cast(to), &y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the operator makes of `x [2, 3]` with a scale and a zero point that are not constants.
    fn quantized<Z: Datum>(
        axis: i64,
        x: [f32; 6],
        scale: Tensor,
        zero: Option<Tensor>,
    ) -> TractResult<Vec<Z>> {
        let mut model = TypedModel::default();
        let x = Tensor::from_shape(&[2, 3], &x)?;
        let values: TVec<Tensor> = [Some(x), Some(scale), zero].into_iter().flatten().collect();
        let source =
            |(i, v): (usize, &Tensor)| model.add_source(format!("input {i}"), v.datum_type().fact(v.shape()));
        let inputs: TVec<OutletId> = values.iter().enumerate().map(source).collect::<TractResult<_>>()?;
        let op = QuantizeLinear { axis, has_zero: inputs.len() == 3 };
        let y = op.wire("y", &mut model, &inputs)?;
        model.select_output_outlets(&y)?;
        let y = model.into_runnable()?.run(values.into_iter().map(Tensor::into_tvalue).collect())?.remove(0);
        Ok(y.to_plain_array_view::<Z>()?.iter().cloned().collect())
    }

    #[test]
    fn as_onnx_defines_it() {
        // One scale; halves go to the even neighbour; what is too large or too small is saturated.
        let x = [0.5, 1.5, 2.5, -9.0, 300.0, 255.4];
        assert_eq!(quantized::<u8>(1, x, tensor0(1f32), None).unwrap(), [0, 2, 2, 0, 255, 255]);
        let zero = Some(tensor0(-10i8));
        assert_eq!(quantized::<i8>(0, x, tensor0(2f32), zero).unwrap(), [-10, -9, -9, -14, 127, 118]);
        // One for each row, or for each column.
        let x = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
        let rows = |axis| quantized::<u8>(axis, x, tensor1(&[1f32, 10.0]), Some(tensor1(&[0u8, 100])));
        assert_eq!(rows(0).unwrap(), [1, 2, 3, 101, 102, 103]);
        assert_eq!(rows(-2).unwrap(), rows(0).unwrap());
        let columns =
            |axis| quantized::<u8>(axis, x, tensor1(&[1f32, 2.0, 3.0]), Some(tensor1(&[0u8, 50, 7])));
        assert_eq!(columns(1).unwrap(), [1, 51, 8, 10, 60, 17]);
        assert_eq!(columns(-1).unwrap(), columns(1).unwrap());
    }

    #[test]
    fn what_it_is_not_defined_for() {
        for (axis, scale, zero) in [
            (2, tensor1(&[1f32, 1.0]), None),
            (-3, tensor1(&[1f32, 1.0]), None),
            (0, tensor2(&[[1f32], [1.0]]), None),
            (0, tensor0(1f32), Some(tensor0(0i32))),
            // As many as there are columns, along the rows.
            (0, tensor1(&[1f32, 1.0, 1.0]), None),
        ] {
            quantized::<u8>(axis, [1.0; 6], scale, zero).unwrap_err();
        }
    }
}
