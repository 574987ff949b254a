//! A hub's listing of a repository, from a server in this process. It has none of the files that the listing names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex};
use trimtab::import::hub;
use trimtab_fuzz::{FOLDER, within};

static LISTING: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Starts the hub, and has this process use it.
static HUB: LazyLock<()> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // SAFETY: the first input comes before there is another thread.
    unsafe {
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy().to_uppercase();
            if name.starts_with("HF_") || name.ends_with("_PROXY") {
                std::env::remove_var(key);
            }
        }
        std::env::set_var("HF_ENDPOINT", format!("http://{address}"));
        std::env::set_var("HF_HOME", FOLDER.join("hub"));
    }
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
});

fn answer(mut stream: TcpStream) {
    let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(n) if n > 0 => head.extend_from_slice(&bytes[..n]),
            _ => return,
        }
    }
    let listing = LISTING.lock().expect("nobody panics with it");
    let (status, body) = match head.starts_with(b"GET /api/models/owner/name/revision/main") {
        true => ("200 OK", &listing[..]),
        false => ("404 Not Found", &[][..]),
    };
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(body);
}

fuzz_target!(|input: &[u8]| {
    LazyLock::force(&HUB);
    *LISTING.lock().expect("nobody panics with it") = input.to_owned();
    within(input, || {
        let told = hub::pull("owner/name", None, None, &mut |_, _, _| {});
        told.expect_err("there are no files");
    });
});
