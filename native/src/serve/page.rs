//! The page's files, which are read once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use moelab::lab::store::check_name;
use moelab_native::{input, print};
use oxhttp::model::{
    Body, HeaderName, HeaderValue, Response,
    header::{self, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};

/// The folder of the page.
const FOLDER: &str = "dist";
const INDEX: &str = "index.html";
/// Most bytes of a file: a module with the trainer has a few MiB.
const MOST: u64 = 64 << 20;
/// What stands before the policy of the page and after it.
const POLICY: (&str, &str) = ("http-equiv=\"Content-Security-Policy\" content=\"", "\"");

/// Files by name.
pub struct Page {
    files: BTreeMap<String, &'static [u8]>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Page {
    /// Reads the page from a folder; without one, from `dist` in the current folder or beside the program. It is told who serves it by an element
    /// `meta`.
    ///
    /// # Errors
    /// If there is no page.
    pub fn load(folder: Option<&Path>, has_control: bool) -> Result<Page> {
        let folder = match folder {
            Some(folder) => folder.to_path_buf(),
            None => found()?,
        };
        ensure!(folder.join(INDEX).is_file(), "{}: there is no page in it; `cargo xtask web` builds one in dist/", print::path(&folder));
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(|| print::path(&folder))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_file() && check_name(name).is_ok() && content_type(name).is_some() {
                let bytes = input::read(&path, MOST).with_context(|| print::path(&path))?;
                files.insert(name.to_string(), kept(bytes));
            }
        }
        let index = files.get(INDEX).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        let policy = index.split_once(POLICY.0).and_then(|(_, rest)| rest.split_once(POLICY.1));
        let (policy, _) = policy.with_context(|| format!("{}: it has no content security policy", print::path(&folder.join(INDEX))))?;
        let headers = headers(policy)?;
        let access = if has_control { "control" } else { "read-only" };
        let index = index.replacen("</head>", &format!("<meta name=\"moelab-serve\" content=\"{access}\">\n</head>"), 1);
        files.insert(INDEX.into(), kept(index.into_bytes()));
        Ok(Page { files, headers })
    }

    /// A file, or its head only.
    pub fn file(&self, name: &str, with_body: bool) -> Option<Response<Body>> {
        let name = if name.is_empty() { INDEX } else { name };
        let bytes = *self.files.get(name)?;
        let mut response = Response::new(if with_body { Body::from(bytes) } else { Body::empty() });
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type(name)?));
        Some(response)
    }

    /// A response with the headers that all have.
    pub fn secured(&self, mut response: Response<Body>) -> Response<Body> {
        response.headers_mut().extend(self.headers.iter().cloned());
        response
    }
}

/// Bytes that connections share until the process ends.
fn kept(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

/// Where the page is.
fn found() -> Result<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|folder| folder.join(FOLDER));
    let places = [Some(PathBuf::from(FOLDER)), beside];
    match places.into_iter().flatten().find(|folder| folder.join(INDEX).is_file()) {
        Some(folder) => Ok(folder),
        None => {
            bail!("there is no page in dist/, here or beside the program: `cargo xtask web` builds it, --page DIR names another folder")
        }
    }
}

/// Workers have no element that states the policy, and only a header says who may frame a page.
fn headers(policy: &str) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let policy = HeaderValue::from_str(&format!("{policy}; frame-ancestors 'none'")).context("the content security policy of the page")?;
    let fixed = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    Ok(vec![
        (CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        fixed("cross-origin-resource-policy", "same-origin"),
        fixed("cross-origin-opener-policy", "same-origin"),
    ])
}

/// The type of a file of the page; files of other types are none.
fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "toml" | "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}
