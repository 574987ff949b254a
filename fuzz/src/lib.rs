//! What the targets share: a file to put the input in, and a bound on memory.
//!
//! Every target takes its input through trimtab's public interface, from a file, as the command line does. It fails on a
//! panic; on a hang, by libFuzzer's `-timeout`; and on memory beyond [`within`]'s bound, where the allocator refuses and
//! the program aborts. What is mapped does not count.

use cap::Cap;
use std::alloc::System;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use trimtab::data::{self, Format, Found, Reading, LabelForm};
use trimtab::{Base, Options};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Memory an input may ask for whatever its size.
const FREE_BYTES: usize = 64 << 20;

/// Runs `read` with at most four times the input and 64 MiB of memory more than there was.
pub fn within<T>(input: &[u8], read: impl FnOnce() -> T) -> T {
    let most = ALLOCATOR.allocated() + 4 * input.len() + FREE_BYTES;
    ALLOCATOR.set_limit(most).expect("more than is allocated");
    let result = read();
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    result
}

/// A folder of this process, in memory where there is such a place.
pub static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = Path::new("/dev/shm");
    let root = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let folder = root.join(format!("trimtab-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
});

/// Puts a file into [`FOLDER`].
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    fs::write(&path, bytes).expect("a temporary file");
    path
}

/// A whole base, for inputs that belong to one.
pub static BASE: LazyLock<Base> = LazyLock::new(|| {
    let path = put("tiny.q8.safetensors", include_bytes!("../corpus/base/tiny"));
    Base::open(path).expect("the base of the corpus")
});

/// Reads examples in every way in which a file of this format is read.
pub fn examples(format: Format, input: &[u8]) {
    let path = put("examples", input);
    within(input, || {
        for want in
            [LabelForm::Name, LabelForm::Several, LabelForm::Number, LabelForm::Tags, LabelForm::Answers, LabelForm::Nothing]
        {
            let strict = Reading { format: Some(format), ..Reading::default() };
            let _ = Reading { skip_bad_lines: true, ..strict.clone() }.file(&path, want);
            if let Ok(Found { examples, .. }) = strict.file(&path, want) {
                let labels = data::label_set(&examples);
                let _ = data::label_ids(&examples, &labels, &path);
                let _ = data::check_trainable(&examples, &path);
            }
        }
    });
}

/// Settings of a model that is only asked: one thread.
pub fn options() -> Options {
    Options { threads: Some(1), ..Options::default() }
}
