use super::*;
use crate::config::{Config, Family, Gelu};
use serde_json::json;

fn config() -> Config {
    Config {
        family: Family::Bert,
        hidden: 4,
        intermediate: 8,
        layers: 2,
        heads: 2,
        vocab: 9,
        max_positions: 16,
        first_position: 0,
        embedding: None,
        types: 2,
        layer_norm_eps: 1e-12,
        gelu: Gelu::Erf,
    }
}

fn sample() -> BiasFile {
    let values = |n: usize| (0..n).map(|i| i as f32 * 0.25 - 1.0).collect::<Vec<f32>>();
    BiasFile {
        task: Task::classify(["no", "yes \"é\""]),
        pooling: Pooling::Mean,
        terms: "m2,ln2".into(),
        layers: (1, 2),
        max_len: 128,
        stride: None,
        base_fingerprint: "abc".into(),
        base_name: "tiny".into(),
        metrics: json!({"accuracy": 0.5, "mcc": 0.25}),
        settings: json!({"seed": 7}),
        tensors: BTreeMap::from([
            ("bert.encoder.layer.1.intermediate.dense.bias".into(), (vec![8], values(8))),
            ("bert.encoder.layer.1.output.LayerNorm.bias".into(), (vec![4], values(4))),
            ("classifier.bias".into(), (vec![2], values(2))),
            ("classifier.weight".into(), (vec![2, 4], values(8))),
        ]),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn comes_back_and_equal_content_gives_equal_bytes() {
    let dir = folder();
    for half in [false, true] {
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = sample(); // values that f16 holds exactly
        file.save(&a, half).unwrap();
        let back = BiasFile::open(&a).unwrap();
        assert_eq!(back, file);
        back.save(&b, half).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "temporary files stay: {left:?}");
}

#[test]
fn other_readers_can_open_it() {
    let dir = folder();
    let path = dir.path().join("a");
    sample().save(&path, true).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let bias = tensors.tensor("classifier.bias").unwrap();
    assert_eq!((bias.dtype(), bias.shape()), (Dtype::F16, &[2][..]));
    assert_eq!(bias.data(), [f16::from_f32(-1.0).to_le_bytes(), f16::from_f32(-0.75).to_le_bytes()].concat());
}

#[test]
fn failed_save_leaves_the_old_file() {
    let dir = folder();
    let path = dir.path().join("a");
    sample().save(&path, false).unwrap();
    let before = std::fs::read(&path).unwrap();
    let mut bad = sample();
    bad.tensors.get_mut("classifier.bias").unwrap().1[1] = 1e6;
    assert!(bad.save(&path, true).unwrap_err().to_string().contains("too large for f16"));
    for value in [f32::NAN, f32::INFINITY] {
        bad.tensors.get_mut("classifier.bias").unwrap().1[1] = value;
        let e = bad.save(&path, false).unwrap_err().to_string();
        assert!(e.contains("tensor `classifier.bias`: value 1 is"), "{e}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(matches!(sample().save(&dir.path().join("no/such/a"), false), Err(Error::Io { .. })));
}

#[test]
fn another_base_is_refused_by_name() {
    let file = sample();
    assert!(file.check_base(Path::new("me"), Path::new("base"), "abc").is_ok());
    let e = file.check_base(Path::new("me"), Path::new("base"), "xyz").unwrap_err();
    assert!(matches!(e, Error::WrongBase { .. }));
    let text = e.to_string();
    assert!(["me", "base", "abc", "xyz"].iter().all(|w| text.contains(w)), "{text}");
}

#[test]
fn applies_all_or_nothing() {
    let layout = Layout::new(&config(), Pooling::Mean, 2);
    let path = Path::new("me");
    let mut theta = vec![9.0; layout.len()];
    let file = sample();
    file.apply(path, &layout, &mut theta).unwrap();
    let mut touched = 0;
    for p in layout.iter() {
        match file.tensors.get(&p.name) {
            Some((_, values)) => {
                assert_eq!(&theta[p.range.clone()], values.as_slice());
                touched += 1;
            }
            None => assert!(theta[p.range.clone()].iter().all(|v| *v == 9.0), "{}", p.name),
        }
    }
    assert_eq!(touched, 4);

    let untouched = vec![9.0; layout.len()];
    let refuse = |change: &dyn Fn(&mut BiasFile), words: &[&str]| {
        let (mut file, mut theta) = (sample(), untouched.clone());
        change(&mut file);
        let e = file.apply(path, &layout, &mut theta).unwrap_err().to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
        assert_eq!(theta, untouched);
    };
    refuse(
        &|f| drop(f.tensors.insert("bert.pooler.dense.bias".into(), (vec![4], vec![0.0; 4]))),
        &["bert.pooler.dense.bias", "no such parameter"],
    );
    refuse(
        &|f| drop(f.tensors.insert("classifier.weight".into(), (vec![2, 3], vec![0.0; 6]))),
        &["classifier.weight", "[2, 4]", "[2, 3]"],
    );
    refuse(
        &|f| f.tensors.get_mut("classifier.weight").unwrap().1[3] = f32::NAN,
        &["classifier.weight", "NaN"],
    );
    refuse(&|f| drop(f.tensors.remove("classifier.bias")), &["classifier.bias", "missing"]);
    assert!(sample().apply(path, &layout, &mut [0.0; 3]).is_err());
}

#[test]
fn answers_have_a_stride_and_a_head_of_their_own() {
    let dir = folder();
    let path = dir.path().join("a");
    let mut file = BiasFile { task: Task::Qa, pooling: Pooling::Tokens, stride: Some(42), ..sample() };
    assert!(file.save(&path, false).unwrap_err().to_string().contains("`qa_outputs.weight`: is missing"));
    for part in ["weight", "bias"] {
        let tensor = file.tensors.remove(&format!("classifier.{part}")).unwrap();
        file.tensors.insert(format!("qa_outputs.{part}"), tensor);
    }
    file.save(&path, false).unwrap();
    assert_eq!(BiasFile::open(&path).unwrap(), file);
    let layout = Layout::new(&config(), Pooling::Tokens, 2).with_head("qa_outputs");
    file.apply(&path, &layout, &mut vec![0.0; layout.len()]).unwrap();
    file.stride = None;
    assert!(file.save(&path, false).unwrap_err().to_string().contains("`stride` None does not go with qa"));
}

/// A file with the sample's tensors, its header changed by `change`.
fn altered(change: impl Fn(String) -> String) -> Result<BiasFile> {
    let dir = folder();
    let path = dir.path().join("a");
    sample().save(&path, false).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let old = String::from_utf8(bytes[8..end].to_vec()).unwrap();
    let header = change(old.clone());
    assert_ne!(header, old, "the change found nothing to change");
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&bytes[end..]);
    std::fs::write(&path, out).unwrap();
    BiasFile::open(&path)
}

#[test]
fn metadata_is_not_trusted() {
    let cases = [
        ("\"format\":\"trimtab-bias\"", "\"format\":\"trimtab-base\"", "not a bias file"),
        ("\"format\":", "\"other\":", "without trimtab's metadata"),
        ("\"version\":\"1\"", "\"version\":\"2\"", "version \"2\""),
        ("\"task\":\"classify\"", "\"task\":\"taq\"", "unknown task `taq`"),
        ("\"task\":\"classify\"", "\"task\":\"tag\"", "`pooling` mean does not go with tag"),
        ("\"pooling\":\"mean\"", "\"pooling\":\"max\"", "`pooling`"),
        ("\"pooling\":\"mean\"", "\"pooling\":\"mea\\\"n\"", "`pooling`"),
        ("\"layers\":\"1..2\"", "\"layers\":\"1\"", "`layers`"),
        ("\"layers\":\"1..2\"", "\"layers\":\"2..1\"", "`layers`"),
        ("\"terms\":\"m2,ln2\"", "\"terms\":\"m2,zz\"", "`zz`"),
        ("\"max_len\":\"128\"", "\"max_len\":\"-1\"", "`max_len`"),
        ("\"max_len\":\"128\"", "\"max_len\":\"0\"", "`max_len`"),
        ("\"base_name\"", "\"base_nam\"", "`base_name`"),
        ("[\\\"no\\\",", "[\\\"no\\\",\\\"x\\\",", "3 outputs"),
        ("[\\\"no\\\",", "[", "2 labels or more"),
        ("[\\\"no\\\",", "[\\\"a\\\",\\\"a\\\",", "there twice"),
        ("[\\\"no\\\",", "[1,", "`labels`"),
        ("\"dtype\":\"F32\",\"shape\":[8]", "\"dtype\":\"I32\",\"shape\":[8]", "I32"),
        ("\"shape\":[8]", "\"shape\":[9]", "intermediate.dense.bias"),
        ("\"classifier.bias\"", "\"klassifier.bias\"", "classifier.bias"),
    ];
    for (from, to, word) in cases {
        let e = altered(|h| h.replace(from, to)).expect_err(to);
        assert!(e.to_string().contains(word), "{to}: {e}");
        assert_eq!(e.exit_code(), 2);
    }
}

#[test]
fn damaged_files_are_errors() {
    let dir = folder();
    let path = dir.path().join("a");
    sample().save(&path, false).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(BiasFile::open(&path).is_err(), "the first {length} bytes open");
    }
    let mut nan = whole.clone();
    let n = nan.len();
    nan[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &nan).unwrap();
    assert!(matches!(BiasFile::open(&path), Err(Error::Tensor { .. })));
    let mut huge = whole;
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &huge).unwrap();
    assert!(matches!(BiasFile::open(&path), Err(Error::Format { .. })));
    assert!(matches!(BiasFile::open(dir.path()), Err(Error::Io { .. })));
    let sparse = dir.path().join("sparse");
    File::create(&sparse).unwrap().set_len(FILE_BYTES_MAX + 9).unwrap();
    assert!(BiasFile::open(&sparse).unwrap_err().to_string().contains("256 MiB"));
}
