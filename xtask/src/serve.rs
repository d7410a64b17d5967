//! A static web server on the loopback interface: serves the page's files as a static host would, with security headers.
//! One thread and one request per connection; GET and HEAD. Tests may also serve files from memory and receive what a
//! page posts to `/report`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// What the page may load; `wasm-unsafe-eval` allows WebAssembly and no other evaluation.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
    connect-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const LONGEST_HEAD: u64 = 16 << 10;
const LONGEST_REPORT: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// What is served.
#[derive(Default)]
pub struct Site {
    /// Folders, searched in this order.
    pub folders: Vec<PathBuf>,
    /// Files that exist only in memory, by path without the leading slash.
    pub files: BTreeMap<String, String>,
    /// Receives the bodies posted to `/report`; without it, POST requests are refused.
    pub reports: Option<mpsc::Sender<String>>,
}

/// Serves `site` on 127.0.0.1 from background threads until the process ends; port 0 picks a free port.
///
/// # Errors
/// If the port is in use.
pub fn serve(site: Site, port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port} of 127.0.0.1"))?;
    let address = listener.local_addr()?;
    let site = Arc::new(site);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let site = site.clone();
            // A browser that closes the connection early is not an error of this server.
            thread::spawn(move || answer(&site, connection).ok());
        }
    });
    Ok(address)
}

fn answer(site: &Site, mut connection: TcpStream) -> Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(connection.try_clone()?.take(LONGEST_HEAD));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(("content-length", value)) = line.to_ascii_lowercase().split_once(':').map(|(k, v)| (k.trim(), v.trim())) {
            length = value.parse()?;
        }
    }
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(['?', '#']).next().unwrap_or_default().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    match (method, &site.reports) {
        ("GET" | "HEAD", _) => match find(site, path) {
            Some(body) => respond(&mut connection, "200 OK", content_type(path), if method == "GET" { &body } else { &[] }),
            None => respond(&mut connection, "404 Not Found", "text/plain", b"not found"),
        },
        ("POST", Some(reports)) if path == "report" => {
            let mut body = String::new();
            if length > LONGEST_REPORT {
                bail!("a report of {length} bytes");
            }
            reader.get_mut().set_limit(length);
            reader.take(length).read_to_string(&mut body)?;
            reports.send(body)?;
            respond(&mut connection, "204 No Content", "text/plain", &[])
        }
        _ => respond(&mut connection, "405 Method Not Allowed", "text/plain", b"GET and HEAD only"),
    }
}

fn find(site: &Site, path: &str) -> Option<Vec<u8>> {
    if let Some(text) = site.files.get(path) {
        return Some(text.clone().into_bytes());
    }
    // Only plain names: nothing outside the folders is ever served.
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    site.folders.iter().find_map(|folder| fs::read(folder.join(path)).ok())
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

fn respond(connection: &mut TcpStream, status: &str, content_type: &str, body: &[u8]) -> Result<()> {
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nContent-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len(),
    )?;
    connection.write_all(body)?;
    Ok(())
}
