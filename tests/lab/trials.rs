//! What passes between a sampler and its trials.

use moelab::lab::{
    evaluation::EvalPoint,
    trials::{Loss, State, Told, name, settings, tell},
};
use moelab::run::{
    Config,
    config::load,
    summary::{ExitReason, Summary},
};

#[test]
fn parameters_become_settings() {
    let sets =
        settings(r#"{"optimizer.muon.lr": 0.003, "model.router.top_k": 1, "data.embedded": true, "schedule.kind": "linear"}"#).unwrap();
    assert_eq!(sets, ["data.embedded=true", "model.router.top_k=1", "optimizer.muon.lr=0.003", "schedule.kind=\"linear\""]);
    let text = Config::default().to_effective_toml().replace("vocabulary = 0", "vocabulary = 256");
    let config = load(&|_| Ok(text.clone()), "base", &sets[1..]).unwrap();
    assert_eq!((config.optimizer.muon.lr, config.model.router.top_k), (0.003, 1));
    // The same parameters, in any order, are the same trial; others are another.
    let again = load(&|_| Ok(text.clone()), "base", &[sets[3].clone(), sets[2].clone(), sets[1].clone()]).unwrap();
    assert_eq!(name(&config), name(&again));
    assert_ne!(name(&config), name(&load(&|_| Ok(text.clone()), "base", &sets[2..]).unwrap()));
    for (wrong, why) in [("[1]", "not an object"), ("{", "not JSON"), (r#"{"a": [1]}"#, "`a` has the value [1]")] {
        assert!(settings(wrong).unwrap_err().to_string().contains(why), "{wrong}");
    }
}

/// A summary with this end and result.
fn summary(exit: ExitReason, final_val_ce: Option<f64>) -> Summary {
    let text = r#"{"schema": 1, "name": "x", "exit": "completed", "final_val_ce": null, "best_val_ce": null, "best_update": null, "updates": 8,
        "skipped_updates": 0, "rollbacks": 0, "tokens": 1, "adapter": "", "driver": "", "config_sha256": "", "data_sha256": "",
        "tokenizer_sha256": "", "version": ""}"#;
    Summary { exit, final_val_ce, ..serde_json::from_str(text).unwrap() }
}

#[test]
fn the_end_of_a_run_is_a_state_of_the_trial() {
    let eval = |update: u32, val_ce: f64| EvalPoint { update, val_ce, targets: 1, ..EvalPoint::default() };
    let evals = [eval(4, 5.0), eval(8, f64::NAN)];
    let of = |exit: ExitReason, value: Option<f64>| tell("t", true, Some(&summary(exit, value)), &evals);
    let complete = of(ExitReason::Completed, Some(4.5));
    assert_eq!((complete.state, complete.value), (State::Complete, Some(4.5)));
    let states = [ExitReason::EarlyStopped, ExitReason::StoppedByGate, ExitReason::Interrupted, ExitReason::Diverged, ExitReason::Failed];
    let states = states.map(|exit| of(exit, Some(4.5)).state);
    assert_eq!(states, [State::Complete, State::Pruned, State::Running, State::Fail, State::Fail]);
    assert_eq!(of(ExitReason::Completed, Some(f64::NAN)).state, State::Fail, "a sampler takes numbers only");
    assert_eq!((tell("t", true, None, &[]).state, tell("t", false, None, &[]).state), (State::Running, State::Waiting));
    let line = serde_json::to_string(&complete).unwrap();
    assert_eq!(line, r#"{"trial":"t","state":"COMPLETE","value":4.5,"intermediate_values":[[4,5.0],[8,"nan"]]}"#);
    let back: Told = serde_json::from_str(&line).unwrap();
    assert_eq!(back.intermediate_values[0], (4, Loss(5.0)));
}
