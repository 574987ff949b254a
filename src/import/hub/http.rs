//! One request to the hub: its time limits, its redirects, and the token, which goes to the hub alone.

use super::failure::Failure;
use crate::error::{Error, Result};
use std::cell::Cell;
use std::io::Read;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, HeaderValue, Response, Uri, header};
use ureq::{Agent, Body};

/// Bounds on time, redirects and attempts.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// For finding the host's address, and again for the connection with its TLS handshake.
    pub connect: Duration,
    /// For the head of an answer, and for each wait for more of its body.
    pub stall: Duration,
    /// A body must bring `window_bytes` in each `window`.
    pub window: Duration,
    pub window_bytes: u64,
    pub redirects: u32,
    /// Attempts in a row that may fail.
    pub tries: u32,
    /// Before the second attempt; doubled before each further one.
    pub pause: Duration,
    /// The longest wait that a server may ask for (`Retry-After`).
    pub longest_pause: Duration,
    /// How long another process may hold a file's lock without the file growing.
    pub lock_wait: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(8),
            stall: Duration::from_secs(15),
            window: Duration::from_secs(60),
            window_bytes: 16 << 10,
            redirects: 10,
            tries: 4,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(120),
            lock_wait: Duration::from_secs(180),
        }
    }
}

impl Limits {
    /// The longest that a body of `bytes` may take at the slowest speed allowed.
    fn body(&self, bytes: u64) -> Duration {
        let windows = bytes / self.window_bytes.max(1) + 2;
        self.window.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX))
    }
}

/// Makes requests to one hub and follows its redirects to other hosts.
pub(super) struct Client {
    agent: Agent,
    home: Origin,
    token: Option<HeaderValue>,
    secret: Option<String>,
    pub limits: Limits,
    /// Whether a connection has succeeded, so that the network is known to work.
    reached: Cell<bool>,
}

/// Scheme, host and port: where a token may go.
#[derive(PartialEq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(uri: &Uri) -> Option<Origin> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = match (uri.port_u16(), &*scheme) {
            (Some(port), "http" | "https") => port,
            (None, "http") => 80,
            (None, "https") => 443,
            _ => return None,
        };
        let host = uri.host()?.trim_end_matches('.').to_ascii_lowercase();
        Some(Origin(scheme, host, port))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", self.0, self.1, self.2)
    }
}

/// The answer at the end of the redirects.
pub(super) struct Answer {
    response: Response<Body>,
    /// Headers of the hub's own answers, before a redirect to another host. They describe the file: `X-Linked-ETag` is the
    /// SHA-256 of a file in Git LFS, `X-Linked-Size` its length.
    pub linked_etag: Option<String>,
    pub linked_size: Option<u64>,
}

impl Client {
    /// A client of the hub at `endpoint`. Fails with [`Error::Config`] on a token that no header can hold.
    pub fn new(
        endpoint: &str,
        token: Option<&str>,
        proxy: Option<ureq::Proxy>,
        limits: Limits,
    ) -> Result<Client> {
        let secret = token.map(str::to_owned);
        let bad = |_| Error::Config("HF_TOKEN holds a character that a token cannot have".into());
        let token =
            token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose().map_err(bad)?;
        let home = endpoint.parse().ok().as_ref().and_then(Origin::of);
        let home = home.ok_or_else(|| {
            Error::Config(format!("HF_ENDPOINT is {endpoint:?}; must be an http or https URL"))
        })?;
        let config = Agent::config_builder()
            .user_agent(concat!("trimtab/", env!("CARGO_PKG_VERSION")))
            // A compressed body could not be continued by a range of bytes.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0) // followed here, where the token can be held back
            .proxy(proxy)
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.stall))
            .timeout_recv_response(Some(limits.stall))
            .timeout_per_read(Some(limits.stall))
            .timeout_per_write(Some(limits.stall))
            .build();
        Ok(Client { agent: config.into(), home, token, secret, limits, reached: Cell::new(false) })
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// `text` on one line and without the token, which a server may have sent back to us.
    pub fn printable(&self, text: &str) -> String {
        let text = match &self.secret {
            Some(secret) => text.replace(secret, "(the token)"),
            None => text.to_owned(),
        };
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }

    /// Whether a server has answered.
    pub fn reached(&self) -> bool {
        self.reached.get()
    }

    /// One GET of `url` with `headers`, through its redirects. `most` bounds the body's length in bytes and so its time.
    pub fn get(&self, url: &str, headers: &[(&str, String)], most: u64) -> Result<Answer, Failure> {
        let mut uri: Uri = url.parse().map_err(|e| Failure::Refused(format!("{url:?} is not a URL: {e}")))?;
        let (mut linked_etag, mut linked_size) = (None, None);
        let mut at_home = true;
        for _ in 0..=self.limits.redirects {
            // Once another host has had its say about where to go, the token stays away for good.
            at_home = at_home && Origin::of(&uri).is_some_and(|o| o == self.home);
            let mut request = self.agent.get(&uri);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let (true, Some(token)) = (at_home, &self.token) {
                request = request.header(header::AUTHORIZATION, token);
            }
            let request = request.config().timeout_recv_body(Some(self.limits.body(most))).build();
            let response = request.call().map_err(|e| self.failure(e))?;
            self.reached.set(true);
            if at_home {
                linked_etag = text(response.headers(), "x-linked-etag").or(linked_etag);
                linked_size = number(response.headers(), "x-linked-size").or(linked_size);
            }
            let location = response.headers().get(header::LOCATION);
            let (301 | 302 | 303 | 307 | 308, Some(location)) = (response.status().as_u16(), location) else {
                return Ok(Answer { response, linked_etag, linked_size });
            };
            uri = target(&uri, location)?;
        }
        Err(Failure::Refused(format!(
            "the server redirected more than {} times; the last one went to {}",
            self.limits.redirects,
            Origin::of(&uri).map(|o| o.to_string()).unwrap_or_default()
        )))
    }

    /// What a failed exchange means for another attempt.
    fn failure(&self, error: ureq::Error) -> Failure {
        failure(error, &self.limits)
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        text(self.response.headers(), name)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        number(self.response.headers(), name)
    }

    /// Refuses a body that is not the bytes that were asked for: compressed unasked, or a web page in place of a file.
    pub fn check_plain(&self) -> Result<(), Failure> {
        if let Some(encoding) =
            self.header("content-encoding").filter(|e| !e.eq_ignore_ascii_case("identity"))
        {
            let what =
                format!("the server or a proxy compressed the answer unasked (Content-Encoding: {encoding})");
            return Err(Failure::Refused(what));
        }
        match self.header("content-type") {
            Some(kind) if kind.trim_start().to_ascii_lowercase().starts_with("text/html") => Err(web_page()),
            _ => Ok(()),
        }
    }

    /// Hands the body to `take`, piece by piece, as long as it comes fast enough and is no longer than `most` bytes.
    pub fn read(
        self,
        limits: &Limits,
        most: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let mut body = self.response.into_body().into_reader();
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        let (mut since, mut before) = (Instant::now(), 0);
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failure(e.into(), limits)),
            };
            total += n as u64;
            if total > most {
                return Err(Failure::Refused(format!("the answer is longer than {most} bytes")));
            }
            take(&buffer[..n]).map_err(Failure::Local)?;
            if since.elapsed() >= limits.window {
                if total - before < limits.window_bytes {
                    let what =
                        format!("only {} bytes came in {} s", total - before, since.elapsed().as_secs());
                    return Err(Failure::Passing(what, None));
                }
                (since, before) = (Instant::now(), total);
            }
        }
    }
}

/// What a web page in place of data mostly is.
pub(super) fn web_page() -> Failure {
    Failure::Refused(
        "a web page came in place of the data: the login page of a network or a proxy? Open the address in a browser, \
         or set HTTPS_PROXY"
            .into(),
    )
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// Where a redirect leads. Its query is shown to nobody: it may hold a signature.
pub(super) fn target(from: &Uri, location: &HeaderValue) -> Result<Uri, Failure> {
    let bad = || Failure::Refused("the server redirected to an address that is not a URL".into());
    let to = join(from, location.to_str().map_err(|_| bad())?).ok_or_else(bad)?;
    if to.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(Failure::Refused("the server redirected to an address with a user name".into()));
    }
    let Some(origin) = Origin::of(&to) else {
        return Err(Failure::Refused(
            "the server redirected to an address that is neither http nor https".into(),
        ));
    };
    if from.scheme_str() == Some("https") && origin.0 != "https" {
        let what = format!(
            "the server redirected from https to {origin}, where others could read and change the data"
        );
        return Err(Failure::Refused(what));
    }
    Ok(to)
}

/// `location` as seen from `base` (RFC 3986, section 5.2).
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?.trim();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let before = location.find([':', '/', '?']).unwrap_or(location.len());
    if location[before..].starts_with(':') {
        return location.parse().ok();
    }
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (location, None),
    };
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = match path {
        "" => base.path().to_owned(),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("{folder}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    format!("{scheme}://{authority}/{}{query}", parts.join("/")).parse().ok()
}

/// Sorts ureq's errors by what can be done about them.
fn failure(error: ureq::Error, limits: &Limits) -> Failure {
    use std::io::ErrorKind as Kind;
    use ureq::{Error as E, Timeout};
    let stall = limits.stall.as_secs_f64();
    match error {
        E::Timeout(Timeout::Resolve) => {
            Failure::Unreachable("finding the host's address took too long".into())
        }
        E::Timeout(Timeout::Connect) => {
            Failure::Unreachable(format!("no connection within {} s", limits.connect.as_secs_f64()))
        }
        E::Timeout(Timeout::RecvBody) => Failure::Passing("the answer came too slowly".into(), None),
        E::Timeout(_) => Failure::Passing(format!("no data came for {stall} s"), None),
        E::HostNotFound => Failure::Unreachable("the host has no address".into()),
        E::ConnectProxyFailed(what) => Failure::Unreachable(format!("through the proxy: {what}")),
        E::ConnectionFailed => Failure::Unreachable("no connection".into()),
        E::Io(e) => match e.kind() {
            Kind::UnexpectedEof => {
                Failure::Passing("the connection ended before the answer did".into(), None)
            }
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                Failure::Passing(format!("the connection broke ({e})"), None)
            }
            Kind::TimedOut | Kind::WouldBlock => {
                Failure::Passing(format!("no data came for {stall} s"), None)
            }
            Kind::InvalidData => Failure::Refused(tls(&e)),
            _ => Failure::Unreachable(e.to_string()),
        },
        E::Rustls(e) => Failure::Refused(tls(&e)),
        E::LargeResponseHeader(has, most) => {
            Failure::Refused(format!("the head of the answer has {has} bytes; at most {most} are read"))
        }
        E::Protocol(e) => Failure::Passing(format!("the answer is not proper HTTP ({e})"), None),
        e => Failure::Refused(e.to_string()),
    }
}

fn tls(error: &dyn std::fmt::Display) -> String {
    format!("the secure connection failed ({error}); check this machine's clock and HTTPS_PROXY")
}
