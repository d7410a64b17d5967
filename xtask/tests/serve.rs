//! The page's server: what it serves, its headers, and what it refuses.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::mpsc,
    time::Duration,
};

use xtask::serve::{CONTENT_SECURITY_POLICY, Site, serve};

fn site(name: &str) -> (SocketAddr, mpsc::Receiver<String>) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(folder.join("dist")).unwrap();
    fs::write(folder.join("dist/index.html"), "<p>hello").unwrap();
    fs::write(folder.join("secret.txt"), "secret").unwrap();
    let (sender, reports) = mpsc::channel();
    let files = BTreeMap::from([("modules.json".to_owned(), "[]".to_owned())]);
    let site = Site { folders: vec![folder.join("dist")], files, reports: Some(sender) };
    (serve(site, 0).unwrap(), reports)
}

fn request(address: SocketAddr, text: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connection.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, target: &str) -> String {
    request(address, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn the_page_has_its_content_type_and_policy() {
    let (address, _) = site("page");
    assert!(address.ip().is_loopback());
    let answer = get(address, "/?updates=3");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("Content-Type: text/html; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains(&format!("Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n")), "{answer}");
    assert!(answer.ends_with("\r\n\r\n<p>hello"), "{answer}");
    assert!(request(address, "HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
    assert!(get(address, "/modules.json").ends_with("\r\n\r\n[]"));
}

#[test]
fn nothing_outside_the_folders_is_served() {
    let (address, _) = site("outside");
    let absolute = format!("/{}/outside/secret.txt", env!("CARGO_TARGET_TMPDIR"));
    for target in ["/../secret.txt", "/./../secret.txt", "//../secret.txt", "/missing.js", &absolute] {
        assert!(get(address, target).starts_with("HTTP/1.1 404"), "{target}");
    }
}

#[test]
fn a_report_arrives_and_other_posts_are_refused() {
    let (address, reports) = site("report");
    let post =
        |target: &str, body: &str| request(address, &format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert!(post("/report", "{\"loss\": 1}").starts_with("HTTP/1.1 204"));
    assert_eq!(reports.recv_timeout(Duration::from_secs(10)).unwrap(), "{\"loss\": 1}");
    assert!(post("/index.html", "").starts_with("HTTP/1.1 405"));
}
