//! What training a model takes.

use super::Model;
use crate::config::Pooling;
use crate::data::Example;
use crate::error::Result;
use crate::ops::masked_lm;
use crate::task::Task;
use crate::tokenize::WINDOWS_MAX;
use crate::train::memory::{self, Prediction};
use crate::train::{FEATURE_ROWS, Head, MicroBatching, TrainConfig};

impl Model {
    /// What training on these examples takes at its peak: at most `budget` bytes, or as the number of threads gives.
    /// The cut and the size of the cache of the prediction are for [`TrainConfig`].
    ///
    /// Errors: a budget in which not one text fits; `exact`, of which nothing is known.
    pub fn memory(
        &self,
        train: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
        budget: Option<usize>,
    ) -> Result<Prediction> {
        // Two i32 a token, of about four bytes of text, and the vectors' own sizes. Of a context every token is there, some
        // twice, and where it stands.
        let max_len = self.texts.encoder.max_len();
        let windows = if self.pooling == Pooling::Windows { WINDOWS_MAX } else { 1 };
        let encoded = |text: usize| 8 * (text / 4 + 8).min(windows * max_len) + 180;
        let pairs = self.task == Task::Contrastive;
        let bytes = |e: &Example| {
            let (a, b) = (e.text_a.len(), e.text_b.as_ref().map_or(0, String::len));
            match self.task {
                Task::Qa => 32 * ((a + b) / 4 + 8) + a + b + 320,
                Task::Contrastive => encoded(a) + encoded(b),
                _ if self.pooling == Pooling::Apart => encoded(a) + encoded(b),
                // All of the text, in windows, which are copied where they are scored.
                Task::Mlm => {
                    let tokens = (a + b) / 4 + 8;
                    16 * tokens + 220 * (1 + tokens / max_len)
                }
                _ => encoded(a + b),
            }
        };
        // Of pairs two texts go through, and the vectors of a batch and of all dev are there at once: as they came, as
        // units and, while training, their gradients.
        let texts = if pairs { 2 } else { 1 };
        let vectors = config.batch.saturating_mul(32).max(dev.map_or(0, <[Example]>::len) * 16);
        let vectors = vectors.saturating_mul((texts - 1) * 2 * self.wired.graph.hidden());
        // For each thread some rows of logits, in f32 and quantized, a row of probabilities, and what the product back from
        // so many columns packs: a strip of 64, and the rows. The last term is what runs were measured to take beyond that.
        let per_word = 6 * (masked_lm::ROWS + 1) + 2 * (masked_lm::ROWS + 64) + 512;
        let logits = self.wired.graph.mlm_head().map_or(0, |head| per_word * head.vocab() * self.threads());
        let config = &TrainConfig { batch: config.batch.saturating_mul(texts), ..config.clone() };
        let rows = |e: &Example| match self.task {
            Task::Tag(_) => e.word_list().len(),
            _ => 1,
        };
        let fits = dev.is_some() || config.head == Head::Fitted;
        let fitted = fits && !matches!(self.task, Task::Qa | Task::Contrastive | Task::Mlm);
        let setting = memory::Setting {
            fitted_rows: if fitted { train.iter().map(rows).sum::<usize>().min(FEATURE_ROWS) } else { 0 },
            base: &self.base,
            graph: &self.wired.graph,
            config,
            threads: self.threads(),
            // A bound: buffers for several sequences grow by doubling.
            sequence: match self.pooling {
                Pooling::Apart | Pooling::Windows => 2 * max_len,
                _ => max_len,
            },
            longest: match self.pooling {
                Pooling::Apart => 2 * max_len,
                // A token is a byte or more.
                Pooling::Windows => {
                    let bytes = train.iter().chain(dev.unwrap_or_default()).map(|e| e.text_a.len()).max();
                    (bytes.unwrap_or(0) + max_len).min(windows * max_len)
                }
                _ => max_len,
            },
            data_bytes: train.iter().chain(dev.unwrap_or_default()).map(bytes).sum::<usize>()
                + vectors
                + logits,
        };
        match budget {
            Some(budget) => memory::fit(&setting, budget),
            None => memory::predict(&setting, MicroBatching::of_threads(self.threads())),
        }
    }
}
