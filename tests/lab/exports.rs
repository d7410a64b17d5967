//! Metrics for other tools: the bytes of event files, the fields of CSV, the schemas of the original trainers.

use moelab::{
    lab::{
        export::{
            csv, originals,
            tensorboard::{self, Scalar},
        },
        measured::{MeasuredRun, arm_of},
        memory::Memory,
        reader::Reader,
        run_folder::{RunFolder, Start},
        store::Store,
    },
    run::{
        records::{EvalRecord, Event, Time, UpdateRecord},
        series::Lengths,
    },
};
use serde_json::{Value, json};

use super::runs::START;

/// Vectors of RFC 3720, appendix B.4, and the check value of the catalogue of parametrised CRC algorithms.
#[test]
fn crc_32c_has_the_published_values() {
    let ascending: Vec<u8> = (0..32).collect();
    let descending: Vec<u8> = (0..32).rev().collect();
    assert_eq!(tensorboard::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(tensorboard::crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(tensorboard::crc32c(&ascending), 0x46dd_794e);
    assert_eq!(tensorboard::crc32c(&descending), 0x113f_db5c);
    assert_eq!(tensorboard::crc32c(b"123456789"), 0xe306_9283);
}

/// TensorBoard 2.21 read these bytes as the two scalars (`tests/fixtures/ecosystem/check.py` reads back a whole run).
#[test]
fn an_event_file_has_the_bytes_that_tensorboard_reads() {
    let scalars = [
        Scalar { tag: "eval/val_ce".into(), step: 300, seconds: 1.5, value: 1.25 },
        Scalar { tag: "train/skipped".into(), step: 1, seconds: 0.0, value: f32::NAN },
    ];
    let file = tensorboard::event_file(&scalars);
    let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
}

/// A run of two layers of four experts with three updates, two evaluations, and one value that is not finite.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for update in 1..=4 {
        events.push(Event::Update(UpdateRecord {
            update,
            micro_steps: u64::from(update) * 4,
            tokens: u64::from(update) * 8192,
            train_ce: if update == 3 { f64::NAN } else { 4.5 - f64::from(update) / 4.0 },
            lr_muon: 0.01 * f64::from(update),
            lr_adamw: 0.001 * f64::from(update),
            expert_load: vec![vec![0.25, 0.25, 0.5, 0.0], vec![0.25; 4]],
            time: Time { seconds: 1.5 * f64::from(update), ..Time::default() },
            ..UpdateRecord::default()
        }));
        if update % 2 == 0 {
            events.push(Event::Eval(EvalRecord {
                update,
                val_ce: if update == 2 { 3.75 } else { 0.1 + 0.2 },
                accuracy: 0.5,
                targets: 16_384,
                time: Time { seconds: 1.5 * f64::from(update) + 0.25, ..Time::default() },
                ..EvalRecord::default()
            }));
        }
    }
    events
}

const CONFIG: &[u8] = b"[model]\nvocabulary = 256\nwidth = 64\n[train]\nupdates = 4\n";

fn store() -> Memory {
    let store = Memory::default();
    let files = &[("config.effective.toml", CONFIG), ("tokenizer.json", b"{}")];
    let start = Start { files, lengths: Lengths { layers: 2, experts: 4 }, ..START };
    let mut folder = RunFolder::create(Box::new(store.clone()), "first", &start).expect("the folder is empty");
    events().iter().for_each(|event| folder.append(event).expect("memory is sound"));
    store
}

fn run(id: &str) -> MeasuredRun {
    MeasuredRun::read(&store(), id, arm_of(id)).expect("the folder can be read")
}

#[test]
fn every_measured_scalar_is_in_the_event_file_once_a_step() {
    let store = store();
    let scalars = tensorboard::scalars(&Reader::open(&store as &dyn Store).unwrap()).unwrap();
    let of = |tag: &str| -> Vec<(u32, f64, f32)> {
        scalars.iter().filter(|scalar| scalar.tag == tag).map(|scalar| (scalar.step, scalar.seconds, scalar.value)).collect()
    };
    assert_eq!(of("eval/val_ce"), [(2, 3.25, 3.75), (4, 6.25, 0.1 + 0.2)]);
    assert_eq!(of("train/train_ce").len(), 4);
    assert!(of("train/train_ce")[2].2.is_nan());
    assert_eq!(of("train/expert_load/layer 0/expert 2"), (1..=4).map(|u| (u, 1.5 * f64::from(u), 0.5)).collect::<Vec<_>>());
    assert!(of("train/balance").is_empty(), "it was not measured");
}

#[test]
fn csv_has_all_digits_and_nothing_that_is_run() {
    let runs = [run("baseline-s1"), run("=1+2,\"x\"-s2")];
    let table = csv::evaluations(&runs);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0], "run,arm,seed,update,tokens,flop,seconds,val_ce,accuracy,targets");
    let tail = |row: &str| row.split(',').rev().take(4).map(str::to_string).collect::<Vec<_>>();
    assert!(rows[1].starts_with("baseline-s1,baseline,42,2,16384,"), "{}", rows[1]);
    assert_eq!(tail(rows[2]), ["16384", "0.5", "0.30000000000000004", "6.25"]);
    assert!(rows[3].starts_with("\"'=1+2,\"\"x\"\"-s2\",\"'=1+2,\"\"x\"\"\",42,"), "{}", rows[3]);
    let table = csv::runs(&runs);
    assert!(table.lines().nth(1).unwrap().starts_with("baseline-s1,baseline,42,unfinished,"), "{table}");
    assert!(table.starts_with("run,arm,seed,status,") && table.contains("model.vocabulary"), "{table}");
    assert_eq!(table.lines().count(), 3);
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_files_of_the_originals_have_their_schemas() {
    let runs = [run("baseline-s1"), run("no_lb-s1")];
    let metrics = originals::metrics(&runs[0]);
    assert_eq!(
        keys(&metrics),
        ["actual_steps", "best_metrics", "experiment_config", "final_metrics", "history", "stopped_early", "total_time_minutes"]
    );
    assert_eq!(
        keys(&metrics["experiment_config"]),
        ["description", "dropout", "load_balancing_weight", "lr_schedule_type", "max_steps", "name", "use_early_stopping"]
    );
    assert_eq!((&metrics["experiment_config"]["name"], &metrics["experiment_config"]["max_steps"]), (&json!("baseline"), &json!(16)));
    let history = &metrics["history"];
    assert_eq!(keys(history), ["elapsed_times", "learning_rates", "steps", "val_accuracies", "val_losses", "val_perplexities"]);
    assert_eq!(history["steps"], json!([7, 15]), "micro-batches, counted from 0");
    assert_eq!(history["val_losses"], json!([3.75, 0.1 + 0.2]));
    assert_eq!(history["learning_rates"], json!([0.02, 0.04]));
    assert_eq!(history["elapsed_times"], json!([3.25 / 60.0, 6.25 / 60.0]));
    assert_eq!(metrics["final_metrics"]["val_perplexity"], json!((0.1_f64 + 0.2).exp()));
    assert_eq!((&metrics["actual_steps"], &metrics["stopped_early"]), (&Value::Null, &json!(false)), "it has not ended");

    let summary = originals::comparison_summary(&runs);
    assert_eq!(keys(&summary), ["best_experiment", "experiments"]);
    assert_eq!(keys(&summary["experiments"][1]), ["best_loss", "final_accuracy", "final_loss", "history", "name"]);
    assert_eq!(summary["best_experiment"], "baseline-s1");

    let ablations = originals::ablation_results(&runs);
    let entry = &ablations["no_lb-s1"];
    assert_eq!(
        keys(entry),
        ["avg_loss", "error", "final_loss", "min_loss", "nan_encountered", "success", "time", "val_loss", "val_perplexity"]
    );
    assert_eq!((&entry["success"], &entry["final_loss"], &entry["min_loss"]), (&json!(false), &json!(3.5), &json!(3.5)));
    assert_eq!(entry["avg_loss"], json!((4.25 + 4.0 + 3.5) / 3.0), "of the finite losses");

    let recommendation = originals::lr_recommendation(&runs);
    assert_eq!(keys(&recommendation), ["all_results", "best_learning_rate", "best_result", "recommendation", "search_time_minutes"]);
    assert_eq!(recommendation["best_learning_rate"], json!(0.01));
    assert_eq!(keys(&recommendation["all_results"]), ["1.00e-02"]);
    assert_eq!(
        keys(&recommendation["best_result"]),
        [
            "learning_rate",
            "total_steps",
            "train_losses",
            "training_time_minutes",
            "val_accuracies",
            "val_accuracy",
            "val_loss",
            "val_losses",
            "val_perplexities",
            "val_perplexity"
        ]
    );
}
