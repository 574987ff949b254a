//! Which words of a text are hidden from the model that is to guess them: BERT's recipe (Devlin et al. 2019).
//!
//! Of 100 words 15 are to be guessed, at least one of each text that has any. In the place of 80 % of these stands the mask
//! token, of 10 % any word, and 10 % are left as they are. Special tokens are never hidden and never put anywhere. As with
//! [`super::dropout`] what happens to a token is a hash of the example's key and of where it stands: the same on every
//! machine and in every batch, and another in every epoch.

use super::dropout;

/// Share of the words that are to be guessed.
const HIDDEN: f64 = 0.15;
/// Tells these hashes from those of dropout's sites.
const SITE: u32 = 0xfffe;

/// What a vocabulary has to hide words with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    mask: i32,
    /// Ascending.
    ordinary: Vec<i32>,
}

/// A text with words hidden: its tokens, and the rows and the words to be guessed there, in the order of rows.
pub type Hidden = (Vec<i32>, Vec<(usize, usize)>);

impl Words {
    /// `mask` is the mask token, `ordinary` the tokens that are not special.
    pub fn new(mask: i32, mut ordinary: Vec<i32>) -> Words {
        ordinary.sort_unstable();
        Words { mask, ordinary }
    }

    /// The mask token.
    pub fn mask(&self) -> i32 {
        self.mask
    }

    /// Whether a token is one that can be hidden.
    pub fn has(&self, id: i32) -> bool {
        self.ordinary.binary_search(&id).is_ok()
    }

    /// Hides some of the words of example `key`.
    pub fn hide(&self, key: i64, ids: &[i32]) -> Hidden {
        let words = ids.iter().enumerate().filter(|(_, id)| self.has(**id));
        let mut drawn: Vec<(u64, usize)> =
            words.map(|(row, _)| (dropout::hash(key, SITE, row), row)).collect();
        let n = ((drawn.len() as f64 * HIDDEN).round() as usize).max(1).min(drawn.len());
        drawn.sort_unstable();
        drawn.truncate(n);
        let mut shown = ids.to_vec();
        for (_, row) in &drawn {
            // Behind the hashes of all rows, two more for this one.
            let draw = |which: usize| dropout::hash(key, SITE, ids.len() + 2 * row + which) >> 32;
            match draw(0) % 10 {
                0 => {}
                1 => shown[*row] = self.ordinary[((draw(1) * self.ordinary.len() as u64) >> 32) as usize],
                _ => shown[*row] = self.mask,
            }
        }
        let mut rows: Vec<usize> = drawn.into_iter().map(|(_, row)| row).collect();
        rows.sort_unstable();
        (shown, rows.into_iter().map(|row| (row, ids[row] as usize)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 1,000 tokens 0 to 9 are special, 4 is the mask.
    fn words() -> Words {
        Words::new(4, (10..1000).rev().collect())
    }

    #[test]
    fn shares_are_those_of_bert() {
        let ids: Vec<i32> = [2].into_iter().chain((0..200).map(|i| 10 + i * 4)).chain([1, 3]).collect();
        let (mut masked, mut random, mut kept) = (0, 0, 0);
        let mut met = vec![0; ids.len()];
        for example in 0..500 {
            let (shown, hidden) = words().hide(dropout::key(0, 3, example), &ids);
            assert_eq!(hidden.len(), 30, "15 % of 200");
            assert!(hidden.windows(2).all(|w| w[0].0 < w[1].0));
            for (row, word) in &hidden {
                assert_eq!(*word, ids[*row] as usize);
                met[*row] += 1;
                match shown[*row] {
                    4 => masked += 1,
                    id if id == ids[*row] => kept += 1,
                    id => random += i32::from(words().has(id)),
                }
            }
            let others = (0..ids.len()).filter(|row| !hidden.iter().any(|(r, _)| r == row));
            assert!(others.into_iter().all(|row| shown[row] == ids[row]));
        }
        // Of 15,000: standard deviations 49, 37 and 37.
        assert!((masked - 12_000i32).abs() < 200, "{masked} masked");
        assert!(
            (random - 1_500i32).abs() < 150 && (kept - 1_500i32).abs() < 150,
            "{random} random, {kept} kept"
        );
        assert_eq!(masked + random + kept, 15_000, "no special token was put anywhere");
        assert!([0, 201, 202].iter().all(|special| met[*special] == 0));
        assert!(met[1..201].iter().all(|n| (40..115).contains(n)), "every row is met as often: {met:?}");
    }

    #[test]
    fn keys_decide() {
        let ids: Vec<i32> = (10..90).collect();
        let of = |epoch, example| words().hide(dropout::key(7, epoch, example), &ids);
        assert_eq!(of(0, 5), of(0, 5));
        assert!(of(0, 5) != of(1, 5) && of(0, 5) != of(0, 6));
        // What this key hides on every machine.
        let rows: Vec<usize> = of(0, 0).1.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [4, 6, 8, 43, 53, 56, 57, 59, 63, 65, 72, 78]);
    }

    #[test]
    fn short_texts() {
        let hide = |ids: &[i32]| words().hide(dropout::key(1, 0, 0), ids);
        assert_eq!(hide(&[2, 77, 3]).1, [(1, 77)], "at least one");
        assert_eq!(hide(&[2, 1, 4, 3]), (vec![2, 1, 4, 3], vec![]), "nothing to hide");
        assert_eq!(hide(&[]), (vec![], vec![]));
    }
}
