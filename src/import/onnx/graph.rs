//! tract's view of a skeleton: parsed, typed and decluttered, so that exporters' ways of saying the same look the same.
//!
//! LayerNorm, fused or not, has become `x − mean(x)`, `RmsNorm`, a product and a sum; every product of matrices an
//! `EinSum`, with transposes folded into its axes; shape arithmetic has gone into `Reshape` and `AddAxis`.

use crate::guard;
use std::sync::mpsc;
use std::time::Duration;
use tract_core::internal::*;
use tract_core::optim::Optimizer;
use tract_onnx::tract_hir::internal::InferenceModelExt;

/// Longest that tract may take; a BERT-large takes 2 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Stack of its thread: it descends into nested expressions.
const STACK: usize = 256 << 20;

/// Parses a ModelProto; fails with what tract says.
pub(super) fn read(model: Vec<u8>) -> Result<TypedModel, String> {
    guarded(move || parse(&model))
}

/// Lets tract work on a file; fails with what it says.
///
/// tract is not written for hostile files: it may panic, or go on for ever. So it runs on a thread of its own, which is
/// left behind if it does not come back.
pub(super) fn guarded<T: Send + 'static>(
    work: impl FnOnce() -> TractResult<T> + Send + 'static,
) -> Result<T, String> {
    let (send, receive) = mpsc::channel();
    let work = move || {
        let _ = send.send(caught(work));
    };
    std::thread::Builder::new()
        .name("trimtab-onnx".into())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|e| format!("no thread to read it: {e}"))?;
    receive.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(format!("tract needs more than {PATIENCE:?}")))
}

/// What tract gives or says, or that it panics.
pub(super) fn caught<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    let result = guard::caught(work).ok_or("tract panics on it")?;
    // The chain ends with what names the node; its own text is of the outermost step.
    result.map_err(|e| {
        e.chain().map(|c| c.to_string()).collect::<Vec<_>>().join(": ").chars().take(500).collect()
    })
}

fn parse(model: &[u8]) -> TractResult<TypedModel> {
    let mut model = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .with_ignore_output_shapes(true)
        .model_for_read(&mut { model })?
        .into_typed()?;
    declutter(&mut model)?;
    Ok(model)
}

/// tract's declutter without the search for positions that a mask leaves out: a padded batch has none, and on nested shape
/// arithmetic the search takes minutes.
pub(super) fn declutter(model: &mut TypedModel) -> TractResult<()> {
    let mut optimizer = Optimizer::declutter();
    optimizer.passes.retain(|pass| format!("{pass:?}") != "PropagateRoi");
    optimizer.optimize(model)
}
