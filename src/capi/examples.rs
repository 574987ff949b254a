//! A list of examples.

use super::border::{free, given, guard, out, read, text, text_or_null, told, trimtab_status, write};
use crate::data::{self, Columns, Example};
use crate::error::Result;
use crate::task::Kind;
use std::ffi::c_char;
use std::path::Path;
use std::sync::RwLock;

/// Texts with their labels, to learn from or to score on. A run takes a copy when it begins, so that examples may be
/// added meanwhile.
pub struct trimtab_examples(RwLock<Vec<Example>>);

impl trimtab_examples {
    pub(super) fn copy(&self) -> Vec<Example> {
        read(&self.0).clone()
    }
}

/// An empty list. `examples` gets the handle, to be freed by `trimtab_examples_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_examples_new(examples: *mut *mut trimtab_examples) -> trimtab_status {
    guard(|| {
        // SAFETY: a place for a handle (the header's rule)
        unsafe { out(examples, "examples") }?.set(trimtab_examples(RwLock::default()));
        Ok(())
    })
}

/// Adds an example, of which the list keeps a copy.
///
/// `text_b` is the second text of a pair, or NULL. `label` is a label's name; for multilabel names between commas, for
/// regress a number, for tag as many tags as `text` has words, both between spaces; for contrastive and mlm it may be
/// NULL. Whether it suits the task, training tells. Questions (qa) come from files only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_examples_add(
    examples: *mut trimtab_examples,
    text: *const c_char,
    text_b: *const c_char,
    label: *const c_char,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a handle (the header's rule)
        let examples = unsafe { given(examples, "examples") }?;
        // SAFETY: texts or NULL (the header's rule)
        let mut example = unsafe { example(text, text_b) }?;
        // SAFETY: the same
        let label = unsafe { text_or_null(label, "label") }?;
        example.label = label.map(|label| data::clean_label(label).into_owned());
        let mut all = write(&examples.0);
        example.line = all.len() + 1;
        all.push(example);
        Ok(())
    })
}

/// Adds the examples of a file as `trimtab train --data` reads it: .tsv, .csv or .jsonl; .conll for tag, .json for qa,
/// for mlm also .txt. `task` is the one they are for. Adds all of them, or none where this fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_examples_read(
    examples: *mut trimtab_examples,
    path: *const c_char,
    task: *const c_char,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a handle and texts (the header's rule)
        let (examples, path, task) =
            unsafe { (given(examples, "examples")?, text(path, "path")?, text(task, "task")?) };
        let wanted = task.parse::<Kind>()?.wanted();
        let more = data::read_examples(Path::new(path), &Columns::default(), wanted)?;
        write(&examples.0).extend(more);
        Ok(())
    })
}

/// How many there are; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_examples_count(examples: *const trimtab_examples) -> usize {
    // SAFETY: a handle or NULL (the header's rule)
    told(0, || unsafe { given(examples, "examples") }.map_or(0, |examples| read(&examples.0).len()))
}

/// Removes all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_examples_clear(examples: *mut trimtab_examples) -> trimtab_status {
    guard(|| {
        // SAFETY: a handle (the header's rule)
        write(&unsafe { given(examples, "examples") }?.0).clear();
        Ok(())
    })
}

/// Frees a list; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_examples_free(examples: *mut trimtab_examples) {
    // SAFETY: a handle that nobody uses any more, or NULL (the header's rule)
    unsafe { free(examples) }
}

/// A text, or a pair.
///
/// # Safety
/// As of [`text`], of both.
pub(super) unsafe fn example(text_a: *const c_char, text_b: *const c_char) -> Result<Example> {
    // SAFETY: the caller's promise
    let (a, b) = unsafe { (text(text_a, "text")?, text_or_null(text_b, "text_b")?) };
    Ok(Example { text_a: a.to_owned(), text_b: b.map(str::to_owned), ..Example::default() })
}
