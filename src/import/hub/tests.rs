//! Against hubs of our own on 127.0.0.1.

mod network;
mod resume;
mod server;

use super::http::Limits;
use super::*;
use server::{API, Act, Files, SHA, Server, file, hub, listing, model, response};
use std::ffi::OsString;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Bounds that let a test end within seconds.
fn limits() -> Limits {
    Limits {
        connect: 5000 * MS,
        stall: 1000 * MS,
        window: 10_000 * MS,
        window_bytes: 1000,
        redirects: 10,
        tries: 4,
        pause: 10 * MS,
        longest_pause: 2000 * MS,
        lock_wait: 60_000 * MS,
    }
}

fn settings(endpoint: &str, cache: &Path) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        cache: cache.to_owned(),
        token: None,
        offline: false,
        limits: limits(),
        proxy: None,
    }
}

/// Pulls `owner/tiny` at `main` into the cache at `cache`.
fn pull_to(endpoint: &str, cache: &Path) -> Result<PathBuf> {
    Hub::new(settings(endpoint, cache), "owner/tiny")?.pull("main", None, &mut |_, _, _| {})
}

/// The same, where the hub is expected to be of no use.
fn error_of(server: &Server) -> String {
    let temp = tempfile::tempdir().unwrap();
    let error = pull_to(&server.endpoint, temp.path()).unwrap_err().to_string();
    assert!(error.starts_with(&server.endpoint), "{error}");
    error
}

/// What is among the blobs in the end.
fn blobs(cache: &Path) -> Vec<String> {
    let dir = cache.join("models--owner--tiny/blobs");
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_holds(dir: &Path, files: &Files) {
    for (name, bytes) in files {
        assert!(std::fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
    }
}

#[test]
fn pulls_the_files_a_checkpoint_needs_and_no_others() {
    let modules = br#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_Normalize"}]"#;
    let files = vec![
        file("config.json"),
        file("tokenizer.json"),
        file("tokenizer_config.json"),
        file("sentence_bert_config.json"),
        file("model.safetensors"),
        ("modules.json", modules.to_vec()),
        file("1_Pooling/config.json"),
        file("2_Dense/config.json"),
        file("2_Dense/model.safetensors"),
        file("2_Dense/pytorch_model.bin"),
        file("9_Other/config.json"),
        file("pytorch_model.bin"),
    ];
    let server = hub(files.clone(), |_| None);
    let temp = tempfile::tempdir().unwrap();
    let hub = Hub::new(settings(&server.endpoint, temp.path()), "owner/tiny").unwrap();
    let into = temp.path().join("a").join("tiny");
    let mut seen = Vec::new();
    let mut progress = |name: &str, done: u64, total: Option<u64>| {
        if Some(done) == total {
            seen.push(name.to_owned());
        }
    };
    let dir = hub.pull("main", Some(&into), &mut progress).unwrap();
    assert_eq!(dir, into);
    seen.sort();
    seen.dedup();
    let mut wanted: Vec<_> =
        files.iter().map(|(n, _)| *n).filter(|n| !n.ends_with(".bin") && !n.starts_with('9')).collect();
    wanted.sort();
    assert_eq!(seen, wanted);
    for (name, bytes) in &files {
        let there = wanted.contains(name);
        assert_eq!(std::fs::read(into.join(name)).ok().as_ref(), there.then_some(bytes), "{name}");
    }
    // A second pull takes all of it from the cache, and does not touch a directory in use.
    let cached = hub.pull("main", None, &mut |_, _, _| panic!("fetched again")).unwrap();
    assert!(cached.ends_with(format!("models--owner--tiny/snapshots/{SHA}")), "{}", cached.display());
    let error = hub.pull("main", Some(&into), &mut |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    // By its commit it needs no network at all.
    let before = server.all().len();
    assert_eq!(hub.pull(SHA, None, &mut |_, _, _| panic!("fetched again")).unwrap(), cached);
    assert_eq!(server.all().len(), before);
}

/// As Python's `huggingface_hub` reads it: `refs`, links relative to their place, blobs named by the ETag.
#[test]
fn the_cache_is_laid_out_as_in_python() {
    let mut files = model();
    files.push(("modules.json", br#"[{"path": "1_Pooling"}]"#.to_vec()));
    files.push(file("1_Pooling/config.json"));
    let server = hub(files.clone(), |_| None);
    let temp = tempfile::tempdir().unwrap();
    let dir = pull_to(&server.endpoint, temp.path()).unwrap();
    let repo = temp.path().join("models--owner--tiny");
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), SHA);
    assert_eq!(dir, repo.join("snapshots").join(SHA));
    assert_holds(&dir, &files);
    #[cfg(unix)]
    {
        let link = |name: &str| std::fs::read_link(dir.join(name)).unwrap();
        assert_eq!(link("config.json"), Path::new("../../blobs/etag-config.json"));
        assert_eq!(link("1_Pooling/config.json"), Path::new("../../../blobs/etag-1_Pooling-config.json"));
    }
    let wanted =
        ["etag-1_Pooling-config.json", "etag-config.json", "etag-model.safetensors", "etag-modules.json"];
    assert_eq!(blobs(temp.path())[..4], wanted);
}

#[test]
fn a_file_system_without_links_will_do() {
    let server = hub(model(), |_| None);
    let temp = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(settings(&server.endpoint, temp.path()), "owner/tiny").unwrap();
    hub.cache.links = false;
    let dir = hub.pull("main", None, &mut |_, _, _| {}).unwrap();
    assert_holds(&dir, &model());
    assert!(!dir.join("config.json").is_symlink());
    assert!(blobs(temp.path()).is_empty());
    hub.pull("main", None, &mut |_, _, _| panic!("fetched again")).unwrap();
}

#[test]
fn follows_an_index_to_its_shards_but_not_out_of_the_repository() {
    for (shard, ok) in [
        ("a.safetensors", true),
        ("../a.safetensors", false),
        ("/etc/a.safetensors", false),
        ("b.safetensors", false),
        ("a\0.safetensors", false),
        ("x/../../a.safetensors", false),
    ] {
        let index = serde_json::json!({"weight_map": {"x": shard}}).to_string().into_bytes();
        let files = vec![
            file("config.json"),
            file("tokenizer.json"),
            ("model.safetensors.index.json", index),
            file("a.safetensors"),
        ];
        let server = hub(files, |_| None);
        let temp = tempfile::tempdir().unwrap();
        match pull_to(&server.endpoint, temp.path()) {
            Ok(dir) => assert!(ok && dir.join(shard).exists()),
            Err(e) => assert!(!ok && e.to_string().contains("is not a file of the repository"), "{e}"),
        }
    }
}

/// Folders of modules, names in the listing, ETags and the commit's name: none of them leads out of the cache.
#[test]
fn no_name_from_the_server_leaves_the_cache() {
    let bad = ["../../x", "/tmp/x", "..", "a/../../..", "C:\\x", "x\0y"];
    let modules = serde_json::to_vec(&bad.map(|path| serde_json::json!({ "path": path }))).unwrap();
    let mut files = model();
    files.push(("modules.json", modules));
    for name in
        ["../../x/config.json", "/tmp/x/config.json", "../config.json", "sentence_/../../x_config.json"]
    {
        files.push(file(name));
    }
    let served = files.clone();
    let server = hub(files, move |request| {
        let (_, bytes) = served.iter().find(|(name, _)| request.is(name))?;
        Some(Act::Send(response("200 OK", &[("ETag", "\"../../../escaped\"")], bytes)))
    });
    let temp = tempfile::tempdir().unwrap();
    let cache = temp.path().join("a/b/c");
    let dir = pull_to(&server.endpoint, &cache).unwrap();
    assert_holds(&dir, &model());
    assert_eq!(files_below(&dir).len(), 4, "{:?}", files_below(&dir));
    for path in files_below(temp.path()) {
        assert!(path.starts_with("a/b/c/models--") || path.starts_with("a/b/c/.locks/"), "{path}");
    }
    for sha in ["../../x", "..", "a/b", "", "x\0y", "/tmp/x"] {
        let server = hub(model(), move |r| {
            r.path.starts_with(API).then(|| Act::Send(response("200 OK", &[], &listing(&model(), sha))))
        });
        let error = error_of(&server);
        assert!(error.contains("which cannot be one"), "{error}");
    }
}

#[test]
fn revisions_are_encoded() {
    let server = Server::start(|request| {
        let json = match request.path.split('?').next().unwrap() {
            "/prefix/api/models/owner/tiny/revision/refs%2Fpr%2F1%23%C3%A9%25" => listing(&model(), SHA),
            path => return Act::Send(proper_at("/prefix", path)),
        };
        Act::Send(response("200 OK", &[], &json))
    });
    fn proper_at(prefix: &str, path: &str) -> Vec<u8> {
        let files = model();
        let name = path.strip_prefix(&format!("{prefix}/owner/tiny/resolve/{SHA}/"));
        match files.iter().find(|(n, _)| Some(*n) == name) {
            Some((_, bytes)) => response("200 OK", &[], bytes),
            None => response("404 Not Found", &[], b""),
        }
    }
    let temp = tempfile::tempdir().unwrap();
    // A mirror whose address has a path.
    let endpoint = format!("{}/prefix", server.endpoint);
    let hub = Hub::new(settings(&endpoint, temp.path()), "owner/tiny").unwrap();
    let dir = hub.pull("refs/pr/1#é%", None, &mut |_, _, _| {}).unwrap();
    assert_holds(&dir, &model());
    assert_eq!(
        std::fs::read_to_string(temp.path().join("models--owner--tiny/refs/refs/pr/1#é%")).unwrap(),
        SHA
    );
    for bad in [
        "a/../b", "", "/a", "a/", "a//b", "a b", "a\0b", "a\\b", ".a", "a/.b", "a.lock", "a:b", "a..b",
        "a@{b",
    ] {
        let error = hub.pull(bad, None, &mut |_, _, _| {}).unwrap_err().to_string();
        assert!(error.contains("is not a branch, tag or commit"), "{bad}: {error}");
    }
}

#[test]
fn says_what_is_wrong() {
    let lacking = hub(vec![file("config.json"), file("tokenizer.json"), file("pytorch_model.bin")], |_| None);
    let temp = tempfile::tempdir().unwrap();
    for (repo, wanted) in [
        ("owner/tiny", "no model.safetensors"),
        ("owner/other", "no `owner/other` at main there, or it is private"),
        ("../tiny", "\"../tiny\" is not the name of a repository"),
        ("a/b/c", "not the name of a repository"),
        ("a/b?x", "not the name of a repository"),
    ] {
        let settings = settings(&lacking.endpoint, temp.path());
        let error = Hub::new(settings, repo).and_then(|hub| hub.pull("main", None, &mut |_, _, _| {}));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

/// Each reason for which a hub keeps a model to itself has words of its own.
#[test]
fn a_denial_says_why() {
    let cases: [(&str, &str, bool, &str); 9] = [
        ("401 Unauthorized", "", false, "or it is private or gated: then set HF_TOKEN"),
        ("401 Unauthorized", "", true, "does not accept the token"),
        ("401 Unauthorized", "GatedRepo", false, "is gated: accept its conditions"),
        ("403 Forbidden", "GatedRepo", true, "is gated: accept its conditions"),
        ("403 Forbidden", "", true, "the token may not read"),
        ("403 Forbidden", "", false, "does not give `owner/tiny` at main to everybody"),
        ("404 Not Found", "RevisionNotFound", false, "there is no such branch, tag or commit"),
        ("404 Not Found", "RepoNotFound", false, "or it is private: then set HF_TOKEN"),
        ("404 Not Found", "", true, "or the token may not see it"),
    ];
    for (status, code, token, wanted) in cases {
        let server = Server::start(move |_| {
            Act::Send(response(status, &[("X-Error-Code", code)], b"<html>no</html>"))
        });
        let temp = tempfile::tempdir().unwrap();
        let mut settings = settings(&server.endpoint, temp.path());
        settings.token = token.then(|| "hf_secret".into());
        let error =
            Hub::new(settings, "owner/tiny").unwrap().pull("main", None, &mut |_, _, _| {}).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
        assert!(!error.to_string().contains("hf_secret"), "{error}");
        assert!(server.all().len() <= 2, "a denial is not asked for again");
    }
}

#[test]
fn without_the_network_the_cache_must_hold_all_of_it() {
    let server = hub(model(), |_| None);
    let temp = tempfile::tempdir().unwrap();
    let mut offline = settings(&server.endpoint, temp.path());
    offline.offline = true;
    let offline = Hub::new(offline, "owner/tiny").unwrap();
    let pull = || offline.pull("main", None, &mut |_, _, _| {});
    let error = pull().unwrap_err().to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE is set, and the cache has nothing of `owner/tiny` at main"),
        "{error}"
    );
    let dir = pull_to(&server.endpoint, temp.path()).unwrap();
    let before = server.all().len();
    assert_eq!(pull().unwrap(), dir);
    assert_eq!(server.all().len(), before);
    // Not used unasked, as the branch may have moved; but told.
    let error = pull_to("http://127.0.0.1:1", temp.path()).unwrap_err().to_string();
    assert!(error.contains("set HF_HUB_OFFLINE=1 to use what was pulled before"), "{error}");
    // As left by another program, which did not ask for all that we need.
    std::fs::remove_dir_all(temp.path().join("models--owner--tiny/.no_exist")).unwrap();
    assert!(pull().unwrap_err().to_string().contains("not everything"));
    std::fs::write(dir.join("modules.json"), "[]").unwrap();
    assert_eq!(pull().unwrap(), dir);
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert!(pull().unwrap_err().to_string().contains("not everything"));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = hub(model(), |_| None);
    let temp = tempfile::tempdir().unwrap();
    let cache = temp.path().join("file");
    std::fs::write(&cache, "in the way").unwrap();
    let error = pull_to(&server.endpoint, &cache).unwrap_err().to_string();
    assert!(error.contains(&*cache.to_string_lossy()) && error.contains("set HF_HUB_CACHE"), "{error}");
}

/// Where the files are to be copied to is looked at before they are fetched.
#[test]
fn a_directory_without_room_is_told_before_the_weights_come() {
    let sizes = |weights: u64| {
        let entry = |(name, bytes): &(&str, Vec<u8>)| {
            let size = if *name == "model.safetensors" { weights } else { bytes.len() as u64 };
            serde_json::json!({"rfilename": name, "size": size})
        };
        let files: Vec<_> = model().iter().map(entry).collect();
        serde_json::json!({"sha": SHA, "siblings": files}).to_string().into_bytes()
    };
    let server = hub(model(), move |r| {
        r.path.starts_with(API).then(|| Act::Send(response("200 OK", &[], &sizes(1 << 60))))
    });
    let temp = tempfile::tempdir().unwrap();
    let into = temp.path().join("a/tiny");
    let hub = Hub::new(settings(&server.endpoint, &temp.path().join("cache")), "owner/tiny").unwrap();
    let pull = |into: &Path| hub.pull("main", Some(into), &mut |_, _, _| {}).unwrap_err().to_string();
    let error = pull(&into);
    assert!(error.starts_with(&*into.to_string_lossy()) && error.contains("MB are needed"), "{error}");
    assert!(server.requests("model.safetensors").is_empty());
    let before = server.all().len();
    std::fs::write(temp.path().join("file"), "in the way").unwrap();
    let error = pull(&temp.path().join("file/tiny"));
    assert!(error.contains("file/tiny: Not a directory"), "{error}");
    assert_eq!(server.all().len(), before, "no hub is asked");
    assert!(!temp.path().join("a").exists());
}

#[test]
fn the_environment_is_read_as_in_python() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().to_str().unwrap().to_owned();
    let read = |variables: &[(&str, &str)]| {
        let variables: Vec<(String, OsString)> = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.into()))
            .chain([("HOME".to_owned(), home.clone().into())])
            .collect();
        Settings::read(&move |key| variables.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()))
    };
    let plain = read(&[]).unwrap();
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.cache, temp.path().join(".cache/huggingface/hub"));
    assert!(plain.token.is_none() && !plain.offline);

    let cache = |variables: &[(&str, &str)]| read(variables).unwrap().cache;
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("HF_HOME", "~/h"), ("XDG_CACHE_HOME", "/x")]), temp.path().join("h/hub"));
    assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), Path::new("/c"));

    std::fs::create_dir(temp.path().join("h")).unwrap();
    std::fs::write(temp.path().join("h/token"), "hf_of_file\n").unwrap();
    let token = |variables: &[(&str, &str)]| read(variables).unwrap().token;
    assert_eq!(token(&[("HF_HOME", "~/h")]).as_deref(), Some("hf_of_file"));
    assert_eq!(token(&[("HF_HOME", "~/h"), ("HF_TOKEN", " hf_set\n")]).as_deref(), Some("hf_set"));

    for (value, wanted) in
        [("1", true), ("yes", true), ("TRUE", true), ("on", true), ("0", false), ("", false)]
    {
        assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, wanted, "{value}");
    }
    assert_eq!(read(&[("HF_ENDPOINT", "https://m.example/hf/")]).unwrap().endpoint, "https://m.example/hf");
    assert_eq!(read(&[("HF_HUB_DOWNLOAD_TIMEOUT", "2.5")]).unwrap().limits.stall, 2500 * MS);
    for (key, value, wanted) in [
        ("HF_ENDPOINT", "ftp://x", "http or https"),
        ("HF_ENDPOINT", "huggingface.co", "http or https"),
        ("HF_ENDPOINT", "https://", "http or https"),
        ("HF_ENDPOINT", "https://me:secret@x", "must not contain a user name"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon", "number of seconds"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0", "number of seconds"),
    ] {
        let error = read(&[(key, value)]).err().unwrap().to_string();
        assert!(error.contains(wanted) && !error.contains("secret"), "{error}");
    }
    let broken = Client::new("https://x", Some("a\nb"), None, limits()).err().unwrap().to_string();
    assert!(broken.contains("HF_TOKEN") && !broken.contains("a\n"), "{broken}");
}
