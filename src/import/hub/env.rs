//! What the environment says: where the hub and its cache are, the token, and whether the network may be used. The
//! variables are those of Python's `huggingface_hub`.

use super::http::Limits;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How to reach one hub, and where to keep what comes from it.
pub(super) struct Settings {
    /// Scheme, host, port and path prefix, without a slash at the end.
    pub endpoint: String,
    /// The folder that holds `models--owner--name`.
    pub cache: PathBuf,
    pub token: Option<String>,
    /// No connection may be opened.
    pub offline: bool,
    pub limits: Limits,
    /// The proxy of `HTTPS_PROXY` and its like.
    pub proxy: Option<ureq::Proxy>,
}

impl Settings {
    /// Reads the variables that `get` knows. Fails with [`Error::Config`] on a value that cannot be used.
    pub fn read(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings> {
        let text = |key: &str| {
            let value = get(key)?.into_string().ok()?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let path = |key: &str| get(key).filter(|v| !v.is_empty()).map(|v| expand(Path::new(&v), get));
        let home = match (path("HF_HOME"), path("XDG_CACHE_HOME"), home_dir(get)) {
            (Some(home), ..) => Some(home),
            (_, Some(caches), _) => Some(caches.join("huggingface")),
            (_, _, Some(user)) => Some(user.join(".cache").join("huggingface")),
            _ => None,
        };
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let Some(cache) = cache.or_else(|| home.as_ref().map(|h| h.join("hub"))) else {
            return Err(Error::Config("no home directory to keep the download in; set HF_HOME".into()));
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|h| h.join("token")))?;
            let token = std::fs::read_to_string(file).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        });
        let mut limits = Limits::default();
        if let Some(value) = text("HF_HUB_DOWNLOAD_TIMEOUT") {
            limits.stall = seconds(&value).ok_or_else(|| {
                let what = "must be a number of seconds from 1 to 3600";
                Error::Config(format!("HF_HUB_DOWNLOAD_TIMEOUT is {value:?}; {what}"))
            })?;
        }
        let offline =
            ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().filter_map(text).any(|v| is_true(&v));
        let endpoint = endpoint(&text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into()))?;
        Ok(Settings { endpoint, cache, token, offline, limits, proxy: proxy(&text)? })
    }
}

/// Checks the URL of a hub. Its path prefix stays, as mirrors have one.
pub(super) fn endpoint(url: &str) -> Result<String> {
    // A password in the URL would be shown in every message about it.
    if url.contains('@') {
        return Err(Error::Config(
            "HF_ENDPOINT must not contain a user name or `@`; put the token into HF_TOKEN".into(),
        ));
    }
    let bad = || Error::Config(format!("HF_ENDPOINT is {url:?}; must be an http or https URL without query"));
    let uri: ureq::http::Uri = url.parse().map_err(|_| bad())?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !known || uri.host().is_none_or(str::is_empty) || url.contains(['?', '#']) {
        return Err(bad());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The proxy that ureq takes from the environment. One that ureq cannot read would be ignored, and the connection made
/// without it: that is refused here.
fn proxy(text: &dyn Fn(&str) -> Option<String>) -> Result<Option<ureq::Proxy>> {
    let found = ureq::Proxy::try_from_env();
    if found.is_none() {
        for upper in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            for key in [upper.to_owned(), upper.to_lowercase()] {
                if text(&key).is_some() {
                    return Err(Error::Config(format!(
                        "{key} is not the URL of a proxy, such as http://host:8080"
                    )));
                }
            }
        }
    }
    Ok(found)
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    (1.0..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// The values that Python's `huggingface_hub` takes for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|t| value.eq_ignore_ascii_case(t))
}

fn home_dir(get: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    match get("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Some(home.into()),
        None => std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
    }
}

/// `~/x` as Python's `expanduser` reads it.
fn expand(path: &Path, get: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    match (path.strip_prefix("~"), home_dir(get)) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}
