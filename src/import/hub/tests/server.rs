//! A hub on 127.0.0.1 that does as it is told.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
pub const API: &str = "/api/models/owner/tiny/revision/main";

#[derive(Clone, Debug)]
pub struct Request {
    /// With the query.
    pub path: String,
    pub headers: HashMap<String, String>,
    /// How many requests came for this path before.
    pub nth: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is(&self, file: &str) -> bool {
        self.path.ends_with(&format!("/resolve/{SHA}/{file}"))
    }

    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes="));
        range.map_or(0, |r| r.trim_end_matches('-').parse().unwrap())
    }
}

/// What to do with a request. The bytes are head and body, as they go out.
pub enum Act {
    Send(Vec<u8>),
    /// Ends the connection by a TCP reset.
    Reset(Vec<u8>),
    /// Then nothing more, on an open connection.
    Hold(Vec<u8>),
    /// Then the same piece again and again, with a pause.
    Repeat(Vec<u8>, Vec<u8>, Duration),
}

pub struct Server {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(act: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, act) = (seen.clone(), Arc::new(act));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, act) = (all.clone(), act.clone());
                std::thread::spawn(move || answer(stream, &all, &*act));
            }
        });
        Server { endpoint, seen }
    }

    /// The requests so far whose path ends so.
    pub fn requests(&self, end: &str) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|r| r.path.split('?').next().unwrap().ends_with(end)).cloned().collect()
    }

    pub fn all(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, all: &Mutex<Vec<Request>>, act: &dyn Fn(&Request) -> Act) {
    // The last byte stays unread: to close a connection with unread bytes resets it.
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_lowercase(), v.trim().to_owned()))
        .collect();
    let request = {
        let mut all = all.lock().unwrap();
        let nth = all.iter().filter(|r| r.path == path).count();
        all.push(Request { path, headers, nth });
        all.last().unwrap().clone()
    };
    let act = act(&request);
    if let Act::Reset(bytes) = act {
        let _ = stream.write_all(&bytes);
        std::thread::sleep(Duration::from_millis(100)); // for the client to read them
        return;
    }
    let _ = stream.read(&mut byte);
    match act {
        Act::Send(bytes) => drop(stream.write_all(&bytes)),
        Act::Hold(bytes) => {
            let _ = stream.write_all(&bytes);
            std::thread::sleep(Duration::from_secs(20));
        }
        Act::Repeat(bytes, piece, pause) => {
            let mut sent = stream.write_all(&bytes);
            while sent.is_ok() {
                std::thread::sleep(pause);
                sent = stream.write_all(&piece);
            }
        }
        Act::Reset(_) => {}
    }
}

/// Head and body of an answer. `Content-Length` is added unless the headers say something about the length.
pub fn response(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    let length =
        |name: &str| ["content-length", "transfer-encoding", "x-no-length"].contains(&&*name.to_lowercase());
    if !headers.iter().any(|(name, _)| length(name)) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    [(head + "\r\n").as_bytes(), body].concat()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The files of a repository.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// `owner/tiny` with these files: a well-behaved hub, but for the requests that `trick` takes.
pub fn hub(files: Files, trick: impl Fn(&Request) -> Option<Act> + Send + Sync + 'static) -> Server {
    Server::start(move |request| trick(request).unwrap_or_else(|| Act::Send(proper(&files, request))))
}

/// What a proper hub answers.
pub fn proper(files: &Files, request: &Request) -> Vec<u8> {
    let path = request.path.split('?').next().unwrap();
    if path == API {
        return response("200 OK", &[("Content-Type", "application/json")], &listing(files, SHA));
    }
    let file = path
        .strip_prefix(&format!("/owner/tiny/resolve/{SHA}/"))
        .and_then(|name| files.iter().find(|(n, _)| *n == name));
    let Some((name, bytes)) = file else { return response("404 Not Found", &[], b"") };
    let etag = format!("\"etag-{}\"", name.replace('/', "-"));
    part(request, bytes, &[("ETag", &etag)])
}

/// The bytes that the request asks for, as its range and condition say.
pub fn part(request: &Request, bytes: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let etag = headers.iter().find(|(name, _)| *name == "ETag").map(|(_, value)| *value);
    let unchanged = request.header("if-range").is_none_or(|wanted| Some(wanted) == etag);
    let from = request.from();
    if request.header("range").is_none() || !unchanged {
        return response("200 OK", headers, bytes);
    }
    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    let headers = [headers, &[("Content-Range", &*range)]].concat();
    response("206 Partial Content", &headers, &bytes[from..])
}

/// A listing without lengths and checksums, as mirrors give it.
pub fn listing(files: &Files, sha: &str) -> Vec<u8> {
    let names: Vec<_> = files.iter().map(|(n, _)| json!({"rfilename": n})).collect();
    json!({"sha": sha, "siblings": names}).to_string().into_bytes()
}

/// A listing with the length and checksum of each file.
pub fn listing_with_sums(files: &Files) -> Vec<u8> {
    let entry = |(name, bytes): &(&str, Vec<u8>)| json!({"rfilename": name, "size": bytes.len(), "lfs": {"sha256": sha256(bytes), "size": bytes.len()}});
    json!({"sha": SHA, "siblings": files.iter().map(entry).collect::<Vec<_>>()}).to_string().into_bytes()
}

pub fn file(name: &'static str) -> (&'static str, Vec<u8>) {
    (name, format!("content of {name}").into_bytes())
}

/// The files of a plain model; the weights are long enough to break off in the middle.
pub fn model() -> Files {
    vec![file("config.json"), file("tokenizer.json"), ("model.safetensors", weights())]
}

pub fn weights() -> Vec<u8> {
    (0..300_000u32).map(|i| (i * 7 + i / 251) as u8).collect()
}
