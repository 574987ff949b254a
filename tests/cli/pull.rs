//! `pull` from a hub on 127.0.0.1, in processes of its own: killed, without a hub, and with a token.

use crate::sandbox::{Done, IO, Sandbox, TINY, USAGE};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
const NAMES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// A hub that has the tiny checkpoint as `owner/tiny`, and keeps the heads of all requests. With `hold`, the first answer
/// with the weights stops in the middle, on an open connection.
fn hub(hold: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || answer(stream, hold, &seen));
        }
    });
    (endpoint, heads)
}

fn answer(mut stream: TcpStream, hold: bool, seen: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let before = seen.lock().unwrap().iter().filter(|h| h.contains(&path)).count();
    seen.lock().unwrap().push(head.clone());
    let file = path.strip_prefix(&format!("/owner/tiny/resolve/{SHA}/"));
    let body = if path.starts_with("/api/models/owner/tiny/revision/main") {
        let names = NAMES.map(|name| serde_json::json!({"rfilename": name}));
        serde_json::json!({"sha": SHA, "siblings": names}).to_string().into_bytes()
    } else if let Some(name) = file.filter(|name| NAMES.contains(name)) {
        std::fs::read(format!("{TINY}/{name}")).unwrap()
    } else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let range =
        head.to_lowercase().split("range: bytes=").nth(1).map(|r| r.split('-').next().unwrap().to_owned());
    let from: usize = range.as_ref().map_or(0, |from| from.parse().unwrap());
    let (length, last) = (body.len(), body.len() - 1);
    let status = match range {
        Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{length}"),
        None => "200 OK".to_owned(),
    };
    let rest = length - from;
    let lines = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {rest}\r\nETag: \"e{length}\"\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(lines.as_bytes());
    if hold && before == 0 && path.ends_with("model.safetensors") {
        let _ = stream.write_all(&body[..length / 2]);
        std::thread::sleep(Duration::from_secs(60));
    }
    let _ = stream.write_all(&body[from..]);
}

/// `pull owner/tiny` from that hub, into a cache in the sandbox, whatever this machine's own settings are.
fn pull(s: &Sandbox, endpoint: &str) -> Command {
    on_hub(s.command("pull owner/tiny"), s, endpoint)
}

fn on_hub(mut command: Command, s: &Sandbox, endpoint: &str) -> Command {
    for key in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(key).env_remove(key.to_lowercase());
    }
    for key in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    ] {
        command.env_remove(key);
    }
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", s.path("home")).env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    command
}

#[test]
fn a_pull_that_was_killed_is_continued() {
    let s = Sandbox::new();
    let (endpoint, heads) = hub(true);
    let mut child = pull(&s, &endpoint).env("HF_HUB_DOWNLOAD_TIMEOUT", "60").spawn().unwrap();
    let blobs = s.path("home/hub/models--owner--tiny/blobs");
    let half = std::fs::metadata(format!("{TINY}/model.safetensors")).unwrap().len() / 2;
    let partial = || {
        let files = std::fs::read_dir(&blobs).into_iter().flatten().flatten();
        files
            .filter(|f| f.path().extension().is_some_and(|e| e == "incomplete"))
            .any(|f| f.metadata().unwrap().len() == half)
    };
    let start = Instant::now();
    while !partial() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let snapshot = s.path("home/hub/models--owner--tiny/snapshots").join(SHA);
    assert!(!snapshot.join("model.safetensors").exists());

    let done = Done::of(pull(&s, &endpoint).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout.trim(), snapshot.to_str().unwrap());
    for name in NAMES {
        assert!(
            std::fs::read(snapshot.join(name)).unwrap() == std::fs::read(format!("{TINY}/{name}")).unwrap()
        );
    }
    let heads = heads.lock().unwrap();
    let last = heads.iter().rfind(|h| h.contains("model.safetensors")).unwrap().to_lowercase();
    assert!(last.contains(&format!("range: bytes={half}-")) && last.contains("if-range: \"e"), "{last}");
    // It is a checkpoint like any other.
    s.ok(&format!("quantize {} --output pulled", snapshot.display()));
}

/// What does not fit is not fetched, and the message says where else the cache may be.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_without_room_is_told_before_the_bytes_come() {
    let s = Sandbox::new();
    let (endpoint, _) = hub(false);
    let limited = s.shell("trap '' XFSZ; ulimit -f 60; exec \"$@\" pull owner/tiny");
    let done = Done::of(on_hub(limited, &s, &endpoint).output().unwrap());
    done.failed("pull", IO, &["are needed", "are free", "File too large", "set HF_HUB_CACHE"]);
    let files = s.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "incomplete"));
    assert!(files.map(|(_, bytes)| bytes.len()).all(|length| length == 0), "nothing was begun");
    let done = Done::of(pull(&s, &endpoint).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    let s = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // takes connections, and nobody answers
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let start = Instant::now();
    let done = Done::of(pull(&s, &endpoint).output().unwrap());
    done.failed(
        "pull",
        IO,
        &[&endpoint, "no data came for 1 s (4 attempts)", "HF_ENDPOINT", "ONNX file", "Git LFS"],
    );
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    drop(listener);
    let done = Done::of(pull(&s, &endpoint).output().unwrap());
    done.failed("pull", IO, &[&endpoint, "cannot be reached", "HF_ENDPOINT", "ONNX file", "Git LFS"]);
}

#[test]
fn the_token_is_of_the_environment_or_its_file() {
    let (endpoint, heads) = hub(false);
    for (variable, file, wanted) in
        [(None, None, None), (Some("hf_a"), Some("hf_b"), Some("hf_a")), (None, Some("hf_b\n"), Some("hf_b"))]
    {
        let s = Sandbox::new();
        std::fs::create_dir(s.path("home")).unwrap();
        if let Some(text) = file {
            s.write("home/token", text);
        }
        let mut command = pull(&s, &endpoint);
        if let Some(token) = variable {
            command.env("HF_TOKEN", token);
        }
        heads.lock().unwrap().clear();
        let done = Done::of(command.output().unwrap());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let sent: Vec<_> = heads.lock().unwrap().clone();
        for head in sent {
            let token = head
                .lines()
                .find_map(|l| l.to_lowercase().strip_prefix("authorization: bearer ").map(str::to_owned));
            assert_eq!(token.as_deref(), wanted, "{head}");
        }
    }
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let s = Sandbox::new();
    for (key, value, word) in [
        ("HF_ENDPOINT", "hub.example", "http or https"),
        ("HF_ENDPOINT", "http://me:secret@127.0.0.1", "HF_TOKEN"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "never", "number of seconds"),
        ("HF_HUB_OFFLINE", "1", "the cache has nothing of `owner/tiny`"),
        ("HTTPS_PROXY", "://", "HTTPS_PROXY is not the URL of a proxy"),
    ] {
        let mut command = pull(&s, "http://127.0.0.1:1");
        command.env(key, value);
        s.refuses_with(command, "pull", USAGE, &[word]);
    }
}
