//! Broken and hostile checkpoints and bases: an error that names the file and the tensor, never a panic.

mod common;

use common::{Tiny, bytes_of, join, join_raw, split};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use trimtab::import::Checkpoint;
use trimtab::quant::{Base, quantize};

const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";
const NORM: &str = "bert.embeddings.LayerNorm.weight";

/// What happened to something that must not work: the error's text.
fn refused<T: std::fmt::Debug>(result: trimtab::Result<T>, wanted: &[&str]) {
    let error = result.expect_err("it was accepted").to_string();
    for part in wanted {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

/// Ways to break any safetensors file; with what the error must name. `tensor` is one it holds, not the first.
fn broken_containers(good: &[u8], tensor: &str) -> Vec<(Vec<u8>, Vec<String>)> {
    let (header, data) = split(good);
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header);
        join(&header, &data)
    };
    let named = |what: &str| vec![format!("`{tensor}`"), what.to_owned()];
    let says = |what: &str| vec![what.to_owned()];
    let mut not_utf8 = header.to_string().into_bytes();
    not_utf8[3] = 0xff;
    let (start, end) = (
        header[tensor]["data_offsets"][0].as_u64().unwrap(),
        header[tensor]["data_offsets"][1].as_u64().unwrap(),
    );
    let huge = u64::MAX;
    vec![
        (vec![], says("")),
        (good[..5].to_vec(), says("5 bytes is too short")),
        (good[..100].to_vec(), says("truncated")),
        (good[..good.len() - 1].to_vec(), says("truncated")),
        ([good, b"x"].concat(), says("1 bytes after the last tensor")),
        ([&huge.to_le_bytes(), &good[8..]].concat(), says("does not fit")),
        ([&(good.len() as u64).to_le_bytes(), &good[8..]].concat(), says("does not fit")),
        (join_raw(&vec![b' '; 17 << 20], b""), says("at most 16777216 are read")),
        (join_raw(&not_utf8, &data), says("not UTF-8")),
        (join_raw(b"{\"a\":", b""), says("not valid safetensors JSON")),
        (join_raw("[".repeat(100_000).as_bytes(), b""), says("not valid safetensors JSON")),
        (edit(&|h| h[tensor]["data_offsets"][0] = (start - 4).into()), named("overlaps")),
        (edit(&|h| h[tensor]["data_offsets"] = json!([start + 4, end])), named("hole of 4 bytes")),
        (edit(&|h| h[tensor]["data_offsets"] = json!([start, start - 1])), named("truncated")),
        (edit(&|h| h[tensor]["data_offsets"] = json!([start, huge])), named("truncated")),
        (edit(&|h| h[tensor]["shape"] = json!([huge, huge])), named("more than can be addressed")),
        (edit(&|h| h[tensor]["shape"] = json!([1u64 << 40])), named("takes")),
        (edit(&|h| h[tensor]["shape"] = json!([-1])), says("not valid safetensors JSON")),
        (edit(&|h| h[tensor]["dtype"] = "Q7".into()), says("Q7")),
        (edit(&|h| h[tensor] = 7.into()), says("not valid safetensors JSON")),
        (edit(&|h| h["__metadata__"] = json!({"a": 1})), says("not valid safetensors JSON")),
        // Offsets whose sum with the header's length overflows.
        (
            join(&json!({"x": {"dtype": "U8", "shape": [huge - 4], "data_offsets": [0, huge - 4]}}), b""),
            vec!["`x`".to_owned()],
        ),
    ]
}

#[test]
fn checkpoint_with_a_broken_container() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    Tiny::new(1).write(dir);
    let path = dir.join("model.safetensors");
    let good = fs::read(&path).unwrap();
    for (bytes, wanted) in broken_containers(&good, QUERY) {
        fs::write(&path, bytes).unwrap();
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        wanted.push("model.safetensors: ");
        refused(Checkpoint::open(dir), &wanted);
    }
}

#[test]
fn base_with_a_broken_container() {
    let temp = tempfile::tempdir().unwrap();
    let path = Tiny::new(1).write_base(temp.path());
    let good = fs::read(&path).unwrap();
    Base::open(&path).unwrap();
    for (bytes, wanted) in broken_containers(&good, QUERY) {
        fs::write(&path, bytes).unwrap();
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        wanted.push("tiny.q8.safetensors: ");
        refused(Base::open(&path), &wanted);
    }
    refused(Base::open(temp.path().join("none")), &["none: "]);
}

#[test]
fn checkpoint_with_wrong_tensors() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let good = Tiny::new(2);
    let write = |change: &dyn Fn(&mut Tiny)| {
        let mut tiny = good.clone();
        change(&mut tiny);
        tiny.write(dir);
    };
    write(&|t| drop(t.tensors.remove(QUERY)));
    refused(Checkpoint::open(dir), &["model.safetensors", QUERY, "missing", "[32, 32]"]);
    write(&|t| drop(t.tensors.remove("bert.pooler.dense.bias")));
    refused(Checkpoint::open(dir), &["bert.pooler.dense.bias", "missing"]);
    write(&|t| t.tensors.get_mut(QUERY).unwrap().0 = vec![16, 64]);
    refused(Checkpoint::open(dir), &["model.safetensors", QUERY, "expected shape [32, 32], found [16, 64]"]);
    write(&|t| t.config["num_hidden_layers"] = 3.into());
    refused(Checkpoint::open(dir), &["bert.encoder.layer.2.", "missing"]);

    let int = |dtype: &str| {
        let path = dir.join("model.safetensors");
        write(&|_| {});
        let (mut header, data) = split(&fs::read(&path).unwrap());
        header[NORM]["dtype"] = dtype.into();
        fs::write(&path, join(&header, &data)).unwrap();
        refused(Checkpoint::open(dir), &["model.safetensors", NORM, "expected F32, F16 or BF16", dtype]);
    };
    int("I32");
    int("U32");
}

#[test]
fn weights_that_are_not_finite_and_what_is_left_behind() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out) = (temp.path().join("tiny"), temp.path().join("out.q8.safetensors"));
    fs::write(&out, "what was there before").unwrap();
    // The last tensors in name order, so that most of the file is written by then.
    for (name, at, place) in
        [("bert.pooler.dense.weight", 70, "[2, 6]"), ("bert.pooler.dense.bias", 5, "[5]")]
    {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut tiny = Tiny::new(3);
                tiny.tensors.get_mut(name).unwrap().1[at] = bad;
                tiny.write_as(&dir, dtype, |name| (name.to_owned(), "model.safetensors"));
                let checkpoint = Checkpoint::open(&dir).unwrap();
                let result = quantize(&checkpoint, &out, &mut |_, _| std::ops::ControlFlow::Continue(()));
                refused(result, &["model.safetensors", name, &format!("{bad} at {place}"), "finite"]);
            }
        }
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), "what was there before");
    let mut left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["out.q8.safetensors", "tiny"]);
}

#[test]
fn targets_that_cannot_be_written() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tiny");
    Tiny::new(4).write(&dir);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let missing = temp.path().join("no such folder").join("out.q8.safetensors");
    refused(
        quantize(&checkpoint, &missing, &mut |_, _| std::ops::ControlFlow::Continue(())),
        &["no such folder"],
    );
    let folder = temp.path().join("folder");
    fs::create_dir(&folder).unwrap();
    refused(quantize(&checkpoint, &folder, &mut |_, _| std::ops::ControlFlow::Continue(())), &["folder"]);
    let below_a_file = dir.join("config.json").join("out.q8.safetensors");
    refused(
        quantize(&checkpoint, &below_a_file, &mut |_, _| std::ops::ControlFlow::Continue(())),
        &["out.q8.safetensors"],
    );
    let mut left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["folder", "tiny"]);
}

#[cfg(unix)]
#[test]
fn a_base_is_an_ordinary_file() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let path = Tiny::new(4).write_base(temp.path());
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    fs::write(temp.path().join("plain"), "").unwrap();
    assert_eq!(mode(&path), mode(&temp.path().join("plain")));
}

#[test]
fn weights_that_change_after_they_were_opened() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tiny");
    Tiny::new(5).write(&dir);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let file = fs::OpenOptions::new().write(true).open(dir.join("model.safetensors")).unwrap();
    file.set_len(9000).unwrap();
    let out = temp.path().join("out.q8.safetensors");
    refused(
        quantize(&checkpoint, &out, &mut |_, _| std::ops::ControlFlow::Continue(())),
        &["model.safetensors"],
    );
    assert!(!out.exists());
}

#[test]
fn configs_that_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let good = Tiny::new(6);
    good.write(dir);
    Checkpoint::open(dir).unwrap();
    let without = |key: &str| {
        let mut config = good.config.clone();
        config.as_object_mut().unwrap().remove(key);
        config
    };
    let with = |key: &str, value: Value| {
        let mut config = good.config.clone();
        config[key] = value;
        config
    };
    let mut cases = vec![
        (
            with("model_type", "albert".into()),
            "`albert` is not supported; supported: bert, roberta, distilbert, electra".to_owned(),
        ),
        (with("hidden_act", "relu".into()), "`relu` is not supported; supported: gelu".to_owned()),
        (
            with("position_embedding_type", "relative_key".into()),
            "`relative_key` is not supported".to_owned(),
        ),
        (with("is_decoder", true.into()), "is_decoder".to_owned()),
        (with("num_attention_heads", 5.into()), "not a multiple".to_owned()),
        (with("layer_norm_eps", 0.into()), "`layer_norm_eps` is 0".to_owned()),
        (with("layer_norm_eps", (-1e-12).into()), "`layer_norm_eps`".to_owned()),
        (with("layer_norm_eps", "small".into()), "`layer_norm_eps`".to_owned()),
        (with("hidden_act", 3.into()), "`hidden_act`".to_owned()),
        (json!([1, 2]), "not a JSON object".to_owned()),
    ];
    let sizes = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
    ];
    for key in sizes {
        for value in
            [json!(0), json!(-1), json!(1.5), json!("8"), json!(1u64 << 40), json!(u64::MAX), json!(null)]
        {
            cases.push((with(key, value), format!("`{key}`")));
        }
    }
    // Their defaults are those of BERT-base, which these weights are not. The other keys' defaults are theirs.
    for key in sizes.into_iter().filter(|key| *key != "type_vocab_size") {
        cases.push((without(key), format!("`{key}` is missing")));
    }
    for (config, wanted) in cases {
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        refused(Checkpoint::open(dir), &["config.json: ", &wanted]);
    }
    fs::write(dir.join("config.json"), b"\xff\xfe").unwrap();
    refused(Checkpoint::open(dir), &["config.json: ", "not a JSON object"]);
    fs::write(dir.join("config.json"), vec![b' '; 2 << 20]).unwrap();
    refused(Checkpoint::open(dir), &["config.json: ", "longer than"]);
}

#[test]
fn poolings_that_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(7);
    for (pooling, wanted) in [
        (json!({"pooling_mode_max_tokens": true}), "`max` is not supported"),
        (json!({"pooling_mode_mean_sqrt_len_tokens": true}), "`mean_sqrt_len` is not supported"),
        (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}), "`cls` with `mean`"),
        (json!({"pooling_mode": "lasttoken"}), "`lasttoken` is not supported"),
        (json!({"pooling_mode_mean_tokens": false}), "names no pooling mode"),
        (json!([]), "not a JSON object"),
    ] {
        tiny.pooling = Some(pooling);
        tiny.write(temp.path());
        refused(Checkpoint::open(temp.path()), &["1_Pooling", "config.json: ", wanted]);
    }
}

#[test]
fn directories_that_lack_something() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tiny");
    refused(Checkpoint::open(&dir), &["tiny: "]);
    Tiny::new(8).write(&dir);
    refused(Checkpoint::open(&dir.join("config.json")), &["config.json: not a directory"]);
    let without = |name: &str| fs::rename(dir.join(name), temp.path().join(name)).unwrap();
    let restore = |name: &str| fs::rename(temp.path().join(name), dir.join(name)).unwrap();
    without("config.json");
    refused(Checkpoint::open(&dir), &["it has no config.json"]);
    restore("config.json");
    without("tokenizer.json");
    refused(Checkpoint::open(&dir), &["tokenizer.json: missing", "AutoTokenizer"]);
    fs::write(dir.join("tokenizer.json"), "{").unwrap();
    refused(Checkpoint::open(&dir), &["tokenizer.json: not JSON"]);
    restore("tokenizer.json");
    without("model.safetensors");
    refused(Checkpoint::open(&dir), &["neither model.safetensors nor model.safetensors.index.json"]);
    fs::write(dir.join("pytorch_model.bin"), "pickle").unwrap();
    refused(Checkpoint::open(&dir), &["pytorch_model.bin", "convert", "safetensors"]);
    restore("model.safetensors");
    Checkpoint::open(&dir).unwrap();
}

#[test]
fn indexes_that_lie() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tiny");
    let tiny = Tiny::new(9);
    let place =
        |name: &str| (name.to_owned(), ["a.safetensors", "b.safetensors"][usize::from(name == QUERY)]);
    tiny.write_as(&dir, Dtype::F32, place);
    Checkpoint::open(&dir).unwrap();
    fs::copy(dir.join("b.safetensors"), temp.path().join("b.safetensors")).unwrap();
    let path = dir.join("model.safetensors.index.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let absolute = temp.path().join("b.safetensors").display().to_string();
    for (shard, wanted) in [
        ("../b.safetensors", "not a plain file name"),
        ("..", "not a plain file name"),
        ("", "not a plain file name"),
        ("sub/../b.safetensors", "not a plain file name"),
        ("..\\b.safetensors", "not a plain file name"),
        ("C:b.safetensors", "not a plain file name"),
        (&absolute, "not a plain file name"),
        ("c.safetensors", "shard `c.safetensors` is not there"),
    ] {
        let mut index = good.clone();
        index["weight_map"][QUERY] = shard.into();
        fs::write(&path, index.to_string()).unwrap();
        refused(Checkpoint::open(&dir), &["model.safetensors.index.json: ", wanted]);
    }
    let mut index = good.clone();
    index["weight_map"][QUERY] = "a.safetensors".into();
    fs::write(&path, index.to_string()).unwrap();
    refused(Checkpoint::open(&dir), &["a.safetensors: ", QUERY, "missing, though the index"]);
    index["weight_map"].as_object_mut().unwrap().remove(QUERY);
    fs::write(&path, index.to_string()).unwrap();
    refused(Checkpoint::open(&dir), &["model.safetensors.index.json: ", QUERY, "missing"]);
    fs::write(&path, "{\"weight_map\": []}").unwrap();
    refused(Checkpoint::open(&dir), &["model.safetensors.index.json: ", "not a safetensors index"]);
}

#[test]
fn bases_that_do_not_keep_to_the_format() {
    let temp = tempfile::tempdir().unwrap();
    let path = Tiny::new(10).write_base(temp.path());
    let (header, data) = split(&fs::read(&path).unwrap());
    let open = |header: &Value, data: &[u8], wanted: &[&str]| {
        fs::write(&path, join(header, data)).unwrap();
        let mut wanted = wanted.to_vec();
        wanted.push("tiny.q8.safetensors: ");
        refused(Base::open(&path), &wanted);
    };
    let meta = |key: &str, value: &str, wanted: &[&str]| {
        let mut header = header.clone();
        header["__metadata__"][key] = value.into();
        open(&header, &data, wanted);
    };
    meta("format", "pt", &["not a trimtab base", "trimtab quantize"]);
    meta("format", "trimtab-bias", &["a trimtab-bias file, not a base"]);
    meta("version", "1", &["version \"1\"", "reads \"2\"", "quantize"]);
    meta("scheme", "int4", &["scheme \"int4\""]);
    meta("pooling", "max", &["`pooling` is \"max\""]);
    meta("pooler", "yes", &["`pooler` is \"yes\""]);
    meta("pooler", "false", &["`pooling` is cls"]);
    meta("name", "a\u{1b}[2Jb", &["`name` is \"a\\u{1b}"]);
    meta("fingerprint", "abc", &["`fingerprint` is \"abc\""]);
    meta("weights_sha256", &"G".repeat(64), &["`weights_sha256`"]);
    meta("config", "{}", &["`config`", "hidden"]);
    let config = header["__metadata__"]["config"].as_str().unwrap();
    meta(
        "config",
        &config.replace("\"hidden\":32", "\"hidden\":4294967296"),
        &["`hidden_size`", "must be 1 to"],
    );
    meta("config", &config.replace("\"heads\":2", "\"heads\":0"), &["`num_attention_heads`"]);
    meta("config", &config.replace("\"layers\":2", "\"layers\":3"), &["bert.encoder.layer.2.", "missing"]);
    meta("config", &config.replace("\"layers\":2", "\"layers\":1"), &["tensors; this encoder has"]);
    meta(
        "config",
        &config.replace("\"vocab\":", "\"vocab\":1"),
        &["word_embeddings.weight", "expected I8 [1"],
    );
    for key in ["version", "config", "pooling", "fingerprint", "name"] {
        let mut header = header.clone();
        header["__metadata__"].as_object_mut().unwrap().remove(key);
        open(&header, &data, &[&format!("metadata `{key}` is missing")]);
    }
    for (tensor, key, value, wanted) in [
        (QUERY, "dtype", json!("U8"), "expected I8 [4, 16, 16, 4], found U8 [4, 16, 16, 4]"),
        (QUERY, "shape", json!([64, 64]), "expected I8 [4, 16, 16, 4], found I8 [64, 64]"),
        (NORM, "dtype", json!("I32"), "expected F32 [32], found I32 [32]"),
        (NORM, "shape", json!([4, 8]), "expected F32 [32], found F32 [4, 8]"),
        ("tokenizer.json", "dtype", json!("I8"), "expected U8"),
    ] {
        let mut header = header.clone();
        header[tensor][key] = value;
        open(&header, &data, &[tensor, wanted]);
    }
    for tensor in [QUERY, NORM, "tokenizer.json"] {
        let mut header = header.clone();
        let entry = header.as_object_mut().unwrap().remove(tensor).unwrap();
        header["other"] = entry;
        open(&header, &data, &[tensor, "missing"]);
    }
    let mut more = header.clone();
    more["other"] = json!({"dtype": "U8", "shape": [0], "data_offsets": [data.len(), data.len()]});
    open(&more, &data, &["tensors; this encoder has"]);

    let patched = |tensor: &str, value: f32| {
        let mut data = data.clone();
        let at = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + 4 * 3;
        data[at..at + 4].copy_from_slice(&bytes_of(&[value], Dtype::F32));
        data
    };
    let scale = &format!("{QUERY}.scale");
    for (value, wanted) in [
        (0.0, "scale 0 at [3]"),
        (-1.0, "scale -1 at [3]"),
        (f32::NAN, "NaN at [3]"),
        (f32::INFINITY, "inf at [3]"),
    ] {
        open(&header, &patched(scale, value), &[scale, wanted]);
    }
    open(&header, &patched(NORM, f32::NAN), &[NORM, "NaN at [3]; must be finite"]);
    // One space fewer before the data: everything is off by a byte.
    let text = [header.to_string().as_bytes(), b" "].concat();
    let text = if (text.len() + 8).is_multiple_of(4) { text[..text.len() - 1].to_vec() } else { text };
    fs::write(&path, join_raw(&text, &data)).unwrap();
    refused(Base::open(&path), &["tiny.q8.safetensors: ", "does not lie at a multiple of 4"]);
}

#[test]
fn verify_finds_what_open_does_not_look_at() {
    let temp = tempfile::tempdir().unwrap();
    let path = Tiny::new(11).write_base(temp.path());
    let good = fs::read(&path).unwrap();
    let (header, _) = split(&good);
    let data_start = good.len() - header["tokenizer.json"]["data_offsets"][1].as_u64().unwrap() as usize;
    let at = |tensor: &str| data_start + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let flip = |place: usize, to: u8| {
        let mut bytes = good.clone();
        assert_ne!(bytes[place], to);
        bytes[place] = to;
        // Beside and renamed, as a base that is mapped must be replaced.
        fs::write(path.with_extension("new"), bytes).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        Base::open(&path).unwrap().verify()
    };
    let seven = if good[at(QUERY)] == 7 { 8 } else { 7 };
    refused(flip(at(QUERY), seven), &["tiny.q8.safetensors: damaged or changed: `fingerprint`"]);
    refused(flip(at(QUERY), 0x80), &[QUERY, "-128"]);
    refused(flip(at(NORM), good[at(NORM)] ^ 1), &["damaged or changed: `fingerprint`"]);
    refused(flip(at("tokenizer.json"), b'['), &["damaged or changed: `fingerprint`"]);
}
