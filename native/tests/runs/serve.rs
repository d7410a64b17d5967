//! `moelab serve`, by its requests: who is let in, what is bounded, and a run of another process that is followed and controlled.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const TINY: &str = "tests/helpers/tiny.toml";

fn moelab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(ROOT).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// A process that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A server on a free port, with the page's sources as its page.
struct Server {
    process: Process,
    address: String,
    token: String,
}

impl Server {
    fn open(runs: &Path, flags: &[&str]) -> Server {
        let arguments = [&["serve", runs.to_str().unwrap(), "--port", "0", "--page", "web", "--json"], flags].concat();
        let mut process = Process(moelab(&arguments).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let printed: Value = serde_json::from_str(&line).expect("it prints its address");
        let of = |key: &str| printed[key].as_str().unwrap().to_string();
        assert_eq!(of("url"), format!("http://{}/#token={}", of("address"), of("token")));
        Server { process, address: of("address"), token: of("token") }
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that refuses early may close the connection before everything is sent.
        stream.write_all(request.as_bytes()).ok();
        stream
    }

    /// Status, head and body of the response to a request, given as its first line, its headers and its body.
    fn ask(&self, line: &str, headers: &[String], body: &str) -> (u16, String, String) {
        response(self.send(&request(line, headers, body)))
    }

    fn host(&self) -> String {
        format!("Host: {}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// What the server replies to requests.
    fn replies(&self, requests: &[Value]) -> Vec<Value> {
        let body: Vec<String> = requests.iter().map(Value::to_string).collect();
        let (status, _, text) = self.ask("POST /requests", &[self.host(), self.bearer()], &body.join("\n"));
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Where a run stands once a condition holds.
    fn watch_until(&self, run: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(300);
        loop {
            let replies = self.replies(&[json!({"request": "watch", "run": run})]);
            if replies[0]["reply"] == "watched" && holds(&replies[0]) {
                return replies[0].clone();
            }
            assert!(Instant::now() < end, "{replies:?}");
            sleep(Duration::from_millis(50));
        }
    }

    fn control(&self, run: &str, command: Value) {
        assert_eq!(self.replies(&[json!({"request": "control", "run": run, "command": command})]), Vec::<Value>::new());
    }
}

fn request(line: &str, headers: &[String], body: &str) -> String {
    format!("{line} HTTP/1.1\r\n{}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", headers.join("\r\n"), body.len())
}

fn response(mut stream: TcpStream) -> (u16, String, String) {
    let mut bytes = Vec::new();
    // What was answered before the connection was reset counts.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_string(), body.to_string())
}

fn command(name: &str) -> Value {
    json!({ "command": name })
}

#[test]
fn only_pages_of_the_server_with_its_token_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::open(folder.path(), &[]);
    let (own, bearer) = (server.host(), server.bearer());
    let port = server.address.rsplit(':').next().unwrap();
    let status = |line: &str, headers: &[&str]| server.ask(line, &headers.iter().map(|h| h.to_string()).collect::<Vec<_>>(), "").0;

    // The page, with its policy for everything that it loads, and who serves it.
    let (code, head, page) = server.ask("GET /", std::slice::from_ref(&own), "");
    assert_eq!(code, 200);
    assert!(page.contains("<meta name=\"moelab-serve\" content=\"read-only\">"), "{page}");
    assert!(head.contains("connect-src 'self'") && head.contains("frame-ancestors 'none'") && head.contains("no-referrer"), "{head}");
    assert!(!page.contains(&server.token));
    assert_eq!(server.ask("HEAD /app.js", std::slice::from_ref(&own), "").2, "");

    // Tokens.
    let list = "{\"request\":\"list\"}";
    let wrong = format!("Authorization: Bearer {}", server.token.chars().rev().collect::<String>());
    let short = format!("Authorization: Bearer {}", &server.token[1..]);
    for headers in [
        vec![],
        vec![wrong],
        vec![short],
        vec!["Authorization: Bearer ".into()],
        vec![bearer.replace("Bearer", "Basic")],
        vec![bearer.clone(); 2],
    ] {
        let headers = [vec![own.clone()], headers].concat();
        for (line, body) in [("POST /requests", list), ("GET /replies", ""), (&format!("GET /replies?token={}", server.token), "")] {
            assert_eq!(server.ask(line, &headers, body).0, 401, "{line} {headers:?}");
        }
    }
    assert_eq!(server.ask("POST /requests", &[own.clone(), bearer.clone()], list).0, 200);

    // Hosts: a forwarded port is another one, a foreign name that leads here is not this server.
    for (host, wanted) in [
        ("localhost:1234", 200),
        ("127.0.0.1:1234", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        (&*format!("evil.example:{port}"), 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("127.0.0.1.evil.example", 403),
    ] {
        for (line, headers) in [("GET /", vec![]), ("GET /replies", vec![&*bearer])] {
            assert_eq!(status(line, &[vec![&*format!("Host: {host}")], headers].concat()), wanted, "{line} of {host}");
        }
    }
    assert_eq!(status("GET /replies", &[&bearer]), 400, "a request without a host");
    assert_eq!(status("GET http://evil.example/replies", &[&own, &bearer]), 403);

    // Origins.
    let origin = own.replace("Host: ", "Origin: http://");
    assert_eq!(status("GET /replies", &[&own, &bearer, &origin, "Sec-Fetch-Site: same-origin"]), 200);
    let other_port = format!("Origin: http://127.0.0.1:{}", port.parse::<u16>().unwrap() ^ 1);
    for foreign in
        ["Origin: http://evil.example", "Origin: null", "Origin: ", &other_port, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
    {
        for line in ["GET /replies", "POST /requests", "GET /app.js", "OPTIONS /requests"] {
            assert_eq!(status(line, &[&own, &bearer, foreign]), 403, "{line} {foreign}");
        }
    }
    assert_eq!(status("GET /", &[&own, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]), 200, "a link leads to the page");
    assert_eq!(status("GET /replies", &[&own, &bearer, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]), 403);

    // Paths and methods.
    for path in [
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/..%2fCargo.toml",
        "//etc/passwd",
        "/app.js/../../Cargo.toml",
        "/./app.js",
        "/pictures/verdict.png",
        "/src/lib.rs",
        "/Cargo.toml%00.js",
        "/.gitignore",
        "/index.html/",
        "/%61pp.js",
    ] {
        assert_eq!(status(&format!("GET {path}"), &[&own, &bearer]), 404, "{path}");
    }
    for line in ["GET /requests", "PUT /requests", "DELETE /requests", "OPTIONS /requests", "POST /replies", "POST /", "PUT /app.js"] {
        assert_eq!(status(line, &[&own, &bearer]), 405, "{line}");
    }

    // Sizes.
    let own = [own, bearer];
    assert_eq!(server.ask("POST /requests", &own, &" ".repeat(2 << 20)).0, 413);
    assert_eq!(server.ask("POST /requests", &own, &vec![list; 257].join("\n")).0, 413);
    assert_eq!(server.ask("POST /requests", &[&own[..], &[format!("X: {}", "x".repeat(20_000))]].concat(), list).0, 400);
    for body in ["{\"request\":\"none\"}", "[]", &"[".repeat(100_000), "{\"request\":\"look\",\"run\":1}"] {
        assert_eq!(server.ask("POST /requests", &own, body).0, 400);
    }
    let query = json!({"request": "read", "run": "none", "series": ["train_ce"], "from": 0, "to": 1, "points": u32::MAX});
    assert!(server.replies(&[query])[0]["problem"]["what"].as_str().unwrap().contains("4096 points"));
    assert_eq!(server.replies(&[json!({"request": "look", "run": "../x"})])[0]["reply"], "refused");
}

#[test]
fn a_server_without_control_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::open(folder.path(), &[]);
    let session = |command: Value| json!({"request": "session", "command": command});
    let study = |command: Value| json!({"request": "study", "study": "two", "command": command});
    let requests = [
        session(json!({"command": "start", "run": "tiny", "config": fs::read_to_string(Path::new(ROOT).join(TINY)).unwrap()})),
        session(json!({"command": "resume", "run": "tiny"})),
        session(json!({"command": "inspect", "run": "tiny"})),
        session(command("pause")),
        study(json!({"command": "open", "study": "a.toml", "files": {"a.toml": "question = \"?\""}})),
        study(command("run")),
        study(command("stop")),
        json!({"request": "control", "run": "tiny", "command": {"command": "pause"}}),
        json!({"request": "probe", "config": ""}),
        json!({"request": "remove", "name": "tiny"}),
    ];
    let replies = server.replies(&requests);
    assert_eq!(replies.len(), requests.len());
    for reply in &replies {
        assert!(reply["reply"] == "refused" && reply["problem"]["what"].as_str().unwrap().contains("`moelab serve --control`"), "{reply}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_thousand_requests_at_once_are_answered_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::open(folder.path(), &[]);
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.process.0.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB").trim();
        peak.trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    let list = request("POST /requests", &[server.host(), server.bearer()], "{\"request\":\"list\"}");
    let large = request("POST /requests", &[server.host()], &"x".repeat(100_000));
    let streams: Vec<TcpStream> = (0..1000).map(|number| server.send(if number % 10 == 0 { &large } else { &list })).collect();
    let mut counts = std::collections::BTreeMap::new();
    for stream in streams {
        *counts.entry(response(stream).0).or_insert(0) += 1;
    }
    println!("{counts:?}, {} kB more", memory() - before);
    assert_eq!(counts.get(&401), Some(&100), "{counts:?}");
    assert!(counts.keys().all(|status| [200, 401, 503].contains(status)) && counts[&200] >= 100, "{counts:?}");
    assert!(memory() - before < 64 << 10, "{} kB more than before", memory() - before);
    assert_eq!(server.replies(&[json!({"request": "list"})])[0]["reply"], "listed");
}

/// The losses of the updates in a log.
fn losses(run: &Path) -> Vec<Value> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["kind"] == "update").map(|line| line["train_ce"].clone()).collect()
}

#[test]
fn a_run_of_another_process_is_followed_to_its_end_paused_and_continued() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("headless");
    // A command from before its time.
    fs::create_dir(&run).unwrap();
    fs::write(run.join("commands.jsonl"), "{\"command\":\"stop\"}\n").unwrap();
    let updates = 120;
    let (out, set) = (run.to_str().unwrap(), format!("train.updates={updates}"));
    let train = ["train", TINY, "--out", out, "--set", &set, "--set", "train.evaluation.every=60"];
    let mut trainer = Process(moelab(&train).stdout(Stdio::null()).spawn().unwrap());
    let server = Server::open(folder.path(), &["--control"]);
    let reader = Server::open(folder.path(), &[]);

    server.watch_until("headless", |watched| watched["process"]["state"] == "training" && watched["newest"]["update"].as_u64() > Some(2));
    let listed = &reader.replies(&[json!({"request": "list"})])[0];
    assert_eq!(listed["runs"][0]["process"], "training", "{listed}");
    server.control("headless", command("pause"));
    let paused = server.watch_until("headless", |watched| watched["process"]["state"] == "paused");
    let update = paused["process"]["update"].as_u64().unwrap();
    assert!(update < updates, "the run was over before it was paused");
    sleep(Duration::from_millis(500));
    assert_eq!(losses(&run).len() as u64, update, "a paused run makes no updates");

    // Single steps, and what no run takes from outside.
    server.control("headless", command("step"));
    server.watch_until("headless", |watched| watched["process"] == json!({"state": "paused", "update": update + 1}));
    server.control("headless", json!({"command": "sample", "prompt": "a"}));
    let refused = server.ask("GET /replies?after=0", &[server.host(), server.bearer()], "").2;
    assert!(refused.contains("takes no `sample`"), "{refused}");
    let mut door = fs::OpenOptions::new().append(true).open(run.join("commands.jsonl")).unwrap();
    let start = json!({"command": "resume", "run": "headless"});
    write!(door, "{}\nno command\n\u{0}\n{start}\n{{\"command\":\"sto", "x".repeat(5000)).unwrap();
    sleep(Duration::from_millis(500));
    assert!(trainer.0.try_wait().unwrap().is_none() && losses(&run).len() as u64 == update + 1);
    writeln!(door, "re\"}}").unwrap();

    server.control("headless", command("continue"));
    let ended = server.watch_until("headless", |watched| watched["process"].is_null());
    assert_eq!((&ended["summary"]["exit"], &ended["summary"]["updates"]), (&json!("completed"), &json!(updates)));
    assert_eq!(trainer.0.wait().unwrap().code(), Some(0));
    assert!(!run.join("process.json").exists() && !run.join("commands.jsonl").exists());
    let query = json!({"request": "read", "run": "headless", "series": ["train_ce"], "from": 0, "to": updates, "points": 2048});
    let read = &reader.replies(&[query])[0];
    assert_eq!((read["curves"][0]["mean"].as_array().unwrap(), losses(&run).len() as u64), (&losses(&run), updates));
    server.control("headless", command("pause"));
    let end = Instant::now() + Duration::from_secs(10);
    while !server.ask("GET /replies?after=0", &[server.host(), server.bearer()], "").2.contains("no process is making `headless`") {
        assert!(Instant::now() < end, "nobody said that the run is over");
    }
}

#[test]
fn a_study_of_another_process_is_paused_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("base.toml", &fs::read_to_string(Path::new(ROOT).join(TINY)).unwrap());
    file(
        "study.toml",
        "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\nset = [\"train.updates=400\"]\n[arms.none]\nset = [\"model.balance.coefficient=0.0\"]\n",
    );
    let (runs, study): (PathBuf, PathBuf) = (folder.path().join("runs"), folder.path().join("study.toml"));
    fs::create_dir(&runs).unwrap();
    let out = runs.join("study");
    let run = ["suite", "run", study.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let mut trainer = Process(moelab(&run).stdout(Stdio::null()).spawn().unwrap());
    let server = Server::open(&runs, &["--control"]);
    let first = "study/control-s1";
    server.watch_until(first, |watched| watched["process"]["state"] == "training" && watched["newest"]["update"].as_u64() > Some(2));
    server.control(first, command("pause"));
    let paused = server.watch_until(first, |watched| watched["process"]["state"] == "paused");
    sleep(Duration::from_millis(300));
    let still = server.watch_until(first, |_| true);
    assert_eq!(paused["newest"]["update"], still["newest"]["update"], "a paused study makes no updates");
    assert_eq!(server.replies(&[json!({"request": "study", "study": "study", "command": {"command": "continue"}})]), Vec::<Value>::new());
    server.watch_until(first, |watched| watched["newest"]["update"] != paused["newest"]["update"]);
    server.control(first, command("stop"));
    assert_eq!(trainer.0.wait().unwrap().code(), Some(75));
    assert_eq!(server.watch_until(first, |_| true)["process"], Value::Null);
}
