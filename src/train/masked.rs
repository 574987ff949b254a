//! Training and scores on hidden words: what the words of a text are, is the text itself.
//!
//! Of the tokens' vectors only those go through the head behind which a word is hidden; the others have no loss.

use super::Labelled;
use super::backward::backward_pooled;
use super::forward::largest;
use super::gradients::Gradients;
use super::metrics::Metrics;
use super::micro_batches::MicroBatching;
use crate::error::{Error, Result};
use crate::graph::{Batch, Graph};
use crate::ops::dropout;
use crate::ops::loss::{self, Target};
use crate::ops::masked_lm::MaskedLm;
use crate::scores::{self, Scores};
use crate::tokenize::Encoded;
use std::ops::Range;
use tract_core::prelude::tract_ndarray::{Array2, ArrayView2};

/// Decides, with its index, which words of a text are hidden where they are scored: the same each time.
const SCORED: u64 = 0;

/// Texts as the model reads them, and the rows and words to be guessed in each.
struct Hidden {
    texts: Vec<Encoded>,
    words: Vec<Vec<(usize, usize)>>,
}

impl Hidden {
    /// `keys: [texts]`; texts whose words are hidden already stay as they are.
    fn of<'a>(texts: impl IntoIterator<Item = (&'a Labelled, i64)>) -> Result<Hidden> {
        let mut hidden = Hidden { texts: vec![], words: vec![] };
        for (d, key) in texts {
            let (ids, words) = match &d.target {
                Target::Cloze(all) => all.hide(key, &d.text.ids),
                Target::Tags(words) => (d.text.ids.clone(), words.clone()),
                other => return Err(Error::Config(format!("a masked-LM head cannot learn from {other:?}"))),
            };
            hidden.texts.push(Encoded { ids, ..d.text.clone() });
            hidden.words.push(words);
        }
        Ok(hidden)
    }

    fn lengths(&self) -> impl Iterator<Item = usize> {
        self.texts.iter().map(|text| text.ids.len())
    }

    /// Number of words to be guessed.
    fn len(&self) -> usize {
        self.words.iter().map(Vec::len).sum()
    }

    /// The rows of a part's batch behind which words are hidden, and these words.
    fn rows(&self, part: Range<usize>, batch: &Batch) -> (Vec<usize>, Vec<usize>) {
        let texts = self.words[part].iter().zip(batch.offsets());
        texts
            .flat_map(|(words, first)| words.iter().map(|(row, word)| (*first as usize + row, *word)))
            .unzip()
    }
}

/// Some rows of `x: [rows, hidden]`, one after another.
fn gather(x: ArrayView2<f32>, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|row| x.row(*row).to_vec()).collect()
}

impl Gradients<'_> {
    /// [`Gradients::of_known`] of texts with hidden words. They differ each time, so nothing of them is known.
    pub(super) fn of_masked(
        &self,
        head: &MaskedLm,
        theta: &[f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        grad: &mut [f32],
    ) -> Result<f64> {
        let (graph, cut) = (self.graph, self.cut());
        let key = |i: usize| keys.map_or(dropout::OFF, |keys| keys[i]);
        let hidden = Hidden::of(batch.iter().enumerate().map(|(i, d)| (*d, key(i))))?;
        let share = 1.0 / hidden.len().max(1) as f64;
        let losses = cut.run(&cut.micro_batches(hidden.lengths()), |part| {
            let texts: Vec<&Encoded> = hidden.texts[part.clone()].iter().collect();
            let batch = Batch::new(texts.iter().copied(), Some(part.clone().map(key).collect()));
            let forward = self.forward(&texts, &batch, None, theta)?;
            let (rows, words) = hidden.rows(part, &batch);
            let h = gather(forward.pooled.view(), &rows);
            let mut d_h = vec![0.0; h.len()];
            let losses = head.loss(graph.numerics(), &h, &words, share, &mut d_h);
            let mut d_pooled = Array2::<f32>::zeros(forward.pooled.raw_dim());
            for (row, d) in rows.iter().zip(d_h.chunks_exact(graph.hidden())) {
                d_pooled.row_mut(*row).iter_mut().zip(d).for_each(|(to, d)| *to = *d);
            }
            let (mut work, mut sum) = self.take_idle(theta.len());
            backward_pooled(graph, &self.selection, forward, &batch, d_pooled.view(), &mut work, &mut sum);
            self.idle().push((work, sum));
            Ok(losses)
        });
        self.finish(grad);
        Ok(losses?.iter().flatten().sum())
    }
}

/// Scores of `theta` on words of the texts that are hidden by the texts' places in `data`.
pub(super) fn evaluate(
    graph: &Graph,
    head: &MaskedLm,
    theta: &[f32],
    data: &[Labelled],
    cut: MicroBatching,
) -> Result<Metrics> {
    let hidden = Hidden::of(data.iter().enumerate().map(|(i, d)| (d, dropout::key(SCORED, 0, i))))?;
    let guessed = cut.run(&cut.micro_batches(hidden.lengths()), |part| {
        let batch = Batch::new(&hidden.texts[part.clone()], None);
        let (rows, words) = hidden.rows(part, &batch);
        let (_, pooled) = graph.forward(&batch, theta)?;
        let one = |i: usize, p: &[f32]| (largest(p) == words[i], loss::surprise(f64::from(p[words[i]])));
        Ok(head.guess(graph.numerics(), &gather(pooled.view(), &rows), one))
    })?;
    let n = hidden.len().max(1) as f64;
    let right = guessed.iter().flatten().filter(|(right, _)| *right).count() as f64;
    let loss = guessed.iter().flatten().map(|(_, loss)| loss).sum::<f64>() / n;
    let scores = Scores::all(&scores::MLM, [libm::exp(loss), right / n]);
    Ok(Metrics { examples: data.len(), scores, loss })
}

/// Words that may stand in a row, and their probabilities.
pub(crate) type Guess = Vec<(usize, f64)>;

/// The `most` likeliest words, likeliest first, and their probabilities, of each of some rows of each text.
pub(crate) fn fill(
    graph: &Graph,
    head: &MaskedLm,
    theta: &[f32],
    texts: &[(Encoded, Vec<usize>)],
    most: usize,
) -> Result<Vec<Vec<Guess>>> {
    let cut = MicroBatching::of_threads(rayon::current_num_threads());
    let parts = cut.micro_batches(texts.iter().map(|(text, _)| text.ids.len()));
    let filled = cut.run(&parts, |part| {
        let texts = &texts[part];
        let batch = Batch::new(texts.iter().map(|(text, _)| text), None);
        let at = texts.iter().zip(batch.offsets());
        let rows: Vec<usize> =
            at.flat_map(|((_, rows), first)| rows.iter().map(|row| *first as usize + row)).collect();
        let (_, pooled) = graph.forward(&batch, theta)?;
        let best = |_: usize, p: &[f32]| {
            let mut words: Vec<usize> = (0..p.len()).collect();
            // Stable: of equals the first.
            words.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            words.truncate(most);
            words.into_iter().map(|word| (word, f64::from(p[word]))).collect::<Guess>()
        };
        let mut best = head.guess(graph.numerics(), &gather(pooled.view(), &rows), best).into_iter();
        Ok(texts.iter().map(|(_, rows)| best.by_ref().take(rows.len()).collect()).collect::<Vec<_>>())
    })?;
    Ok(filled.into_iter().flatten().collect())
}
