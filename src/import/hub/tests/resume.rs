//! Downloads that break off, and servers that do not say what they send: what is put together is the file or nothing.

use super::server::*;
use super::*;
use std::time::Instant;

const CUT: usize = 100_000;

/// A hub that answers requests for the weights by `act`; its listing has no checksums.
fn weights_by(act: impl Fn(&Request) -> Option<Act> + Send + Sync + 'static) -> Server {
    hub(model(), move |r| if r.is("model.safetensors") { act(r) } else { None })
}

/// The same, with lengths and checksums in the listing.
fn summed_weights_by(act: impl Fn(&Request) -> Option<Act> + Send + Sync + 'static) -> Server {
    hub(model(), move |r| match r.path.strip_prefix(API) {
        Some("?blobs=true") => Some(Act::Send(response("200 OK", &[], &listing_with_sums(&model())))),
        _ if r.is("model.safetensors") => act(r),
        _ => None,
    })
}

/// A proper answer whose end is missing.
fn cut(bytes: Vec<u8>) -> Vec<u8> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    bytes[..head + CUT].to_vec()
}

fn etag(r: &Request) -> Vec<u8> {
    part(r, &weights(), &[("ETag", "\"w\"")])
}

/// The offsets from which the weights were asked for.
fn offsets(server: &Server) -> Vec<usize> {
    server.requests("model.safetensors").iter().map(Request::from).collect()
}

fn pulls(server: &Server) {
    let temp = tempfile::tempdir().unwrap();
    assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
    let left: Vec<_> = blobs(temp.path()).into_iter().filter(|n| n.contains("incomplete")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_broke_off_is_continued() {
    let truncated = weights_by(|r| (r.nth < 2).then(|| Act::Send(cut(etag(r)))));
    let reset = weights_by(|r| (r.nth < 2).then(|| Act::Reset(cut(etag(r)))));
    let stalled = weights_by(|r| (r.nth < 2).then(|| Act::Hold(cut(etag(r)))));
    for server in [truncated, reset, stalled] {
        pulls(&server);
        assert_eq!(offsets(&server), [0, CUT, 2 * CUT]);
        // Only if the file is still the same.
        let requests = server.requests("model.safetensors");
        assert_eq!(requests[0].header("if-range"), None);
        assert!(requests[1].header("if-range").is_some());
    }
}

#[test]
fn a_later_run_continues_too() {
    for sums in [false, true] {
        let act = |r: &Request| (r.nth < 4).then(|| Act::Reset(cut(etag(r))[..1000].to_vec()));
        let server = if sums { summed_weights_by(act) } else { weights_by(act) };
        let temp = tempfile::tempdir().unwrap();
        let error = pull_to(&server.endpoint, temp.path()).unwrap_err().to_string();
        assert!(error.contains("(4 attempts); run the command again later"), "{error}");
        let start = *offsets(&server).last().unwrap();
        assert!(blobs(temp.path()).iter().any(|n| n.ends_with(".incomplete")));
        let snapshot = temp.path().join("models--owner--tiny/snapshots").join(SHA);
        assert!(!snapshot.join("model.safetensors").exists());
        // Nothing says yet that the cache has this commit.
        assert!(!temp.path().join("models--owner--tiny/refs/main").exists());
        assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
        assert!(*offsets(&server).last().unwrap() > start && start > 0, "{:?}", offsets(&server));
        // Also the small files: each was fetched once.
        assert_eq!(server.requests("/tokenizer.json").len(), 1);
    }
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let server = weights_by(|r| {
        let whole = response("200 OK", &[("ETag", "\"w\"")], &weights());
        Some(Act::Send(if r.nth < 2 { cut(whole) } else { whole }))
    });
    pulls(&server);
    assert_eq!(offsets(&server), [0, CUT, CUT]);
    // One that never gets to the end does not keep us for ever.
    let server = weights_by(|_| Some(Act::Send(cut(response("200 OK", &[("ETag", "\"w\"")], &weights())))));
    let error = error_of(&server);
    assert!(error.contains("the connection ended before the answer did (4 attempts)"), "{error}");
    assert_eq!(offsets(&server).len(), 4);
}

#[test]
fn without_an_etag_or_checksum_a_break_starts_over() {
    let plain = |r: &Request| part(r, &weights(), &[]);
    pulls(&weights_by(move |r| Some(Act::Send(plain(r)))));
    for weak in [None, Some("W/\"w\"")] {
        let server = weights_by(move |r| {
            let headers: Vec<_> = weak.iter().map(|etag| ("ETag", *etag)).collect();
            let whole = part(r, &weights(), &headers);
            Some(Act::Send(if r.nth == 0 { cut(whole) } else { whole }))
        });
        pulls(&server);
        assert_eq!(offsets(&server), [0, 0]);
    }
    // With a checksum, parts of what may be two files can be put together: a wrong result would be noticed.
    let server =
        summed_weights_by(move |r| Some(Act::Send(if r.nth == 0 { cut(plain(r)) } else { plain(r) })));
    pulls(&server);
    assert_eq!(offsets(&server), [0, CUT]);
}

#[test]
fn a_file_that_changed_in_between_starts_over() {
    let old = vec![b'o'; 300_000];
    for honours_condition in [true, false] {
        let old = old.clone();
        let server = weights_by(move |r| {
            let mut request = r.clone();
            if !honours_condition {
                request.headers.remove("if-range");
            }
            Some(Act::Send(match r.nth {
                0 => cut(response("200 OK", &[("ETag", "\"old\"")], &old)),
                _ => part(&request, &weights(), &[("ETag", "\"new\"")]),
            }))
        });
        pulls(&server);
        assert_eq!(offsets(&server)[..2], [0, CUT]);
    }
}

#[test]
fn a_part_that_was_not_asked_for_starts_over() {
    for range in [
        "bytes 0-199999/300000",
        "bytes 100000-299999/400000",
        "bytes x-y/z",
        "bytes */300000",
        "items 1-2/3",
        "",
    ] {
        let server = weights_by(move |r| {
            Some(Act::Send(match r.nth {
                0 => cut(etag(r)),
                1 => {
                    let headers = [("ETag", "\"w\""), ("Content-Range", range)];
                    let headers = if range.is_empty() { &headers[..1] } else { &headers[..] };
                    response("206 Partial Content", headers, &weights()[CUT..])
                }
                _ => etag(r),
            }))
        });
        pulls(&server);
        assert_eq!(offsets(&server), [0, CUT, 0], "{range}");
    }
}

#[test]
fn a_server_that_gives_parts_only_is_asked_for_all_of_them() {
    let server = weights_by(|r| {
        let to = (r.from() + CUT).min(300_000);
        let range = format!("bytes {}-{}/300000", r.from(), to - 1);
        let headers = [("ETag", "\"w\""), ("Content-Range", &*range)];
        Some(Act::Send(response("206 Partial Content", &headers, &weights()[r.from()..to])))
    });
    pulls(&server);
    assert_eq!(offsets(&server), [0, CUT, 2 * CUT]);
}

#[test]
fn a_range_that_cannot_be_starts_over() {
    let server = weights_by(|r| {
        Some(Act::Send(match r.nth {
            0 => cut(etag(r)),
            1 => response("416 Range Not Satisfiable", &[("Content-Range", "bytes */300000")], b""),
            _ => etag(r),
        }))
    });
    pulls(&server);
    assert_eq!(offsets(&server), [0, CUT, 0]);
}

#[test]
fn a_wrong_length_is_noticed() {
    let of_length = |length: &'static str| {
        move |_: &Request| Act::Send(response("200 OK", &[("Content-Length", length)], &weights()))
    };
    // Longer than what comes: with and without a listing that knows better.
    let long = of_length("400000");
    let error = error_of(&weights_by(move |r| Some(long(r))));
    assert!(error.contains("the connection ended before the answer did"), "{error}");
    // Shorter: only a listing knows.
    let short = of_length("1000");
    let error = error_of(&summed_weights_by(move |r| Some(short(r))));
    assert!(error.contains("1000 of 300000 bytes came") || error.contains("sent another part"), "{error}");
    // No length at all, and the connection ends as if that were the end of the file.
    let server = summed_weights_by(|r| {
        let whole = response("200 OK", &[("X-No-Length", "1")], &weights());
        Some(Act::Send(if r.nth == 0 { cut(whole) } else { part(r, &weights(), &[]) }))
    });
    pulls(&server);
    assert_eq!(offsets(&server), [0, CUT]);
    let server = summed_weights_by(|_| Some(Act::Send(response("200 OK", &[], &[0; 300_001]))));
    assert!(error_of(&server).contains("longer than 300000 bytes"));
}

#[test]
fn a_wrong_checksum_is_noticed() {
    let mut wrong = weights();
    wrong[200_000] ^= 1;
    // The checksum is in the listing, or in the hub's redirect to the place where the file is.
    for in_listing in [true, false] {
        let bad = wrong.clone();
        let elsewhere = Server::start(move |_| Act::Send(response("200 OK", &[("ETag", "\"cdn\"")], &bad)));
        let sum = sha256(&weights());
        let headers = [sum.clone(), format!("{}/x", elsewhere.endpoint)];
        let act = move |_: &Request| {
            let [sum, to] = &headers;
            let linked =
                [("X-Linked-ETag", &*format!("\"{sum}\"")), ("X-Linked-Size", "300000"), ("Location", to)]
                    .map(|(k, v)| (k, v.to_owned()));
            let linked: Vec<_> = linked.iter().map(|(k, v)| (*k, &**v)).collect();
            Some(Act::Send(response("302 Found", if in_listing { &linked[2..] } else { &linked }, b"")))
        };
        let server = if in_listing { summed_weights_by(act) } else { weights_by(act) };
        let temp = tempfile::tempdir().unwrap();
        let error = pull_to(&server.endpoint, temp.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("its SHA-256 is {}, but the hub says {sum}", sha256(&wrong))),
            "{error}"
        );
        assert!(!blobs(temp.path()).contains(&sum));
        // Nothing of it is used by a run that gets the right file.
        let right = summed_weights_by(|_| None);
        assert_holds(&pull_to(&right.endpoint, temp.path()).unwrap(), &model());
        assert!(blobs(temp.path()).contains(&sum));
    }
}

/// Small files are not in Git LFS: the listing has the ids of their git blobs.
#[test]
fn a_small_file_that_is_not_what_the_hub_lists_is_refused() {
    const CONFIG: &str = "1af53425963f197d2a1f4b4d806fba33508f8660"; // as `git hash-object` says
    const OTHER: &str = "c9fc5e9434285a4f5796b0fa5ca635f4c1533153";
    let list = |key: &'static str, id: &str| {
        let lfs = serde_json::json!({"sha256": sha256(&weights()), "size": 300_000});
        serde_json::json!({"sha": SHA, "siblings": [
            {"rfilename": "config.json", "size": 22, key: id},
            {"rfilename": "tokenizer.json", "blobId": null},
            // Of the pointer, not of the file.
            {"rfilename": "model.safetensors", "lfs": lfs, "blobId": CONFIG},
        ]})
    };
    let of = |key: &'static str, id: &str| {
        let listing = list(key, id).to_string().into_bytes();
        hub(model(), move |r| r.path.starts_with(API).then(|| Act::Send(response("200 OK", &[], &listing))))
    };
    for (key, id) in
        [("blobId", CONFIG), ("oid", CONFIG), ("blobId", &*CONFIG.to_uppercase()), ("blobId", "none")]
    {
        let server = of(key, id);
        let temp = tempfile::tempdir().unwrap();
        assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
        let is_known = id != "none";
        assert_eq!(blobs(temp.path()).contains(&CONFIG.to_owned()), is_known, "{id}: as Python names it");
        // Another commit has the same file.
        std::fs::remove_dir_all(temp.path().join("models--owner--tiny/snapshots")).unwrap();
        assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
        assert_eq!(server.requests("/config.json").len(), if is_known { 1 } else { 2 }, "{key} {id}");
    }
    let server = of("blobId", OTHER);
    let error = error_of(&server);
    let said = format!("its git blob id (SHA-1) is {CONFIG}, but the hub says {OTHER}");
    for words in ["owner/tiny/config.json", &said, "run the command again"] {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(server.requests("/config.json").len(), 4, "it is tried as often as another failure");
}

/// A part that some accident spoilt is found by the checksum, and the file fetched from the start.
#[test]
fn a_spoilt_part_is_thrown_away() {
    let server = summed_weights_by(|r| (r.nth < 4).then(|| Act::Send(cut(etag(r))[..500].to_vec())));
    let temp = tempfile::tempdir().unwrap();
    pull_to(&server.endpoint, temp.path()).unwrap_err();
    let sum = sha256(&weights());
    let partial = temp.path().join(format!("models--owner--tiny/blobs/{sum}.incomplete"));
    std::fs::write(&partial, vec![0; 1234]).unwrap();
    assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
    assert_eq!(offsets(&server)[4..], [1234, 0]);
    assert!(!partial.exists());
    // One without its notes is not continued.
    let server = weights_by(|_| None);
    let temp = tempfile::tempdir().unwrap();
    let blobs = temp.path().join("models--owner--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(
        blobs.join(format!("{}.incomplete", &sha256(format!("{SHA}\0model.safetensors").as_bytes())[..40])),
        "zzz",
    )
    .unwrap();
    assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
    assert_eq!(offsets(&server), [0]);
}

#[test]
fn a_length_that_is_not_known_is_no_trouble() {
    let chunked = |bytes: &[u8]| {
        let mut body = Vec::new();
        for piece in bytes.chunks(7000) {
            body.extend(format!("{:x}\r\n", piece.len()).bytes());
            body.extend(piece);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        response("200 OK", &[("Transfer-Encoding", "chunked")], &body)
    };
    let server = weights_by(move |r| {
        let whole = chunked(&weights());
        Some(Act::Send(if r.nth == 0 { cut(whole) } else { whole }))
    });
    let temp = tempfile::tempdir().unwrap();
    let hub = Hub::new(settings(&server.endpoint, temp.path()), "owner/tiny").unwrap();
    let mut last = (0, Some(0));
    let mut unknown = 0;
    let dir = hub.pull("main", None, &mut |name, done, total| {
        if name == "model.safetensors" {
            unknown += u32::from(total.is_none());
            last = (done, total);
        }
    });
    assert_holds(&dir.unwrap(), &model());
    assert!(unknown > 2);
    assert_eq!(last, (300_000, Some(300_000)));
    assert_eq!(offsets(&server), [0, 0]);
}

/// Some servers give all files the same ETag.
#[test]
fn files_with_one_etag_stay_apart() {
    let server = hub(model(), |r| {
        let files = model();
        let (_, bytes) = files.iter().find(|(name, _)| r.is(name))?;
        Some(Act::Send(response("200 OK", &[("ETag", "\"same\"")], bytes)))
    });
    pulls(&server);
}

/// A blob with the right checksum that another commit or program brought is used as it is.
#[test]
fn what_the_cache_has_by_its_checksum_is_not_fetched() {
    let server = summed_weights_by(|_| panic!("fetched"));
    let temp = tempfile::tempdir().unwrap();
    let blobs = temp.path().join("models--owner--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(sha256(&weights())), weights()).unwrap();
    assert_holds(&pull_to(&server.endpoint, temp.path()).unwrap(), &model());
    assert!(offsets(&server).is_empty());
}

#[test]
fn two_that_pull_at_once_do_not_disturb_each_other() {
    for sums in [false, true] {
        let act = |r: &Request| {
            std::thread::sleep(200 * MS);
            Some(Act::Send(etag(r)))
        };
        let server = if sums { summed_weights_by(act) } else { weights_by(act) };
        let temp = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let pulls: Vec<_> =
                (0..4).map(|_| scope.spawn(|| pull_to(&server.endpoint, temp.path()))).collect();
            for pull in pulls {
                assert_holds(&pull.join().unwrap().unwrap(), &model());
            }
        });
        assert_eq!(offsets(&server), [0]);
    }
}

#[test]
fn another_process_that_hangs_is_not_waited_for_without_end() {
    let server = summed_weights_by(|_| None);
    let temp = tempfile::tempdir().unwrap();
    let cache = super::super::cache::Cache::of(temp.path(), "owner/tiny");
    let sum = sha256(&weights());
    let _lock = cache.lock(&sum, &limits()).unwrap();
    let mut settings = settings(&server.endpoint, temp.path());
    settings.limits.lock_wait = 300 * MS;
    let start = Instant::now();
    let hub = Hub::new(settings, "owner/tiny").unwrap();
    let error = hub.pull("main", None, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("another process holds") && error.contains(&sum), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}
