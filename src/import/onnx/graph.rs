//! tract's view of a skeleton: parsed, typed and decluttered, so that exporters' ways of saying the same look the same.
//!
//! LayerNorm, fused or not, has become `x − mean(x)`, `RmsNorm`, a product and a sum; every product of matrices an
//! `EinSum`, with transposes folded into its axes; shape arithmetic has gone into `Reshape` and `AddAxis`.

use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::time::Duration;
use tract_core::internal::*;
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
        .name(THREAD.into())
        .stack_size(STACK)
        .spawn(quiet(work))
        .map_err(|e| format!("no thread to read it: {e}"))?;
    receive.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(format!("tract needs more than {PATIENCE:?}")))
}

/// What tract gives or says, or that it panics; on a thread called [`THREAD`] without a word on stderr.
pub(super) fn caught<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    let result = panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| "tract panics on it".to_owned())?;
    // The chain ends with what names the node; its own text is of the outermost step.
    result.map_err(|e| {
        e.chain().map(|c| c.to_string()).collect::<Vec<_>>().join(": ").chars().take(500).collect()
    })
}

/// Name of threads whose panics are errors.
pub(super) const THREAD: &str = "trimtab-onnx";

/// Keeps the panics of our thread from stderr: they are reported as errors.
pub(super) fn quiet<T>(work: T) -> T {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(THREAD) {
                before(info);
            }
        }));
    });
    work
}

fn parse(model: &[u8]) -> TractResult<TypedModel> {
    tract_onnx::onnx()
        .with_ignore_value_info(true)
        .with_ignore_output_shapes(true)
        .model_for_read(&mut { model })?
        .into_typed()?
        .into_decluttered()
}
