//! What watching a long run costs: bytes an update, and the time to open and draw it.

use super::directory::open;
use super::runs::{START, mix};
use moelab::lab::overview::Overview;
use moelab::lab::reader::Reader;
use moelab::lab::run_folder::{RunFolder, Start};
use moelab::lab::store::Store;
use moelab::run::records::{Event, UpdateRecord};
use moelab::run::series::{Lengths, Series};
use moelab_native::store::Directory;
use std::path::Path;
use std::time::Instant;

const LENGTHS: Lengths = Lengths { layers: 12, experts: 40 };

/// A run of so many updates of 12 layers with 40 experts, written as a run is.
fn write(path: &Path, updates: u32) {
    let mut run = RunFolder::create(Box::new(open(path)), "first", &Start { lengths: LENGTHS, ..START }).expect("the folder is empty");
    for update in 1..=updates {
        let value = |index: usize| (mix(u64::from(update) << 16 | index as u64) >> 40) as f32 * 2f32.powi(-24) / 20.0;
        let record = UpdateRecord {
            update,
            micro_steps: 4 * u64::from(update),
            tokens: 65_536 * u64::from(update),
            train_ce: f64::from(value(1000)) + 3.0,
            balance: Some(1.0 + f64::from(value(1001))),
            balance_sequence: Some(1.0 + f64::from(value(1002))),
            balance_global_batch: Some(1.0 + f64::from(value(1003))),
            balance_hf_mixtral: Some(2.0 + f64::from(value(1004))),
            z: Some(f64::from(value(1005))),
            grad_norm: f64::from(value(1006)),
            clip_factor: 1.0,
            lr_adamw: 1e-3,
            expert_load: (0..LENGTHS.layers).map(|layer| (0..LENGTHS.experts).map(|expert| value(40 * layer + expert)).collect()).collect(),
            router_entropy: (0..LENGTHS.layers).map(|layer| value(500 + layer)).collect(),
            router_z: (0..LENGTHS.layers).map(|layer| value(520 + layer)).collect(),
            router_grad_norm: (0..LENGTHS.layers).map(|layer| value(540 + layer)).collect(),
            ..UpdateRecord::default()
        };
        run.append(&Event::Update(record)).expect("the disk is sound");
    }
}

/// Bytes of the log and of the array records.
fn bytes(path: &Path) -> [u64; 2] {
    ["metrics.jsonl", "series.bin"].map(|name| std::fs::metadata(path.join(name)).expect("it is there").len())
}

#[test]
fn an_update_of_twelve_layers_with_forty_experts_is_two_and_a_half_kilobytes() {
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("run");
    write(&path, 100);
    let [log, series] = bytes(&path);
    assert_eq!(series, 100 * 2076);
    assert!(log < 100 * 600, "{log}");
}

#[test]
#[ignore = "a minute: 20,000 updates are written, and the times are printed"]
fn twenty_thousand_updates_open_at_once() {
    const UPDATES: u32 = 20_000;
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("run");
    let timed = |what: &str, begun: Instant| println!("{what}: {:.1} ms", 1e3 * begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    write(&path, UPDATES);
    let seconds = begun.elapsed().as_secs_f64();
    let [log, series] = bytes(&path);
    let (per_update, total) = ((log + series) as f64 / f64::from(UPDATES), (log + series) as f64 / 1e6);
    println!("{per_update:.0} bytes an update, {total:.1} MB in all; {:.0} us an update to write", 1e6 * seconds / f64::from(UPDATES));
    assert!(total < 60.0);
    let directory = Directory::read_only(&path).expect("it is there");
    let store: &dyn Store = &directory;
    let begun = Instant::now();
    let reader = Reader::open(store).expect("readable");
    timed("open", begun);
    for (key, points) in [("train_ce", 1000), ("expert_load", 500), ("router_entropy", 500), ("expert_load", 100)] {
        let begun = Instant::now();
        let block = reader.read(Series::find(key).expect("a series"), 0..=u32::MAX, points).expect("readable");
        timed(&format!("{key}, {} of {points} points", block.buckets.len()), begun);
        assert_eq!(block.buckets.iter().map(|bucket| bucket.count).sum::<u32>(), UPDATES);
    }
    let begun = Instant::now();
    let block = reader.read(Series::find("expert_load").expect("a series"), 10_000..=10_999, 200).expect("readable");
    timed(&format!("expert_load of 1,000 updates, {} points", block.buckets.len()), begun);
    let begun = Instant::now();
    let overview = Overview::of(store).expect("readable");
    timed("what report and plot show", begun);
    assert_eq!(overview.curves[0].iter().map(|bucket| bucket.count).sum::<u32>(), UPDATES);
}
