//! A run is read by series, range of updates and points wanted, whatever its length.

use super::folders::folder_with;
use super::runs::{START, mix};
use moelab::lab::memory::Memory;
use moelab::lab::reader::{Bucket, Reader};
use moelab::lab::run_folder::{RunFolder, Start};
use moelab::lab::store::Store;
use moelab::run::digest::sha256_hex;
use moelab::run::records::{EvalRecord, Event, Incident, IncidentRecord, Time, UpdateRecord};
use moelab::run::routing::LoadMeasure;
use moelab::run::series::{Lengths, Series};

const UPDATES: u32 = 3000;
const START_2X3: Start = Start { lengths: Lengths { layers: 2, experts: 3 }, ..START };

fn loss(update: u32) -> f64 {
    match update {
        1234 => f64::NAN,
        2345 => 50.0,
        _ => 2.0 + (mix(u64::from(update)) >> 11) as f64 * 2f64.powi(-53),
    }
}

fn load(update: u32, layer: u64, expert: u64) -> f32 {
    (mix(u64::from(update) << 8 | layer << 4 | expert) >> 40) as f32 * 2f32.powi(-24)
}

/// Every second update has a line, every hundredth an evaluation.
fn run() -> Vec<Event> {
    let mut events = Vec::new();
    for update in (1..=UPDATES).filter(|update| update % 2 == 0 || *update == 1) {
        let expert_load = (0..2).map(|layer| (0..3).map(|expert| load(update, layer, expert)).collect()).collect();
        let router_entropy = vec![load(update, 9, 0), load(update, 9, 1)];
        events.push(Event::Update(UpdateRecord { update, train_ce: loss(update), expert_load, router_entropy, ..UpdateRecord::default() }));
        if update == 1234 {
            let (incident, detail, time) = (Incident::NonFinite, "a \"quoted\" text".to_string(), Time::default());
            events.push(Event::Incident(IncidentRecord { update, incident, detail, since: None, time }));
        }
        if update % 100 == 0 {
            events.push(Event::Eval(EvalRecord { update, val_ce: 1.0 / f64::from(update), ..EvalRecord::default() }));
        }
    }
    events
}

fn series(key: &str) -> &'static Series {
    Series::find(key).unwrap_or_else(|| panic!("no series {key}"))
}

/// Holds buckets against all values between `from` and `to`, one element of them.
fn assert_buckets(buckets: &[Bucket], values: impl Fn(u32) -> f64, element: usize, (from, to): (u32, u32), what: &str) {
    let updates = (from.max(1)..=to.min(UPDATES)).filter(|update| update % 2 == 0 || *update == 1);
    assert_eq!(buckets.iter().map(|bucket| bucket.count as usize).sum::<usize>(), updates.clone().count(), "{what}");
    assert!(buckets.windows(2).all(|pair| pair[0].updates.end() < pair[1].updates.start()), "{what}");
    for bucket in buckets {
        let all: Vec<f64> = updates.clone().filter(|update| bucket.updates.contains(update)).map(&values).collect();
        let finite = || all.iter().copied().filter(|value| value.is_finite());
        assert_eq!(bucket.count as usize, all.len(), "{what}");
        if finite().count() == 0 {
            assert!(bucket.min[element].is_nan() && bucket.max[element].is_nan() && bucket.mean[element].is_nan(), "{what}");
            continue;
        }
        let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(value), max.max(value)));
        assert_eq!((bucket.min[element], bucket.max[element]), (min, max), "{what}: {:?}", bucket.updates);
        let mean = finite().sum::<f64>() / finite().count() as f64;
        assert!((bucket.mean[element] - mean).abs() < 1e-12, "{what}: {:?}", bucket.updates);
    }
}

#[test]
fn any_range_in_any_number_of_points_is_what_was_written() {
    // With array records, and as earlier releases wrote them.
    any_range_of(&folder_with(&START_2X3, &run()));
    any_range_of(&folder_with(&Start { lengths: Lengths::default(), ..START }, &run()));
}

fn any_range_of(folder: &RunFolder) {
    for (from, to) in [(0, u32::MAX), (1, UPDATES), (1201, 1300), (2, 2), (2999, 3005)] {
        // One after the other from one reader, so that some come from its pyramid.
        let reader = folder.reader().expect("memory is sound");
        for points in [4000, 700, 64, 7, 1] {
            let read = |key| reader.read(series(key), from..=to, points).expect("memory is sound");
            let what = format!("{points} points of {from} to {to}");
            let block = read("train_ce");
            assert!(block.buckets.len() <= points && block.shape.is_empty(), "{what}");
            let wanted = points.min((to.min(UPDATES) - from.max(2)) as usize / 2 + 1);
            assert!(block.buckets.len() >= wanted.div_ceil(2).min(wanted), "{what}: {}", block.buckets.len());
            assert_buckets(&block.buckets, loss, 0, (from, to), &what);
            assert_eq!(block.buckets.iter().map(|bucket| bucket.not_finite).sum::<u64>(), u64::from((from..=to).contains(&1234)), "{what}");
            let block = read("expert_load");
            assert_eq!(block.shape, [2, 3], "{what}");
            assert_buckets(&block.buckets, |update| f64::from(load(update, 1, 2)), 5, (from, to), &what);
            assert_buckets(&read("router_entropy").buckets, |update| f64::from(load(update, 9, 1)), 1, (from, to), &what);
            // Not stored: its smallest and largest are those of the updates, not of their mean load.
            let block = read("load_imbalance");
            assert_eq!(block.shape, [2], "{what}");
            let imbalance = |update| LoadMeasure::Imbalance.of(&[0, 1, 2].map(|expert| f64::from(load(update, 1, expert))));
            assert_buckets(&block.buckets, imbalance, 1, (from, to), &what);
        }
    }
    let reader = folder.reader().expect("memory is sound");
    let evals = reader.read(series("eval.val_ce"), 100..=450, 10).expect("memory is sound");
    let found: Vec<(u32, f64)> = evals.buckets.iter().map(|bucket| (*bucket.updates.start(), bucket.min[0])).collect();
    assert_eq!(found, [100, 200, 300, 400].map(|update| (update, 1.0 / f64::from(update))));
    assert!(reader.read(series("balance"), 0..=u32::MAX, 10).expect("memory is sound").buckets.is_empty(), "it was not measured");
    assert_eq!(reader.updates(), Some((1, UPDATES)));
}

/// A value that is not finite has a bucket of its own, without numbers, where each update has one.
#[test]
fn a_value_that_is_not_finite_is_a_gap() {
    let folder = folder_with(&START_2X3, &run());
    let block = folder.reader().and_then(|reader| reader.read(series("train_ce"), 1232..=1236, 10)).expect("memory is sound");
    let [_, gap, _] = &block.buckets[..] else { panic!("{block:?}") };
    assert_eq!((gap.updates.clone(), gap.count, gap.not_finite), (1234..=1234, 1, 1));
    assert!(gap.min[0].is_nan() && gap.max[0].is_nan() && gap.mean[0].is_nan());
}

#[test]
fn events_come_in_the_order_of_the_log() {
    let events = run();
    let folder = folder_with(&START_2X3, &events);
    let reader = folder.reader().expect("memory is sound");
    let found: Vec<Event> = reader.events().skip(1).collect::<Result<_, _>>().expect("memory is sound");
    assert_eq!(found.len(), events.len());
    // A value that is not finite equals nothing, so lines are compared.
    let without_arrays = |event: &Event| match event.clone() {
        Event::Update(record) => Event::Update(UpdateRecord { expert_load: Vec::new(), router_entropy: Vec::new(), ..record }).to_line(),
        event => event.to_line(),
    };
    assert!(found.iter().zip(&events).all(|(found, wanted)| found.to_line() == without_arrays(wanted)));
    assert_eq!(reader.header().expect("memory is sound").expect("it is there").config, START.config);
}

/// The line of Python in the README of a run says how its array records lie: they are read by it alone.
#[test]
fn the_readme_says_how_to_read_the_arrays() {
    let folder = folder_with(&START_2X3, &run()[..10]);
    let text = |name| String::from_utf8(folder.read(name).expect("memory is sound").expect("it is there")).expect("UTF-8");
    let readme = text("README.md");
    let line = readme.lines().find(|line| line.contains("numpy.fromfile")).expect("it has the line");
    // Of every field its name, its type of four bytes, and its shape.
    let (_, fields) = line.split_once("dtype=[").expect("it gives a type");
    let mut fields: Vec<(String, usize)> = fields
        .trim_end_matches("])")
        .split("), (\"")
        .map(|field| {
            let parts: Vec<&str> = field.trim_matches(['(', ')']).splitn(3, ", ").collect();
            assert!(parts[1] == "\"<u4\"" || parts[1] == "\"<f4\"", "{line}");
            let shape = parts.get(2).map_or("", |shape| shape.trim_matches(['(', ')']));
            (parts[0].trim_matches('"').to_string(), shape.split(',').filter_map(|length| length.trim().parse::<usize>().ok()).product())
        })
        .collect();
    assert_eq!(
        fields.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["check", "update", "kind", "expert_load", "router_entropy", "router_z", "router_grad_norm"]
    );
    let bytes = folder.read("series.bin").expect("memory is sound").expect("it is there");
    let record = 4 * fields.iter().map(|(_, count)| count).sum::<usize>();
    assert_eq!((fields[3].1, record, bytes.len() % record, bytes.len() / record), (6, 60, 0, 10));
    let mut at = 0;
    for (_, count) in &mut fields {
        at += std::mem::replace(count, at);
    }
    for (record, event) in bytes.chunks(record).zip(&run()[..10]) {
        let word = |name: &str, index: usize| {
            let (_, start) = fields.iter().find(|(field, _)| field == name).expect("a field");
            <[u8; 4]>::try_from(&record[4 * (start + index)..][..4]).expect("four bytes")
        };
        let Event::Update(update) = event else { panic!("{event:?}") };
        assert_eq!((u32::from_le_bytes(word("update", 0)), u32::from_le_bytes(word("kind", 0))), (update.update, 0));
        let load: Vec<f32> = (0..6).map(|index| f32::from_le_bytes(word("expert_load", index))).collect();
        assert_eq!(load, update.expert_load.concat());
        assert_eq!(f32::from_le_bytes(word("router_entropy", 1)), update.router_entropy[1]);
        // The check, as the line of the log repeats it, is the beginning of the hash of the rest.
        let check = format!("{:08x}", u32::from_le_bytes(word("check", 0)));
        assert!(sha256_hex(&record[4..]).starts_with(&check) && text("metrics.jsonl").contains(&format!("\"arrays\":\"{check}\"")));
    }
    assert!(readme.contains("| `expert_load` | 2 x 3 | share of assignments |"), "{readme}");
}

/// Damaged array records are left out, told, and never taken for others.
#[test]
fn a_damaged_array_record_is_left_out() {
    let folder = folder_with(&START_2X3, &run()[..10]);
    let whole = folder.reader().and_then(|reader| reader.read(series("expert_load"), 0..=u32::MAX, 100)).expect("memory is sound");
    assert_eq!(whole.buckets.len(), 10);
    let bytes = folder.read("series.bin").expect("memory is sound").expect("it is there");
    for bit in (0..8 * bytes.len()).step_by(41) {
        let mut memory = Memory::default();
        for name in ["metrics.jsonl", "series.json"] {
            let content = folder.read(name).expect("memory is sound").expect("it is there");
            memory.write(name, &content).expect("memory is sound");
        }
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        memory.write("series.bin", &damaged).expect("memory is sound");
        let block =
            Reader::open(&memory).and_then(|reader| reader.read(series("expert_load"), 0..=u32::MAX, 100)).expect("memory is sound");
        let mut wanted = whole.buckets.clone();
        wanted.remove(bit / 8 / 60);
        assert_eq!(block.buckets, wanted, "bit {bit}");
    }
}
