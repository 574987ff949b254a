//! What a careless caller gives: NULL, text that is not UTF-8, files and tasks that do not fit. An error each, with a
//! message that names it, and no handle.

use crate::handles::{Base, Examples, Model, c, chosen, path, text, told};
use crate::sandbox::Sandbox;
use std::path::Path;
use std::ptr::{null, null_mut};
use trimtab::capi::*;

const LATIN1: &std::ffi::CStr = c"caf\xe9";

/// The message of a call that must end in `status`.
fn refused(status: trimtab_status, wanted: trimtab_status, word: &str) {
    let (status, message) = told(status).expect_err(word);
    assert_eq!(status, wanted, "{message}");
    assert!(message.contains(word), "no {word:?} in {message:?}");
}

fn argument(status: trimtab_status, word: &str) {
    refused(status, trimtab_status::Argument, word);
}

/// Every pointer of every function, one after the other, as NULL, the rest as it should be.
#[test]
fn null_for_every_pointer() {
    let s = Sandbox::new();
    let (base, examples) = (Base::open(&s.path("base")), Examples::of(&s.path("train.tsv"), "classify"));
    let model = Model::open(&base, &s.path("me.bias"));
    let (file, word, task) = (path(&s.path("base")), c("word"), c("classify"));
    let (file, word, task) = (file.as_ptr(), word.as_ptr(), task.as_ptr());
    let bias = path(&s.path("me.bias"));
    // A handle that is not there must be NULL behind a failed call, whatever stood in its place.
    let mut base_out = base.0;
    let (mut examples_out, mut model_out, mut prediction_out) = (null_mut(), model.0, null_mut());
    let mut vector = [0f32; 32];
    // SAFETY: texts, handles and places that are valid, or NULL, which is what is tested
    unsafe {
        argument(trimtab_base_open(null(), &mut base_out), "path is NULL");
        assert!(base_out.is_null());
        argument(trimtab_base_open(file, null_mut()), "base is NULL");
        argument(trimtab_base_of_bytes(null(), 8, &mut base_out), "bytes is NULL");
        argument(trimtab_base_of_bytes(file.cast(), 1, null_mut()), "base is NULL");
        argument(trimtab_base_of_bytes(file.cast(), usize::MAX, &mut base_out), "no buffer has");
        argument(trimtab_examples_new(null_mut()), "examples is NULL");
        argument(trimtab_examples_add(null_mut(), word, word, word), "examples is NULL");
        argument(trimtab_examples_add(examples.0, null(), word, word), "text is NULL");
        argument(trimtab_examples_read(null_mut(), file, task), "examples is NULL");
        argument(trimtab_examples_read(examples.0, null(), task), "path is NULL");
        argument(trimtab_examples_read(examples.0, file, null()), "task is NULL");
        argument(trimtab_examples_clear(null_mut()), "examples is NULL");
        argument(trimtab_model_new(null(), task, null(), 0, null(), &mut model_out), "base is NULL");
        assert!(model_out.is_null());
        argument(trimtab_model_new(base.0, null(), null(), 0, null(), &mut model_out), "task is NULL");
        argument(trimtab_model_new(base.0, task, null(), 2, null(), &mut model_out), "labels is NULL");
        let labels = [word, null()];
        argument(
            trimtab_model_new(base.0, task, labels.as_ptr(), 2, null(), &mut model_out),
            "label 1 is NULL",
        );
        argument(trimtab_model_new(base.0, task, null(), 0, null(), null_mut()), "model is NULL");
        argument(trimtab_model_open(null(), bias.as_ptr(), null(), &mut model_out), "base is NULL");
        argument(trimtab_model_open(base.0, null(), null(), &mut model_out), "path is NULL");
        argument(trimtab_model_open(base.0, bias.as_ptr(), null(), null_mut()), "model is NULL");
        argument(trimtab_model_predict(null(), word, null(), &mut prediction_out), "model is NULL");
        argument(trimtab_model_predict(model.0, null(), null(), &mut prediction_out), "text is NULL");
        argument(trimtab_model_predict(model.0, word, null(), null_mut()), "prediction is NULL");
        argument(trimtab_model_embed(null(), word, vector.as_mut_ptr(), 32), "model is NULL");
        argument(trimtab_model_embed(model.0, null(), vector.as_mut_ptr(), 32), "text is NULL");
        argument(trimtab_model_embed(model.0, word, null_mut(), 32), "vector is NULL");
        argument(trimtab_model_evaluate(null(), examples.0, null_mut()), "model is NULL");
        argument(trimtab_model_evaluate(model.0, null(), null_mut()), "examples is NULL");
        argument(trimtab_model_evaluate(model.0, examples.0, null_mut()), "scores is NULL");
        argument(trimtab_model_swap(null_mut(), bias.as_ptr()), "model is NULL");
        argument(trimtab_model_swap(model.0, null()), "path is NULL");
        argument(trimtab_model_share(null_mut(), model.0), "model is NULL");
        argument(trimtab_model_share(model.0, null()), "other is NULL");
        argument(trimtab_model_save(null(), bias.as_ptr(), 0), "model is NULL");
        argument(trimtab_model_save(model.0, null(), 0), "path is NULL");
        let no = (null(), null_mut::<trimtab_report>());
        argument(
            trimtab_model_train(null_mut(), examples.0, null(), no.0, None, null_mut(), no.1),
            "model is NULL",
        );
        argument(
            trimtab_model_train(model.0, null(), null(), no.0, None, null_mut(), no.1),
            "examples is NULL",
        );
        // What only tells has no status.
        assert_eq!((trimtab_base_width(null()), trimtab_examples_count(null())), (0, 0));
        assert!(trimtab_prediction_text(null()).is_null() && trimtab_prediction_json(null()).is_null());
        assert!(
            trimtab_prediction_value(null()).is_nan() && trimtab_prediction_probability(null(), 0).is_nan()
        );
        assert!(trimtab_prediction_count(null()) == 0 && trimtab_prediction_label(null(), 0).is_null());
        trimtab_base_free(null_mut());
        trimtab_examples_free(null_mut());
        trimtab_model_free(null_mut());
        trimtab_prediction_free(null_mut());
        // No callback, no report, no options: all have a meaning.
        told(trimtab_model_train(model.0, examples.0, null(), null(), None, null_mut(), null_mut())).unwrap();
        told(trimtab_examples_new(&mut examples_out)).unwrap();
        trimtab_examples_free(examples_out);
    }
    assert_eq!(examples.count(), 16);
    assert_eq!(text(trimtab_version()), env!("CARGO_PKG_VERSION"));
}

#[test]
fn text_that_is_not_utf8() {
    let s = Sandbox::new();
    let (base, examples) = (Base::open(&s.path("base")), Examples::new());
    let model = Model::open(&base, &s.path("me.bias"));
    let (bad, good, task) = (LATIN1.as_ptr(), c"word".as_ptr(), c"classify".as_ptr());
    let (mut base_out, mut model_out, mut prediction) = (null_mut(), null_mut(), null_mut());
    let mut vector = [0f32; 32];
    // SAFETY: texts, handles and places that are valid
    unsafe {
        argument(trimtab_base_open(bad, &mut base_out), "path is not UTF-8");
        argument(trimtab_examples_add(examples.0, bad, null(), good), "text is not UTF-8");
        argument(trimtab_examples_add(examples.0, good, bad, good), "text_b is not UTF-8");
        argument(trimtab_examples_add(examples.0, good, null(), bad), "label is not UTF-8");
        argument(trimtab_examples_read(examples.0, bad, task), "path is not UTF-8");
        argument(trimtab_examples_read(examples.0, good, bad), "task is not UTF-8");
        argument(trimtab_model_new(base.0, bad, null(), 0, null(), &mut model_out), "task is not UTF-8");
        let labels = [good, bad];
        argument(
            trimtab_model_new(base.0, task, labels.as_ptr(), 2, null(), &mut model_out),
            "label 1 is not UTF-8",
        );
        argument(trimtab_model_open(base.0, bad, null(), &mut model_out), "path is not UTF-8");
        argument(trimtab_model_predict(model.0, bad, null(), &mut prediction), "text is not UTF-8");
        argument(trimtab_model_predict(model.0, good, bad, &mut prediction), "text_b is not UTF-8");
        argument(trimtab_model_embed(model.0, bad, vector.as_mut_ptr(), 32), "text is not UTF-8");
        argument(trimtab_model_swap(model.0, bad), "path is not UTF-8");
        argument(trimtab_model_save(model.0, bad, 0), "path is not UTF-8");
        for options in [
            trimtab_train_options { terms: bad, ..chosen() },
            trimtab_train_options { start: bad, ..chosen() },
        ] {
            let train = trimtab_model_train;
            argument(
                train(model.0, examples.0, null(), &options, None, null_mut(), null_mut()),
                "is not UTF-8",
            );
        }
    }
    assert_eq!(examples.count(), 0);
}

#[test]
fn files_that_do_not_fit() {
    let s = Sandbox::new();
    let base = Base::open(&s.path("base"));
    for (file, wanted, word) in [
        ("nowhere", trimtab_status::Io, "nowhere"),
        ("train.tsv", trimtab_status::Format, "train.tsv"),
        ("", trimtab_status::Format, "directory"),
    ] {
        let (status, message) = Base::try_open(&s.path(file)).map(drop).unwrap_err();
        assert_eq!(status, wanted, "{message}");
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
    let whole = s.read("base");
    for bytes in [&whole[..0], &whole[..100], &whole[..whole.len() - 1], b"no base"] {
        let (status, message) = Base::of_bytes(bytes).map(drop).unwrap_err();
        assert_eq!(status, trimtab_status::Format, "{message}");
        assert!(message.contains("(bytes)"), "{message}");
    }
    let of = |file: &str| Model::try_open(&base, &s.path(file)).map(drop).unwrap_err();
    assert_eq!(of("nowhere").0, trimtab_status::Io);
    assert_eq!(of("base").0, trimtab_status::Format);
    assert_eq!(of("train.tsv").0, trimtab_status::Format);
    // another base
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-distilbert");
    s.ok(&format!("quantize {} --output other", other.display()));
    let other = Base::open(&s.path("other"));
    let e = Model::try_open(&other, &s.path("me.bias")).map(drop).unwrap_err();
    assert_eq!(e.0, trimtab_status::WrongBase, "{}", e.1);
    let model = Model::open(&base, &s.path("me.bias"));
    let of_other = Model::new(&other, "classify", &["a", "b"]);
    let e = of_other.share(&model).unwrap_err();
    assert!(e.0 == trimtab_status::Argument && e.1.contains("other bases"), "{e:?}");
    let e = of_other.swap(&s.path("me.bias")).unwrap_err();
    assert_eq!(e.0, trimtab_status::WrongBase);
    // another task
    let number = Model::new(&base, "regress", &[]);
    for e in [number.swap(&s.path("me.bias")), number.share(&model)] {
        let e = e.unwrap_err();
        assert!(e.0 == trimtab_status::Argument && e.1.contains("regress"), "{e:?}");
    }
    assert_eq!(number.predict("it").labels(), []);
    assert!(number.predict("it").value().is_finite());
    let examples = Examples::new();
    for (file, task, wanted) in [
        ("nowhere.tsv", "classify", trimtab_status::Io),
        ("base", "classify", trimtab_status::Data),
        ("train.tsv", "qa", trimtab_status::Data),
        ("train.tsv", "guess", trimtab_status::Argument),
    ] {
        assert_eq!(examples.read(&s.path(file), task).unwrap_err().0, wanted, "{file}");
    }
    assert_eq!(examples.count(), 0);
}

#[test]
fn settings_that_make_no_sense() {
    let s = Sandbox::new();
    let base = Base::open(&s.path("base"));
    let new = |task, labels: &[&str]| Model::try_new(&base, task, labels).map(drop).unwrap_err();
    for e in [
        new("guess", &[]),
        new("regress", &["a", "b"]),
        new("classify", &["only"]),
        new("classify", &["twice", "twice"]),
    ] {
        assert_eq!(e.0, trimtab_status::Argument, "{}", e.1);
    }
    let model = Model::new(&base, "classify", &[]);
    let e = model.try_predict("it").map(drop).unwrap_err();
    assert!(e.0 == trimtab_status::Argument && e.1.contains("no labels yet"), "{e:?}");
    assert!(model.try_embed("it", 5).unwrap_err().1.contains("have 64 floats"));
    let examples = Examples::of(&s.path("train.tsv"), "classify");
    let terms = c("q,x");
    let train = |examples: &Examples, held_out: Option<&Examples>, options| {
        model.train(examples, held_out, &options, |_| trimtab_reply::Continue).unwrap_err()
    };
    for options in [
        trimtab_train_options { lr: -1.0, ..chosen() },
        trimtab_train_options { lr: f64::NAN, ..chosen() },
        trimtab_train_options { hold_out: 1.0, ..chosen() },
        trimtab_train_options { hold_out: f64::NAN, ..chosen() },
        trimtab_train_options { patience: 2, ..chosen() },
        trimtab_train_options { terms: terms.as_ptr(), ..chosen() },
        trimtab_train_options { layers_from: 9, ..chosen() },
        trimtab_train_options { layers_from: 1, layers_to: 1, ..chosen() },
        trimtab_train_options { memory: 1, ..chosen() },
    ] {
        let e = train(&examples, None, options);
        assert_eq!(e.0, trimtab_status::Argument, "{options:?}: {}", e.1);
    }
    let none = Examples::new();
    assert_eq!(train(&none, None, chosen()).0, trimtab_status::Data);
    assert_eq!(train(&examples, Some(&none), chosen()).0, trimtab_status::Argument);
    none.add("no label", None, None);
    let e = train(&none, None, chosen());
    assert_eq!(e, (trimtab_status::Data, "the examples:1: there is no label".to_owned()));
    let named = Model::new(&base, "classify", &["good", "worse"]);
    let e = named.train(&examples, None, &chosen(), |_| trimtab_reply::Continue).unwrap_err();
    assert!(e.0 == trimtab_status::Data && e.1.contains("unknown label `bad`"), "{e:?}");
    assert!(model.try_predict("it").is_err(), "nothing of it was learned");
}
