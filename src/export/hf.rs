//! A directory that `transformers` loads: config, tokenizer, weights in f32 with the biases merged.
//!
//! The weights are the base's, `q · scale`, so the answers are those of `--exact`.
//!
//! | task, pooling | class |
//! |---|---|
//! | `classify`, `multilabel`, `regress` by `cls` | the family's `…ForSequenceClassification` |
//! | the same by `mean`, or by the first token without a pooler | one in the directory's own `modeling_trimtab.py`, for `trust_remote_code=True`: `transformers` has none |
//! | `tag` | `…ForTokenClassification` |
//! | `qa` | `…ForQuestionAnswering` |
//! | `contrastive` | `…Model`, with the files by which `sentence-transformers` pools as the base does |

use super::directory::Directory;
use super::weights::{self, Tensor, Values};
use super::{Merged, Report, json, tokenizer};
use crate::config::{Family, Gelu, Module, Pooling};
use crate::error::Result;
use crate::import::canonical::Kind as TensorKind;
use crate::model::Model;
use crate::task::Kind;
use serde_json::{Map, Value, json};
use std::path::Path;

const MODELING: &str = "modeling_trimtab.py";
const POOLING: &str = "1_Pooling/config.json";
/// Every file and directory that an export may have.
const FILES: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    MODELING,
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling",
];

/// Writes the directory `out`, which must not be there or be empty; with `force` an earlier export there is replaced.
///
/// Errors: `Error::Config` for what stands at `out`; `Error::Io`. What stood there then still does.
pub fn export(model: &Model, out: &Path, force: bool) -> Result<Report> {
    let m = Merged::of(model)?;
    let mut dir = Directory::begin(out, force, &FILES)?;
    let tensors = tensors(&m)?;
    dir.reserve("model.safetensors", weights::bytes(&tensors)?)?;
    let words = m.task.kind() == Kind::Tag;
    let (tokenizer_config, pad) = tokenizer::config(m.base.tokenizer_bytes(), m.config(), m.max_len, words);
    let what = class(&m);
    dir.small("config.json", &json(&config(&m, &what, pad, m.has_own_class()))?)?;
    dir.small("tokenizer.json", m.base.tokenizer_bytes())?;
    dir.small("tokenizer_config.json", &json(&tokenizer_config)?)?;
    if m.has_own_class() {
        dir.small(MODELING, modeling(m.config().family).as_bytes())?;
    }
    if m.task.kind() == Kind::Contrastive {
        sentence_transformers(&m, &mut dir)?;
    }
    dir.file("model.safetensors", |file| weights::write(&tensors, file))?;
    Ok(Report { what, bytes: dir.finish()?, beside: Vec::new() })
}

/// What classes of `transformers` begin with.
fn class_prefix(family: Family) -> &'static str {
    match family {
        Family::Bert => "Bert",
        Family::Roberta => "Roberta",
        Family::DistilBert => "DistilBert",
        Family::Electra => "Electra",
    }
}

fn class(m: &Merged) -> String {
    match m.has_own_class() {
        true => format!("{}ForSequenceClassification", own_class(m)),
        false => nearest_class(m),
    }
}

/// The class of `transformers` for the task; its head reads the pooler's vector.
pub(super) fn nearest_class(m: &Merged) -> String {
    let family = class_prefix(m.config().family);
    match m.task.kind() {
        Kind::Tag => format!("{family}ForTokenClassification"),
        Kind::Qa => format!("{family}ForQuestionAnswering"),
        Kind::Contrastive => format!("{family}Model"),
        _ => format!("{family}ForSequenceClassification"),
    }
}

/// What the classes of an export's own begin with.
fn own_class(m: &Merged) -> &'static str {
    match m.pooling {
        Pooling::Apart => "Apart",
        Pooling::First => "First",
        _ => "Mean",
    }
}

fn modeling(family: Family) -> String {
    // The others have no pooler in their `…Model`.
    let arguments = match family {
        Family::Bert | Family::Roberta => ", add_pooling_layer=False",
        Family::DistilBert | Family::Electra => "",
    };
    include_str!("modeling_trimtab.py")
        .replace("{Family}", class_prefix(family))
        .replace("{family}", family.name())
        .replace("{arguments}", arguments)
}

/// `config.json`; `own` says that the class is one that the export brings.
pub(super) fn config(m: &Merged, class: &str, pad: u64, own: bool) -> Value {
    let c = m.config();
    let [hidden, intermediate, layers, heads, activation] = c.family.keys();
    let gelu = if c.gelu == Gelu::Erf { "gelu" } else { "gelu_new" };
    let mut object = Map::from_iter(
        [
            ("model_type", json!(c.family.name())),
            ("architectures", json!([class])),
            (hidden, json!(c.hidden)),
            (intermediate, json!(c.intermediate)),
            (layers, json!(c.layers)),
            (heads, json!(c.heads)),
            (activation, json!(gelu)),
            ("vocab_size", json!(c.vocab)),
            ("max_position_embeddings", json!(c.max_positions)),
            ("pad_token_id", json!(pad)),
            ("torch_dtype", json!("float32")),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if c.family != Family::DistilBert {
        set("type_vocab_size", json!(c.types));
        // The shortest digits that are this f32: 1e-12 and not 9.999999960041972e-13.
        let eps: f64 = c.layer_norm_eps.to_string().parse().unwrap_or(f64::from(c.layer_norm_eps));
        set("layer_norm_eps", json!(eps));
    }
    if c.family == Family::Electra {
        set("embedding_size", json!(c.embedding_width()));
    }
    if own {
        let own = own_class(m);
        set("model_type", json!(format!("trimtab-{}-{}", own.to_lowercase(), c.family.name())));
        let file = MODELING.trim_end_matches(".py");
        let map = json!({
            "AutoConfig": format!("{file}.{own}Config"),
            "AutoModelForSequenceClassification": format!("{file}.{class}"),
        });
        set("auto_map", map);
    }
    let problem = match m.task.kind() {
        Kind::Classify => Some("single_label_classification"),
        Kind::Multilabel => Some("multi_label_classification"),
        Kind::Regress => Some("regression"),
        _ => None,
    };
    if let Some(problem) = problem {
        set("problem_type", json!(problem));
    }
    let only = ["LABEL_0".to_owned()];
    let labels = if m.task.kind() == Kind::Regress { &only } else { m.task.labels() };
    if !labels.is_empty() {
        let by_id: Map<_, _> = labels.iter().enumerate().map(|(i, l)| (i.to_string(), json!(l))).collect();
        let by_label: Map<_, _> = labels.iter().enumerate().map(|(i, l)| (l.clone(), json!(i))).collect();
        set("id2label", Value::Object(by_id));
        set("label2id", Value::Object(by_label));
    }
    Value::Object(object)
}

/// How `sentence-transformers` makes one vector of a text.
fn sentence_transformers(m: &Merged, dir: &mut Directory) -> Result<()> {
    let module = |idx: usize, path: &str, class: &str| json!({ "idx": idx, "name": idx.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}") });
    let pooling = json!({
        "word_embedding_dimension": m.config().hidden,
        "pooling_mode_cls_token": m.pooling == Pooling::First,
        "pooling_mode_mean_tokens": m.pooling == Pooling::Mean,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
    });
    let mut modules = vec![module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")];
    // `Merged::of` has refused Dense.
    if m.base.modules().contains(&Module::Normalize) {
        modules.push(module(2, "2_Normalize", "Normalize"));
    }
    dir.small("modules.json", &json(&Value::Array(modules))?)?;
    dir.small(
        "sentence_bert_config.json",
        &json(&json!({ "max_seq_length": m.max_len, "do_lower_case": false }))?,
    )?;
    dir.small(POOLING, &json(&pooling)?)
}

/// Every tensor of the class, in name order.
fn tensors(m: &Merged) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    // `BertModel` has a pooler whether it is read or not, and complains where it is not told.
    let idle = m.config().family == Family::Bert && m.task.kind() == Kind::Contrastive && m.base.has_pooler();
    for spec in m.specs(m.pooling == Pooling::Cls || idle) {
        let values = match spec.kind {
            TensorKind::Vector | TensorKind::Dense => Values::Floats(m.vector(&spec.name)?),
            TensorKind::Linear | TensorKind::Matrix => Values::Matrix(m.base.matrix(&spec.name)?),
        };
        tensors.push(Tensor { name: spec.name, shape: spec.shape, values });
    }
    if m.task.outputs() > 0 {
        let module = if m.has_own_class() { "classifier" } else { m.head_module() };
        let (outputs, features) = (m.task.outputs(), m.features());
        for (part, shape, values) in
            [("weight", vec![outputs, features], m.head()[0]), ("bias", vec![outputs], m.head()[1])]
        {
            let values = Values::Floats(values.to_vec());
            tensors.push(Tensor { name: format!("{module}.{part}"), shape, values });
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
