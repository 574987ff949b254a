//! The one bridge between our fused ops and tract: an op written as "fill these outputs", seen as a `TypedOp`.
//!
//! This folder is the only one that runs tract.

use crate::ops::{Values, ValuesMut};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tract_core::internal::*;
use tract_core::prelude::tract_ndarray::{ArrayView2, ArrayViewMut2, Ix2};

/// What an outlet of an op looks like: element type and symbolic shape.
pub(super) type Outlet = (DatumType, TVec<TDim>);

/// An op of the graph.
///
/// Its inputs are first activations, then the plan's own inputs (tokens, offsets, keys, theta) that it needs.
/// Its first outlets are the activations handed on; the others are what the backward needs, and are there only
/// when `save` is set. Shapes are fixed when the model is built, so a model that does not fit fails then.
pub(super) trait FusedOp: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    /// How many outlets are handed on.
    fn activations(&self) -> usize {
        1
    }
    fn outlets(&self, save: bool) -> Vec<Outlet>;
    /// Fills every value of the outputs; what stands there before is arbitrary.
    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()>;
}

/// Tensors whose values are used up, for the next op whose output has their size.
///
/// The layers of an encoder have the same shapes, so most outputs find memory that is mapped and warm. Tensors of a
/// number of rows that no run has any longer are dropped when the next run starts: texts are ragged, and memory of
/// every size there ever was would add up.
#[derive(Debug, Default)]
pub(super) struct Recycled {
    /// Rows of the runs that go on.
    running: Vec<usize>,
    tensors: Vec<Tensor>,
}

/// A run that goes on: keeps the tensors of its size.
#[derive(Debug)]
pub(crate) struct Running {
    recycled: Arc<Mutex<Recycled>>,
    rows: usize,
}

impl Running {
    pub(super) fn start(recycled: &Arc<Mutex<Recycled>>, rows: usize) -> Running {
        let mut r = lock(recycled);
        r.running.push(rows);
        let Recycled { running, tensors } = &mut *r;
        tensors.retain(|t| running.contains(&t.shape()[0]));
        Running { recycled: recycled.clone(), rows }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut r = lock(&self.recycled);
        if let Some(i) = r.running.iter().position(|rows| *rows == self.rows) {
            r.running.swap_remove(i);
        }
    }
}

pub(super) fn lock(recycled: &Mutex<Recycled>) -> MutexGuard<'_, Recycled> {
    recycled.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recycled {
    /// A tensor whose values are whatever they are, where one of this size is there.
    fn take(&mut self, dt: DatumType, shape: &[usize]) -> TractResult<Tensor> {
        let len: usize = shape.iter().product();
        match self.tensors.iter().rposition(|t| t.datum_type() == dt && t.len() == len) {
            Some(i) => self.tensors.swap_remove(i).into_shape(shape),
            None => Tensor::zero_dt(dt, shape),
        }
    }

    /// Takes over the memory of a value that nobody else holds. Only of `[rows, …]`: theta and the other inputs,
    /// which no op has as outputs, would pile up.
    pub fn put(&mut self, value: TValue) {
        let of_rows = value.shape().first().is_some_and(|rows| self.running.contains(rows));
        if of_rows && value.is_exclusive() {
            self.tensors.push(value.into_tensor());
        }
    }
}

/// An op instance in one plan. The inference plan and the training plan share the instance.
#[derive(Clone, Debug)]
pub(super) struct Shim {
    pub op: Arc<dyn FusedOp>,
    pub save: bool,
    pub recycled: Arc<Mutex<Recycled>>,
}

// Equality by identity: tract merges ops that compare equal, and two Linears of one shape are not the same op.
impl PartialEq for Shim {
    fn eq(&self, other: &Shim) -> bool {
        Arc::ptr_eq(&self.op, &other.op) && self.save == other.save
    }
}

impl Eq for Shim {}

impl Op for Shim {
    fn name(&self) -> StaticName {
        self.op.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Shim {
    not_out_of_plan!(); // so that it is never folded into a constant

    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut outputs: TVec<Tensor> = tvec!();
        for (dt, shape) in self.op.outlets(self.save) {
            let mut concrete: TVec<usize> = tvec!();
            for dim in &shape {
                concrete.push(dim.eval(ctx.symbols).to_usize()?);
            }
            outputs.push(lock(&self.recycled).take(dt, &concrete)?);
        }
        self.op.run(&inputs, &mut outputs)?;
        inputs.into_iter().for_each(|value| lock(&self.recycled).put(value));
        Ok(outputs.into_iter().map(Tensor::into_tvalue).collect())
    }
}

impl TypedOp for Shim {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.op.outlets(self.save).into_iter().map(|(dt, shape)| dt.fact(shape)).collect())
    }

    as_op!();
}

/// Hands its inputs on. A plan frees what nodes give node by node, and never frees an output; so what is saved for the
/// backward leaves through a node of its own, or the activations beside it would stay until the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keep;

impl Op for Keep {
    fn name(&self) -> StaticName {
        "Keep".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Keep {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }
}

impl TypedOp for Keep {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(inputs.iter().map(|fact| (*fact).clone()).collect())
    }

    as_op!();
}

pub(super) fn matrix<T: Datum>(t: &Tensor) -> TractResult<ArrayView2<'_, T>> {
    Ok(t.to_plain_array_view::<T>()?.into_dimensionality::<Ix2>()?)
}

pub(super) fn values<T: Datum>(t: &Tensor) -> TractResult<&[T]> {
    t.try_as_plain_ram()?.as_slice::<T>()
}

pub(super) fn matrix_mut(t: &mut Tensor) -> TractResult<ArrayViewMut2<'_, f32>> {
    Ok(t.to_plain_array_view_mut::<f32>()?.into_dimensionality::<Ix2>()?)
}

fn slice_mut<T: Datum>(t: &mut Tensor) -> TractResult<&mut [T]> {
    t.to_plain_array_view_mut::<T>()?.into_slice().context("row-major tensor")
}

/// An outlet of an activation or of a saved tensor, being filled. Bytes are quantized rows.
pub(super) fn typed_mut(t: &mut Tensor) -> TractResult<ValuesMut<'_>> {
    Ok(match t.datum_type() {
        DatumType::F32 => ValuesMut::F32(slice_mut(t)?),
        DatumType::F16 => ValuesMut::F16(slice_mut(t)?),
        DatumType::U8 => ValuesMut::U8(slice_mut(t)?),
        DatumType::I8 => {
            let blocks = bytemuck::try_cast_slice_mut(slice_mut::<i8>(t)?);
            ValuesMut::I8(blocks.map_err(|e| format_err!("quantized rows: {e}"))?)
        }
        other => bail!("no op writes {other:?}"),
    })
}

/// The same, being read.
pub(super) fn typed(t: &Tensor) -> TractResult<Values<'_>> {
    Ok(match t.datum_type() {
        DatumType::F32 => Values::F32(values(t)?),
        DatumType::F16 => Values::F16(values(t)?),
        DatumType::U8 => Values::U8(values(t)?),
        DatumType::I8 => {
            let blocks = bytemuck::try_cast_slice(values::<i8>(t)?);
            Values::I8(blocks.map_err(|e| format_err!("quantized rows: {e}"))?)
        }
        other => bail!("no op reads {other:?}"),
    })
}
