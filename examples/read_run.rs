//! Reads a run folder: a summary, curves by range and number of points, and the load of the experts.
//!
//! `cargo run --example read_run runs/quickstart-1`
//!
//! This needs no GPU, and only the requested part of a log is in memory.

use std::{env, error::Error, path::Path};

use moelab::{
    lab::reader::Reader,
    run::{records::Event, series::Series},
};
use moelab_native::store::Directory;

/// A summary of the run in `folder`, one entry per line.
fn describe(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let store = Directory::read_only(folder)?;
    let reader = Reader::open(&store)?;
    let (first, last) = reader.updates().ok_or("no update has a line yet")?;
    let mut lines = vec![format!("updates {first} to {last}")];
    for name in ["train_ce", "eval.val_ce", "router_entropy", "expert_load"] {
        let series = Series::find(name).ok_or("no such series")?;
        let block = reader.read(series, first..=last, 4)?;
        lines.push(format!("{name} {:?} {}: {}", block.shape, series.unit, series.doc()));
        for bucket in block.buckets {
            let (least, greatest) = (bucket.min.first().unwrap_or(&f64::NAN), bucket.max.first().unwrap_or(&f64::NAN));
            lines.push(format!("  updates {:?}: {least:.4} to {greatest:.4}", bucket.updates));
        }
    }
    for event in reader.events() {
        if let Event::Incident(incident) = event? {
            lines.push(format!("update {}: {}", incident.update, incident.detail));
        }
    }
    Ok(lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("expected a run folder")?;
    describe(Path::new(&folder))?.iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn a_run_of_the_first_release_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs/daf866d/run");
    let lines = describe(&folder).unwrap();
    assert!(lines[0].starts_with("updates 1 to"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("train_ce")), "{lines:?}");
}
