//! The page of `moelab serve`: a run of another process that has no screen is followed, paused and continued by the page's buttons.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use xtask::browser::SWIFTSHADER;

use crate::app::Tab;

/// The binary beside this one, which is killed when it is dropped.
struct Moelab(Child);

impl Moelab {
    fn start(arguments: &[&str]) -> Moelab {
        let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("moelab");
        let mut command = Command::new(program);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Moelab(command.spawn().unwrap_or_else(|error| panic!("{error}: `cargo build --workspace` builds moelab")))
    }
}

impl Drop for Moelab {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn a_headless_run_is_followed_to_its_end_paused_and_continued_in_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("served");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    let (run, dist) = (folder.join("headless"), root.join("dist"));
    let path = |path: &Path| path.display().to_string();
    let mut server = Moelab::start(&["serve", &path(&folder), "--control", "--port", "0", "--page", &path(&dist), "--json"]);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let printed: Value = serde_json::from_str(&line).unwrap();
    let of = |key: &str| printed[key].as_str().unwrap().to_string();

    // The token is gone from the address once it was read, and a reload finds it.
    let mut tab = Tab::at("served", format!("http://{}/", of("address")), &SWIFTSHADER);
    tab.go(&format!("#token={}", of("token")));
    assert_eq!(tab.value("location.href"), format!("http://{}/index.html", of("address")));
    tab.go("");

    let set = ["--set", "train.updates=600", "--set", "train.evaluation.every=600"];
    let mut trainer = Moelab::start(&[&["train", "tests/helpers/tiny.toml", "--out", &path(&run)][..], &set].concat());

    let status = "document.getElementById('status').textContent";
    let stands = |words: &str| format!("{status}.includes('headless: {words}, update ') && {status}");
    tab.until(&stands("training"));
    tab.press("pause");
    let paused = tab.until(&stands("paused"));
    assert!(fs::read_to_string(run.join("process.json")).unwrap().contains("paused"), "the process says so too");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(tab.value(status), paused, "a paused run makes no updates");
    assert!(trainer.0.try_wait().unwrap().is_none(), "the run was over before it was paused");
    tab.press("continue");
    tab.until(&stands("done"));
    assert_eq!(trainer.0.wait().unwrap().code(), Some(0));

    // What was shown is what the log has.
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let updates: Vec<Value> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["kind"] == "update").collect();
    let shown = tab.value(
        "seen.statuses.map((status) => status.match(/update (\\d+) of 600, training loss ([\\d.]+)/)).filter((match) => match)\
         .map(([, update, loss]) => [Number(update), Number(loss)])",
    );
    let shown = shown.as_array().unwrap();
    println!("{} losses shown, {paused}", shown.len());
    assert!(shown.len() >= 3 && shown.last().unwrap()[0] == 600, "{shown:?}");
    for row in shown {
        let wanted = updates[row[0].as_u64().unwrap() as usize - 1]["train_ce"].as_f64().unwrap();
        // The status has four decimals. That of a pause names its update, and the newest loss of the log.
        assert!(
            (row[1].as_f64().unwrap() - wanted).abs() <= 5.1e-5 || paused.as_str().unwrap().contains(&format!("update {} ", row[0])),
            "{row}"
        );
    }
    tab.assert_closed();

    // Without the token nothing is shown, and without the server the last numbers stay.
    let mut stranger = Tab::at("served-stranger", format!("http://{}/", of("address").replace("127.0.0.1", "localhost")), &SWIFTSHADER);
    stranger.show("");
    stranger.until(&format!("{status}.includes('the token is missing')"));
    assert_eq!(stranger.value("seen.listed"), Value::Null);
    drop(stranger);
    drop(server);
    tab.until("seen.warned.some((text) => text.includes('does not answer'))");
    assert!(tab.value(status).as_str().unwrap().contains("headless: done, update 600 of 600"));
}
