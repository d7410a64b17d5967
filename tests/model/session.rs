//! A whole run in a folder in memory: what its log, its checkpoints, its samples and its summary say of each other.

use std::rc::Rc;

use moelab::{
    data::{Corpus, dataset::Dataset, tokenizer::Tokenizer},
    gpu::{Device, PlanOptions},
    lab::{
        memory::Memory,
        run_folder::RunFolder,
        session::{Happened, Opening, Session},
        store::Store,
    },
    run::{
        Config,
        config::load,
        records::{EvalRecord, Event, SampleRecord},
        summary::{ExitReason, Summary},
    },
    train::{
        checkpoint::weights_sha256,
        generate::{Draw, Generator},
    },
};

use crate::harness::{on_shared_device, trainer};

const RUN: &str = r#"
seed = 9
[model]
width = 16
context = 16
depth.layers = 1
attention.heads = 2
ffn.width = 16
vocabulary = 256
router = { experts = 2, top_k = 1, noise = 0.1 }
init.std = 0.1
[data]
sequence_length = 16
batch = 2
[train]
updates = 7
micro_batches = 2
evaluation = { every = 2, windows = 4 }
checkpoint = { every = 3, keep = 1 }
[optimizer]
adamw.lr = 0.05
muon.lr = 0.05
[schedule]
kind = "constant"
warmup = 0
[sample]
prompts = ["ab", "ab"]
tokens = 12
temperature = 1.0
top_p = 0.9
"#;

fn config() -> Config {
    load(&|_| Ok(RUN.to_string()), "run.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn corpus(config: &Config) -> Corpus {
    let data = Dataset::from_language(Tokenizer::bytes(), &config.data, config.seed, config.train.evaluation.windows).unwrap();
    Corpus::Dataset(Box::new(data))
}

/// Drives a run to its end.
fn run(config: &Config, device: &Rc<Device>, store: &Memory) -> Summary {
    let opening = Opening {
        config: config.clone(),
        device: device.clone(),
        corpus: corpus(config),
        store: Box::new(store.clone()),
        tag: "test".into(),
        clock: Box::new(|| 0.0),
        rasterize: None,
        name: "run".into(),
    };
    let mut session = Session::start(opening).unwrap_or_else(|error| panic!("{error}"));
    loop {
        let happened = session.advance().unwrap_or_else(|error| panic!("{error}"));
        if happened.is_empty() {
            session.wait();
        }
        if let Some(Happened::Finished(summary)) = happened.into_iter().last() {
            return *summary;
        }
    }
}

#[test]
fn log_checkpoints_samples_and_summary_agree() {
    on_shared_device(|device| {
        let (config, store) = (config(), Memory::default());
        let summary = run(&config, device, &store);
        let folder = RunFolder::open(Box::new(store.clone()), "reader").unwrap();
        let events: Vec<Event> = folder.reader().unwrap().events().map(Result::unwrap).collect();

        let evals: Vec<&EvalRecord> = events.iter().filter_map(|e| if let Event::Eval(record) = e { Some(record) } else { None }).collect();
        assert_eq!(evals.iter().map(|e| e.update).collect::<Vec<_>>(), [2, 4, 6, 7]);
        let best = evals.iter().min_by(|a, b| a.val_ce.total_cmp(&b.val_ce)).unwrap();
        assert_eq!((summary.best_update, summary.best_val_ce), (Some(best.update), Some(best.val_ce)));
        assert_eq!((summary.final_val_ce, summary.exit), (Some(evals[3].val_ce), ExitReason::Completed));
        // 2 micro-batches of 2 sequences of 16 tokens.
        assert_eq!((summary.updates, summary.tokens), (7, 7 * 64));

        // One newest and the best are kept.
        let mut wanted =
            vec!["best".to_string(), "latest".to_string(), format!("update-{:08}", best.update), "update-00000007".to_string()];
        wanted.dedup();
        assert_eq!(store.list("checkpoints").unwrap(), wanted);
        let mut trainer = trainer(&config, device, corpus(&config), PlanOptions::default());
        let newest = folder.load_newest(&trainer.expected()).unwrap().unwrap().snapshot;
        let kept = folder.load_best(&trainer.expected()).unwrap().unwrap().snapshot;
        assert_eq!((newest.state.update, kept.state.update), (7, best.update));
        assert_eq!(summary.weights_sha256.clone(), weights_sha256(&newest.tensors).into());

        // The same prompt twice, each text with random numbers of its own, drawn from the last weights.
        let samples: Vec<&SampleRecord> =
            events.iter().filter_map(|e| if let Event::Sample(record) = e { Some(record) } else { None }).collect();
        trainer.restore(&newest);
        let (device, memory) = trainer.device_and_memory();
        let tokenizer = Tokenizer::bytes();
        let mut generator = Generator::new(&config, device, memory).unwrap().for_text(&tokenizer, &config);
        for (number, sample) in samples.iter().enumerate() {
            // A text starts as a document does, after the end of another.
            let mut text = generator.start(vec![0, b'a'.into(), b'b'.into()], 12, Draw { temperature: 1.0, top_p: 0.9 }, number as u32);
            generator.finish(device, memory, &mut text).unwrap();
            assert_eq!((sample.update, &sample.text), (7, &tokenizer.decode(text.continuation())), "text {number}");
        }
        assert!(samples.len() == 2 && samples[0].text != samples[1].text);
    });
}
