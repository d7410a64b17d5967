//! Trains a config from a custom program: commands in, events out.
//!
//! `cargo run --example train`
//!
//! A [`Host`] opens a run and drives it in slices, so that a window or a server keeps its thread. Its machine-dependent inputs are an
//! [`Environment`]; this one keeps the run in memory and has no files. `moelab_native` has one with folders, and runs a host on a
//! separate thread.

use std::{rc::Rc, time::Instant};

use moelab::{
    data::{
        Corpus,
        prepare::{self, NoFiles, Purpose},
        tokenizer::Tokenizer,
    },
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment, Host},
        memory::Memory,
        store::Store,
    },
    run::{
        Config,
        protocol::{Command, Problem, SessionEvent, Subscription},
        summary::Summary,
    },
};

/// The quickstart's model, for twenty updates.
const CONFIG: &str = include_str!("../configs/quickstart.toml");
const CHANGES: [&str; 3] = ["train.updates=20", "train.evaluation.every=10", "sample.tokens=40"];

/// A machine without files.
struct InMemory {
    started: Instant,
}

impl Environment for InMemory {
    fn device(&mut self) -> DeviceFuture {
        Box::pin(async { Device::open(&AdapterChoice::Best).await.map(Rc::new).map_err(Problem::from) })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        prepare::corpus(config, own, Purpose::Train, &NoFiles).map_err(|error| Problem::new(error.to_string()))
    }

    fn store(&mut self, _run: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(Box::new(Memory::default()))
    }

    fn clock(&self) -> Clock {
        let started = self.started;
        Rc::new(move || started.elapsed().as_secs_f64())
    }

    fn tag(&self) -> String {
        "example".into()
    }
}

/// Trains, printing what happens, and returns the run's summary.
fn train() -> Result<Summary, Problem> {
    let mut host = Host::new(InMemory { started: Instant::now() });
    let series = vec!["train_ce".to_string(), "tokens".to_string()];
    host.send(Command::Subscribe(Subscription { series, ..Subscription::default() }));
    let sets = CHANGES.map(String::from).to_vec();
    host.send(Command::Start { run: "example".into(), config: CONFIG.into(), sets });
    loop {
        let (events, activity) = host.advance(0.05);
        for event in events {
            match event {
                SessionEvent::Opened(opened) => println!("{} updates on {}", opened.updates, opened.adapter),
                SessionEvent::Series(block) => {
                    for (row, update) in block.updates.iter().enumerate() {
                        println!("update {update}: {:.4} nats", block.scalar("train_ce", row).unwrap_or(f64::NAN));
                    }
                }
                SessionEvent::Evaluated { record, .. } => println!("validation {:.4} nats", record.val_ce),
                SessionEvent::Sampled { record, .. } => println!("sample: {:?}", record.text),
                SessionEvent::Warning { text } => println!("warning: {text}"),
                SessionEvent::Ended(summary) => return Ok(*summary),
                SessionEvent::Failed(problem) => return Err(*problem),
                _ => {}
            }
        }
        if activity == Activity::Waiting {
            host.wait();
        }
    }
}

fn main() -> Result<(), Problem> {
    let summary = train()?;
    println!("{} updates, validation {:.4} nats", summary.updates, summary.final_val_ce.unwrap_or(f64::NAN));
    Ok(())
}

#[test]
fn the_loss_falls_below_that_of_a_guess() {
    let summary = train().unwrap();
    assert_eq!(summary.updates, 20);
    assert!(summary.final_val_ce.unwrap() < 256f64.ln() - 1.0, "{summary:?}");
}
