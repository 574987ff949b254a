//! Against a hub of our own on 127.0.0.1.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub of one repository, `owner/tiny`: enough of its protocol for hf-hub. Returns the endpoint.
fn fake_hub(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> =
                BufReader::new(&stream).lines().map_while(|l| l.ok()).take_while(|l| !l.is_empty()).collect();
            let Some(request) = lines.first() else { continue };
            let target = request.split(' ').nth(1).unwrap();
            let answer = if target.starts_with("/api/models/owner/tiny/revision/main") {
                let names: Vec<_> = files.iter().map(|(n, _)| serde_json::json!({"rfilename": n})).collect();
                let json = serde_json::json!({"sha": SHA, "siblings": names}).to_string();
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", json.len()) + "\r\n" + &json
            } else if let Some((name, bytes)) = target
                .strip_prefix(&format!("/owner/tiny/resolve/{SHA}/"))
                .and_then(|name| files.iter().find(|(n, _)| *n == name))
            {
                let range = lines
                    .iter()
                    .find_map(|l| l.to_lowercase().strip_prefix("range: bytes=").map(String::from));
                let range = range.unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let from: usize = from.parse().unwrap();
                let to = to.parse::<usize>().map_or(bytes.len(), |t| (t + 1).min(bytes.len()));
                let etag = format!("etag-{}", name.replace('/', "-"));
                format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
                     ETag: \"{etag}\"\r\nX-Repo-Commit: {SHA}\r\n\r\n{}",
                    to - from,
                    to - 1,
                    bytes.len(),
                    std::str::from_utf8(&bytes[from..to]).unwrap()
                )
            } else {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()
            };
            let _ = stream.write_all(answer.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes());
        }
    });
    endpoint
}

/// A proxy would be asked for 127.0.0.1.
fn skip() -> bool {
    if proxied() {
        eprintln!("SKIPPED: a proxy is set");
    }
    proxied()
}

fn file(name: &'static str) -> (&'static str, Vec<u8>) {
    (name, format!("content of {name}").into_bytes())
}

#[test]
fn pulls_the_files_a_checkpoint_needs_and_no_others() {
    if skip() {
        return;
    }
    let endpoint = fake_hub(vec![
        file("config.json"),
        file("tokenizer.json"),
        file("model.safetensors"),
        file("modules.json"),
        file("1_Pooling/config.json"),
        file("pytorch_model.bin"),
    ]);
    let temp = tempfile::tempdir().unwrap();
    let hub = Hub { endpoint: &endpoint, repo: "owner/tiny", cache: Cache::new(temp.path().join("hub")) };
    let into = temp.path().join("a").join("tiny");
    let mut seen = Vec::new();
    let mut progress = |name: &str, done: u64, total: u64| {
        if done == total {
            seen.push(name.to_owned());
        }
    };
    let dir = hub.pull(None, "main", Some(&into), &mut progress).unwrap();
    assert_eq!(dir, into);
    seen.dedup();
    let wanted =
        ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "model.safetensors"];
    assert_eq!(seen, wanted);
    for name in wanted {
        assert_eq!(std::fs::read_to_string(into.join(name)).unwrap(), format!("content of {name}"));
    }
    assert!(!into.join("pytorch_model.bin").exists());
    // A second pull takes all of it from the cache, and does not touch a directory in use.
    let cached = hub.pull(None, "main", None, &mut |_, _, _| panic!("fetched again")).unwrap();
    assert!(cached.ends_with(format!("models--owner--tiny/snapshots/{SHA}")), "{}", cached.display());
    let error = hub.pull(None, "main", Some(&into), &mut |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[test]
fn follows_an_index_to_its_shards_but_not_out_of_the_repository() {
    if skip() {
        return;
    }
    for (shard, ok) in [("a.safetensors", true), ("../a.safetensors", false), ("b.safetensors", false)] {
        let index = serde_json::json!({"weight_map": {"x": shard}}).to_string().into_bytes();
        let endpoint = fake_hub(vec![
            file("config.json"),
            file("tokenizer.json"),
            ("model.safetensors.index.json", index),
            file("a.safetensors"),
        ]);
        let temp = tempfile::tempdir().unwrap();
        let hub = Hub { endpoint: &endpoint, repo: "owner/tiny", cache: Cache::new(temp.path().join("hub")) };
        match hub.pull(None, "main", None, &mut |_, _, _| {}) {
            Ok(dir) => assert!(ok && dir.join(shard).exists()),
            Err(e) => assert!(!ok && e.to_string().contains(shard), "{e}"),
        }
    }
}

#[test]
fn says_what_is_wrong() {
    if skip() {
        return;
    }
    let endpoint = fake_hub(vec![file("config.json"), file("tokenizer.json"), file("pytorch_model.bin")]);
    let temp = tempfile::tempdir().unwrap();
    let try_pull = |endpoint: &str, repo: &str, revision: &str| {
        let hub = Hub { endpoint, repo, cache: Cache::new(temp.path().join("hub")) };
        hub.pull(None, revision, None, &mut |_, _, _| {}).unwrap_err().to_string()
    };
    for (endpoint, repo, revision, wanted) in [
        (&*endpoint, "owner/tiny", "main", "no model.safetensors"),
        (&endpoint, "owner/other", "main", "no `owner/other` there, or it is private"),
        (&endpoint, "../tiny", "main", "\"../tiny\" is not the name of a repository"),
        (&endpoint, "a/b/c", "main", "not the name of a repository"),
        (&endpoint, "owner/tiny", "a/../b", "not a branch"),
        ("ftp://x", "owner/tiny", "main", "http or https"),
        ("http://127.0.0.1:1", "owner/tiny", "main", "http://127.0.0.1:1: cannot be reached"),
    ] {
        let error = try_pull(endpoint, repo, revision);
        assert!(error.contains(wanted), "{error}");
    }
}
