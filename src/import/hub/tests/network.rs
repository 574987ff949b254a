//! Servers, networks and proxies that misbehave: where the token goes, and how long all of it may take.

use super::super::http::join;
use super::server::*;
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const TOKEN: &str = "hf_secret";

fn with_token(endpoint: &str, cache: &Path) -> Result<PathBuf> {
    let mut settings = settings(endpoint, cache);
    settings.token = Some(TOKEN.into());
    Hub::new(settings, "owner/tiny")?.pull("main", None, &mut |_, _, _| {})
}

fn redirect(to: &str) -> Act {
    Act::Send(response("302 Found", &[("Location", to)], b""))
}

/// A hub whose every answer but redirects is proper, and which answers a request for the weights by `act`.
fn weights_by(act: impl Fn(&Request) -> Option<Act> + Send + Sync + 'static) -> Server {
    hub(model(), move |r| if r.is("model.safetensors") { act(r) } else { None })
}

#[test]
fn the_token_stays_with_its_host() {
    let other = Server::start(|_| Act::Send(response("200 OK", &[("ETag", "\"x\"")], &weights())));
    let to = format!("{}/bucket/x?X-Amz-Signature=abc", other.endpoint);
    let server = weights_by(move |_| Some(redirect(&to)));
    let temp = tempfile::tempdir().unwrap();
    let dir = with_token(&server.endpoint, temp.path()).unwrap();
    assert_holds(&dir, &model());
    assert_eq!(other.all().len(), 1);
    assert_eq!(other.all()[0].header("authorization"), None);
    assert!(server.all().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
}

/// The same port of another name for the same machine is another host. What it sends back home goes without the token.
#[test]
fn the_token_is_not_taken_up_again_after_another_host() {
    let home = Arc::new(std::sync::Mutex::new(String::new()));
    let back = home.clone();
    let server = weights_by(move |r| {
        let home = back.lock().unwrap().clone();
        match (r.header("host")?.starts_with("localhost"), r.path.contains("?back")) {
            (false, false) => {
                Some(redirect(&format!("{}{}", home.replace("127.0.0.1", "localhost"), r.path)))
            }
            (true, _) => Some(redirect(&format!("{home}{}?back", r.path))),
            (false, true) => Some(Act::Send(response("200 OK", &[], &weights()))),
        }
    });
    *home.lock().unwrap() = server.endpoint.clone();
    let temp = tempfile::tempdir().unwrap();
    with_token(&server.endpoint, temp.path()).unwrap();
    let tokens: Vec<_> =
        server.requests("model.safetensors").iter().map(|r| r.header("authorization").is_some()).collect();
    assert_eq!(tokens, [true, false, false]);
}

#[test]
fn the_token_follows_a_renamed_repository() {
    let server = hub(model(), |r| {
        let rest =
            r.path.strip_prefix("/owner/tiny/resolve/").or(r.path.strip_prefix("/api/models/owner/tiny/"))?;
        let to = r.path.replace("owner/tiny", "owner/new");
        // Relative to the folder, to the host, and to the scheme.
        Some(match rest.rsplit('/').next()? {
            "config.json" => redirect(&format!("../../../new/resolve/{SHA}/config.json")),
            "tokenizer.json" => redirect(&format!("//{}{to}", r.header("host")?)),
            _ => Act::Send(response("307 Temporary Redirect", &[("Location", &to)], b"<html>moved</html>")),
        })
    });
    // The new name is served by the old one's answers.
    let proxy_to_old = {
        let files = model();
        Server::start(move |r| {
            if r.path.contains("owner/tiny") {
                let to = r.path.replace("owner/tiny", "owner/new");
                return redirect(&to);
            }
            let mut old = r.clone();
            old.path = old.path.replace("owner/new", "owner/tiny");
            Act::Send(proper(&files, &old))
        })
    };
    drop(server);
    let temp = tempfile::tempdir().unwrap();
    let dir = with_token(&proxy_to_old.endpoint, temp.path()).unwrap();
    assert_holds(&dir, &model());
    assert!(proxy_to_old.all().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
}

#[test]
fn relative_locations() {
    let base = "https://hub.example:8443/a/b/c?q=1".parse().unwrap();
    for (location, wanted) in [
        ("https://x.example/y?z", "https://x.example/y?z"),
        ("HTTP://x.example/y", "http://x.example/y"),
        ("//x.example/y", "https://x.example/y"),
        ("/y?z=%2F", "https://hub.example:8443/y?z=%2F"),
        ("y", "https://hub.example:8443/a/b/y"),
        ("../y/./z", "https://hub.example:8443/a/y/z"),
        ("../../../../y", "https://hub.example:8443/y"),
        ("?z", "https://hub.example:8443/a/b/c?z"),
        ("/y#part", "https://hub.example:8443/y"),
        ("/y:z", "https://hub.example:8443/y:z"),
    ] {
        assert_eq!(join(&base, location).unwrap().to_string(), wanted, "{location}");
    }
    assert!(join(&base, "http://").is_none() && join(&base, "/a b").is_none());
}

#[test]
fn a_redirect_that_is_no_good_is_refused() {
    for (to, wanted) in [
        ("ftp://127.0.0.1/x", "neither http nor https"),
        ("file:///etc/passwd", "redirected to an address"),
        ("http://me:pass@127.0.0.1/x", "with a user name"),
        ("http://", "not a URL"),
        ("/a b", "not a URL"),
    ] {
        let server = weights_by(move |_| Some(redirect(to)));
        let error = error_of(&server);
        assert!(error.contains(wanted) && !error.contains("pass"), "{to}: {error}");
        assert_eq!(server.requests("model.safetensors").len(), 1);
    }
    // From https to http: needs no server, as nobody may be asked.
    let from = "https://hub.example/x".parse().unwrap();
    let to = ureq::http::HeaderValue::from_static("http://hub.example/x?signature=1");
    let Err(Failure::Refused(why)) = super::super::http::target(&from, &to) else { panic!("followed") };
    assert!(why.contains("from https to http://hub.example:80") && !why.contains("signature"), "{why}");
    let same = ureq::http::HeaderValue::from_static("/y");
    assert!(super::super::http::target(&from, &same).is_ok());
}

#[test]
fn a_redirect_loop_ends() {
    let server = weights_by(|r| Some(redirect(&r.path)));
    let error = error_of(&server);
    assert!(error.contains("redirected more than 10 times"), "{error}");
    assert_eq!(server.requests("model.safetensors").len(), 11);
    // Also one that never comes to the same address again.
    let server = Server::start(|r| redirect(&format!("{}x", r.path)));
    assert!(error_of(&server).contains("redirected more than 10 times"));
    assert!(server.all().len() <= 11);
}

#[test]
fn a_server_that_stalls_is_given_up() {
    let head = |r: &Request| {
        response(
            "200 OK",
            &[("X-No-Length", "1"), ("Content-Length", "300000"), ("ETag", "\"x\"")],
            &weights()[r.from()..1000],
        )
    };
    let before_the_answer = weights_by(|_| Some(Act::Hold(Vec::new())));
    let in_the_head = weights_by(|_| Some(Act::Hold(b"HTTP/1.1 200 OK\r\nConte".to_vec())));
    let in_the_body =
        weights_by(move |r| if r.nth == 0 { Some(Act::Hold(head(r))) } else { Some(Act::Hold(Vec::new())) });
    std::thread::scope(|scope| {
        for server in [before_the_answer, in_the_head, in_the_body] {
            scope.spawn(move || {
                let start = Instant::now();
                let error = error_of(&server);
                let wanted = "no data came for 1 s (4 attempts); run the command again later";
                assert!(error.contains(wanted), "{error}");
                assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
                assert_eq!(server.requests("model.safetensors").len(), 4);
            });
        }
    });
    // The first request of all: as good as a hub that cannot be reached.
    let silent = Server::start(|_| Act::Hold(Vec::new()));
    let error = error_of(&silent);
    assert!(error.contains("no data came") && error.contains(OTHER_WAYS), "{error}");
}

/// A byte now and then would keep a time-out for each read from ever ending.
#[test]
fn a_slow_drip_is_given_up() {
    let head =
        response("200 OK", &[("X-No-Length", "1"), ("Content-Length", "300000"), ("ETag", "\"x\"")], b"");
    let server = weights_by(move |_| Some(Act::Repeat(head.clone(), b"x".to_vec(), 30 * MS)));
    let temp = tempfile::tempdir().unwrap();
    let mut settings = settings(&server.endpoint, temp.path());
    settings.limits.window = 300 * MS;
    let start = Instant::now();
    let hub = Hub::new(settings, "owner/tiny").unwrap();
    let error = hub.pull("main", None, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("bytes came in 0 s (4 attempts)"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_head_that_drips_is_given_up() {
    let server =
        weights_by(|_| Some(Act::Repeat(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".to_vec(), 50 * MS)));
    let start = Instant::now();
    let error = error_of(&server);
    assert!(error.contains("no data came"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn one_429_is_waited_out() {
    for retry_after in ["1", "0", "", "Wed, 21 Oct 2015 07:28:00 GMT", "nonsense"] {
        let server = hub(model(), move |r| {
            let busy = response("429 Too Many Requests", &[("Retry-After", retry_after)], b"slow down");
            (r.nth == 0).then_some(Act::Send(busy))
        });
        let temp = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut settings = settings(&server.endpoint, temp.path());
        settings.limits.pause = 10 * MS;
        let hub = Hub::new(settings, "owner/tiny").unwrap();
        let dir = hub.pull("main", None, &mut |_, _, _| {}).unwrap();
        assert_holds(&dir, &model());
        if retry_after == "1" {
            assert!(start.elapsed() >= 1000 * MS);
        }
    }
}

#[test]
fn the_time_to_wait_is_seconds_or_a_date() {
    let at = |seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    for (text, now, wanted) in [
        ("0", 0, Some(0)),
        ("120", 5, Some(120)),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0, Some(10)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480 - 90, Some(90)),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199 - 1, Some(1)),
        ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_199, Some(1)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1_700_000_000, Some(0)),
        ("Wed, 21 Oct 0000 07:28:00 GMT", 0, None),
        ("Wed, 21 Okt 2015 07:28:00 GMT", 0, None),
        ("Wed, 21 Oct 2015 07:28 GMT", 0, None),
        ("-1", 0, None),
        ("soon", 0, None),
    ] {
        let wait = super::super::attempts::wait_until(text, at(now));
        assert_eq!(wait, wanted.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn a_429_for_too_long_or_too_often_is_told() {
    let server =
        hub(model(), |_| Some(Act::Send(response("429 Too Many Requests", &[("Retry-After", "3600")], b""))));
    let error = error_of(&server);
    assert!(error.contains("too many requests (status 429) and asks to wait 3600 s"), "{error}");
    assert_eq!(server.all().len(), 1);
    let server =
        hub(model(), |_| Some(Act::Send(response("429 Too Many Requests", &[("Retry-After", "0")], b""))));
    let error = error_of(&server);
    assert!(error.contains("too many requests (status 429) (4 attempts)"), "{error}");
    assert_eq!(server.all().len(), 4);
}

#[test]
fn a_server_error_is_tried_again() {
    for status in
        ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
    {
        let server = hub(model(), move |r| {
            (r.nth < 2).then(|| Act::Send(response(status, &[], b"<html>sorry</html>")))
        });
        let temp = tempfile::tempdir().unwrap();
        assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
    }
    let server = hub(model(), |_| Some(Act::Send(response("500 Internal Server Error", &[], b""))));
    let error = error_of(&server);
    assert!(error.contains("the server has a problem (status 500) (4 attempts)"), "{error}");
    assert_eq!(server.all().len(), 4);
}

#[test]
fn an_answer_that_is_no_answer_is_tried_again() {
    for bytes in [&b""[..], b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n"] {
        for reset in [false, true] {
            let broken = move || if reset { Act::Reset(bytes.to_vec()) } else { Act::Send(bytes.to_vec()) };
            let server = hub(model(), move |r| (r.nth < 2).then(broken));
            let temp = tempfile::tempdir().unwrap();
            assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
            let server = hub(model(), move |_| Some(broken()));
            let error = error_of(&server);
            assert!(error.contains("(4 attempts)"), "{error}");
        }
    }
}

#[test]
fn an_endless_head_is_refused() {
    let server = hub(model(), |_| {
        let line = format!("X-Long: {}\r\n", "x".repeat(4000));
        Some(Act::Repeat(b"HTTP/1.1 200 OK\r\n".to_vec(), line.into_bytes(), MS))
    });
    let error = error_of(&server);
    assert!(error.contains("the head of the answer has"), "{error}");
    assert_eq!(server.all().len(), 1);
}

#[test]
fn an_endless_body_is_refused() {
    let endless = |headers: &[(&str, &str)], body: &[u8]| {
        let piece = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
        let head = [headers, &[("Transfer-Encoding", "chunked")]].concat();
        Act::Repeat(response("200 OK", &head, body), piece, Duration::ZERO)
    };
    let server = hub(model(), move |r| (r.path.starts_with(API)).then(|| endless(&[], b"")));
    let error = error_of(&server);
    assert!(error.contains(&format!("longer than {MAX_LISTING} bytes")), "{error}");
    let server = hub(model(), move |r| r.is("config.json").then(|| endless(&[], b"")));
    let error = error_of(&server);
    assert!(error.contains(&format!("longer than {MAX_TOKENIZER} bytes")), "{error}");
    // One that says so beforehand is not even begun.
    let server = hub(model(), move |r| {
        let head = response("200 OK", &[("Content-Length", "99999999999999")], b"x");
        (r.is("tokenizer.json")).then_some(Act::Hold(head))
    });
    let error = error_of(&server);
    assert!(error.contains("it has 99999999999999 bytes; at most"), "{error}");
}

#[test]
fn a_web_page_is_no_model() {
    let page = b"<!DOCTYPE html><html>Welcome to the hotel's network</html>";
    for kind in ["text/html; charset=utf-8", "application/json"] {
        let server = Server::start(move |_| Act::Send(response("200 OK", &[("Content-Type", kind)], page)));
        let error = error_of(&server);
        assert!(error.contains("a web page came in place of the data"), "{error}");
        assert_eq!(server.all().len(), 1);
    }
    let server = weights_by(|_| Some(Act::Send(response("200 OK", &[("Content-Type", "TEXT/HTML")], page))));
    assert!(error_of(&server).contains("a web page came in place of the data"));
    for text in [&b"[]"[..], b"{}", b"{\"sha\": 3}", b"", b"{\"sha\": \"\xff\"}", b"nonsense"] {
        let server = Server::start(move |_| Act::Send(response("200 OK", &[], text)));
        let error = error_of(&server);
        assert!(error.contains("not a listing of a repository"), "{error}");
    }
}

#[test]
fn a_compressed_answer_is_refused() {
    let server = weights_by(|r| {
        assert_eq!(r.header("accept-encoding"), Some("identity"));
        Some(Act::Send(response("200 OK", &[("Content-Encoding", "gzip")], b"\x1f\x8b\x08")))
    });
    let error = error_of(&server);
    assert!(error.contains("compressed the answer unasked (Content-Encoding: gzip)"), "{error}");
    let server =
        weights_by(|_| Some(Act::Send(response("200 OK", &[("Content-Encoding", "identity")], &weights()))));
    let temp = tempfile::tempdir().unwrap();
    assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
}

#[test]
fn a_hub_that_cannot_be_reached_names_other_ways() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for endpoint in [&*closed, "http://no-such-host.invalid", "http://[::1]:1"] {
        let temp = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let error = pull_to(endpoint, temp.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{endpoint}: cannot be reached (")), "{error}");
        for way in ["HF_ENDPOINT", "Hugging Face directory", "ONNX file", "Git LFS", "HTTPS_PROXY"] {
            assert!(error.contains(way), "{way}: {error}");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

#[test]
fn a_server_without_tls_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&response("400 Bad Request", &[], b"this is HTTP"));
        }
    });
    let temp = tempfile::tempdir().unwrap();
    let error = with_token(&endpoint, temp.path()).unwrap_err().to_string();
    assert!(error.starts_with(&endpoint) && error.contains("the secure connection failed"), "{error}");
}

/// What servers send back of the token does not get into a message.
#[test]
fn the_token_is_in_no_message() {
    let echo = |r: &Request| r.header("authorization").unwrap_or_default().to_owned();
    let servers = [
        Server::start(move |r| Act::Send(response("200 OK", &[("Content-Encoding", &echo(r))], b""))),
        Server::start(move |r| {
            let json = serde_json::json!({"sha": echo(r), "siblings": []});
            Act::Send(response("200 OK", &[], json.to_string().as_bytes()))
        }),
        Server::start(move |r| {
            let json = serde_json::json!({"sha": "a", "siblings": echo(r)});
            Act::Send(response("200 OK", &[], json.to_string().as_bytes()))
        }),
        Server::start(move |r| {
            redirect(&format!("http://{}.example.invalid/", echo(r).split(' ').next_back().unwrap()))
        }),
        Server::start(move |_| Act::Send(response("401 Unauthorized", &[], b""))),
    ];
    for server in servers {
        let temp = tempfile::tempdir().unwrap();
        let error = with_token(&server.endpoint, temp.path()).unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains(TOKEN), "{text}");
        }
    }
}

/// Requests go through the proxy that is set, and fail in bounded time when it does.
#[test]
fn a_proxy_is_used() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let proxy = Server::start(move |r| {
        assert_eq!(r.path, "hub.example:80");
        count.fetch_add(1, Ordering::Relaxed);
        Act::Send(response("407 Proxy Authentication Required", &[], b""))
    });
    let temp = tempfile::tempdir().unwrap();
    let mut settings = settings("http://hub.example", temp.path());
    settings.proxy = Some(ureq::Proxy::new(&proxy.endpoint).unwrap());
    let hub = Hub::new(settings, "owner/tiny").unwrap();
    let error = hub.pull("main", None, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("through the proxy: proxy server responded 407"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
