//! What the axes of a value are: exporters split, merge and move them in their own ways.
//!
//! An axis is a list of digits, the most significant first, as the digits of a number in mixed radix: the hidden width
//! of 384 split into 12 heads of 32 is `(Width, 32, 12)` and `(Width, 1, 32)`. Dimensions whose size is open have
//! been given sizes that no other has, so that all is arithmetic.

use tract_core::internal::*;

/// Of what a digit is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Batch,
    /// Tokens.
    Seq,
    /// Tokens that are attended to.
    Key,
    /// Hidden width, or whatever a Linear gives.
    Width,
    /// First and second dimension of a stored matrix; first of a vector.
    Rows,
    Cols,
}

/// `index / stride % len` of the part's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digit {
    pub part: Part,
    pub stride: usize,
    pub len: usize,
}

/// Axes of a value; those of size 1 have no digits.
pub(super) type Axes = Vec<Vec<Digit>>;

/// A whole part of `len` as an axis.
pub(super) fn whole(part: Part, len: usize) -> Vec<Digit> {
    if len == 1 { Vec::new() } else { vec![Digit { part, stride: 1, len }] }
}

/// Axes behind a change; none if it tears what belongs together.
pub(super) fn changed(axes: &Axes, op: &AxisOp, size: &dyn Fn(&TDim) -> Option<usize>) -> Option<Axes> {
    let mut axes = axes.clone();
    match op {
        AxisOp::Add(at) if *at <= axes.len() => axes.insert(*at, Vec::new()),
        AxisOp::Rm(at) if axes.get(*at)?.is_empty() => drop(axes.remove(*at)),
        AxisOp::Move(from, to) if *from < axes.len() && *to < axes.len() => {
            let axis = axes.remove(*from);
            axes.insert(*to, axis);
        }
        AxisOp::Reshape(at, from, to) if at + from.len() <= axes.len() => {
            let mut pool: Vec<Digit> = axes.splice(at..&(at + from.len()), []).flatten().rev().collect();
            let mut split = Vec::new();
            for dim in to {
                split.push(take(&mut pool, size(dim)?)?);
            }
            if !pool.is_empty() {
                return None;
            }
            axes.splice(at..at, split);
        }
        _ => return None,
    }
    Some(axes)
}

/// Takes the digits of an axis of `len` from the end of `pool`, splitting one where needed.
fn take(pool: &mut Vec<Digit>, mut len: usize) -> Option<Vec<Digit>> {
    let mut axis = Vec::new();
    while len > 1 {
        let digit = pool.pop()?;
        if len.is_multiple_of(digit.len) {
            len /= digit.len;
            axis.push(digit);
        } else if digit.len.is_multiple_of(len) {
            let rest = digit.len / len;
            axis.push(Digit { stride: digit.stride * rest, len, ..digit });
            pool.push(Digit { len: rest, ..digit });
            len = 1;
        } else {
            return None;
        }
    }
    Some(axis)
}

/// Digits with neighbours merged that were split.
pub(super) fn merged(digits: impl IntoIterator<Item = Digit>) -> Vec<Digit> {
    let mut out: Vec<Digit> = Vec::new();
    for digit in digits {
        match out.last_mut() {
            Some(last) if last.part == digit.part && last.stride == digit.stride * digit.len => {
                *last = Digit { len: last.len * digit.len, ..digit };
            }
            _ => out.push(digit),
        }
    }
    out
}

/// Axes of the two factors of a product, by what becomes of them.
pub(super) struct Product {
    /// Summed over: digits of the left and of the right, in the order of the left's axes.
    pub summed: [Vec<Digit>; 2],
    /// In both and in the result.
    pub shared: [Vec<Digit>; 2],
    /// In one and in the result.
    pub kept: [Vec<Digit>; 2],
    /// Of the result: which factor's digits each axis has.
    out: Vec<(usize, Vec<Digit>)>,
}

impl Product {
    /// None if an axis is summed over alone, or taken twice.
    pub fn of(mapping: &AxesMapping, left: &Axes, right: &Axes) -> Option<Product> {
        let factors = [left, right];
        let mut p = Product {
            summed: Default::default(),
            shared: Default::default(),
            kept: Default::default(),
            out: vec![(0, Vec::new()); mapping.rank(InOut::Out(0))],
        };
        let mut axes: Vec<&Axis> = mapping.iter_all_axes().collect();
        axes.sort_by_key(|a| (a.inputs[0].first().copied().unwrap_or(usize::MAX), a.repr));
        for axis in axes {
            if axis.inputs.iter().chain(&axis.outputs).any(|places| places.len() > 1) {
                return None;
            }
            let digits = |i: usize| match axis.inputs[i].first() {
                None => Some(None),
                Some(at) => factors[i].get(*at).map(|d| Some(d.clone())),
            };
            let (l, r, out) = (digits(0)?, digits(1)?, axis.outputs[0].first());
            // One of size 1 broadcasts, and is as good as not there.
            let some = |d: Option<Vec<Digit>>| d.filter(|d| !d.is_empty());
            match (some(l), some(r), out) {
                (Some(l), Some(r), None) => {
                    p.summed[0].extend(l);
                    p.summed[1].extend(r);
                }
                (Some(l), Some(r), Some(out)) => {
                    *p.out.get_mut(*out)? = (0, l.clone());
                    p.shared[0].extend(l);
                    p.shared[1].extend(r);
                }
                (Some(l), None, Some(out)) => {
                    *p.out.get_mut(*out)? = (0, l.clone());
                    p.kept[0].extend(l);
                }
                (None, Some(r), Some(out)) => {
                    *p.out.get_mut(*out)? = (1, r.clone());
                    p.kept[1].extend(r);
                }
                (None, None, _) => {}
                _ => return None,
            }
        }
        Some(p)
    }

    /// Axes of the result, with the digits of the right factor as parts of `part`.
    pub fn axes(&self, part: Part) -> Axes {
        let name = |(side, digits): &(usize, Vec<Digit>)| {
            digits.iter().map(|d| if *side == 1 { Digit { part, ..*d } } else { *d }).collect()
        };
        self.out.iter().map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(d: &TDim) -> Option<usize> {
        d.to_usize().ok()
    }

    fn reshape(at: usize, from: &[usize], to: &[usize]) -> AxisOp {
        AxisOp::Reshape(
            at,
            from.iter().map(|d| d.to_dim()).collect(),
            to.iter().map(|d| d.to_dim()).collect(),
        )
    }

    #[test]
    fn heads_split_move_and_merge() {
        let axes = vec![whole(Part::Batch, 1009), whole(Part::Seq, 2003), whole(Part::Width, 384)];
        let split = changed(&axes, &reshape(2, &[384], &[12, 32]), &size).unwrap();
        let head = Digit { part: Part::Width, stride: 32, len: 12 };
        let dim = Digit { part: Part::Width, stride: 1, len: 32 };
        assert_eq!(split[2..], [vec![head], vec![dim]]);
        let moved = changed(&split, &AxisOp::Move(2, 1), &size).unwrap();
        let flat = changed(&moved, &reshape(0, &[1009, 12], &[1009 * 12]), &size).unwrap();
        assert_eq!(flat[0], [axes[0][0], head]);
        let back = changed(&flat, &reshape(0, &[1009 * 12], &[1009, 12]), &size).unwrap();
        assert_eq!(back, moved);
        let whole_again = changed(&split, &reshape(2, &[12, 32], &[384]), &size).unwrap();
        assert_eq!(merged(whole_again[2].clone()), axes[2]);
        // Heads and their width in the other order are not the hidden width.
        let torn = changed(&split, &AxisOp::Move(3, 2), &size).unwrap();
        let torn = changed(&torn, &reshape(2, &[32, 12], &[384]), &size).unwrap();
        assert_ne!(merged(torn[2].clone()), axes[2]);
        assert!(changed(&axes, &reshape(2, &[384], &[5, 77]), &size).is_none());
    }
}
