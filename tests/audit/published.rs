//! The four published studies: what is said of them, and what stands.

use std::collections::BTreeMap;
use std::sync::Mutex;

use moelab::lab::audit::study::{DataFacts, Evaluator, Overlap};
use moelab::lab::audit::{Arm, Claim, Finding, Measured, Study, after, before, import, standing};

use crate::{arm, fixture};

fn claims(study: &str) -> Vec<Claim> {
    let mut all: BTreeMap<String, Vec<Claim>> = serde_json::from_str(&fixture("claims.json")).unwrap();
    all.remove(study).unwrap()
}

/// exp8 as run, with what the experiments were said to change.
pub fn exp8() -> Study {
    const DROPOUT: [(&str, &str); 5] = [
        ("model.dropout.embedding", "0.2"),
        ("model.dropout.attention", "0.2"),
        ("model.dropout.residual", "0.2"),
        ("model.dropout.ffn", "0.2"),
        ("model.dropout.head", "0.2"),
    ];
    let arms: Vec<Arm> = vec![
        arm("exp8/as_run/baseline", &[]),
        arm("exp8/as_run/early_stopping", &[("train.early_stopping.patience", "30")]),
        arm("exp8/as_run/constant_lr", &[("schedule.kind", "\"constant\""), ("schedule.warmup", "0")]),
        arm("exp8/as_run/lower_lb_weight", &[("model.balance.coefficient", "0.001")]),
        arm("exp8/as_run/no_lb", &[("model.balance.coefficient", "0.0")]),
        arm("exp8/as_run/higher_dropout", &DROPOUT),
        arm("exp8/as_run/linear_decay", &[("schedule.kind", "\"linear\"")]),
        arm("exp8/as_run/slower_min_lr", &[("schedule.min_ratio", "0.3")]),
        arm("exp8/as_run/short_run", &[("train.updates", "150")]),
    ];
    let mut runs = import::read("exp8", &fixture("exp8.json")).unwrap();
    runs.iter_mut().for_each(|run| run.evaluator = Evaluator::own("cosmopedia validation", Some(142_569)));
    let data = DataFacts { training_windows: 2521, training_tokens: 1_290_752, ..DataFacts::default() };
    Study { arms, data: Some(data), runs, claims: claims("exp8"), ..Study::default() }
}

/// The reasoning study as run.
pub fn reasoning() -> Study {
    let main = [
        "1_baseline",
        "as_run/2_recursive",
        "3_low_lr",
        "4_high_lr",
        "5_long_warmup",
        "6_no_warmup",
        "as_run/7_small_model",
        "as_run/8_few_experts",
        "9_more_topk",
        "10_low_grad_clip",
        "11_high_grad_clip",
        "as_run/12_recursive_vlow_lr",
        "13_vlow_lr",
        "14_no_dropout",
        "15_low_dropout",
        "best_baseline_1000",
        "as_run/best_recursive_1000",
    ];
    let companion = [
        "01_baseline",
        "02_minimal",
        "03_deep",
        "04_more_H",
        "05_more_L",
        "06_no_act",
        "07_high_explore",
        "08_low_explore",
        "09_extended_halt",
        "10_low_lr",
        "11_high_lr",
        "12_med_lr",
        "13_optimized",
        "14_asym_H",
        "15_asym_L",
    ];
    let files = main.iter().map(|name| format!("reasoning/{name}"));
    let files = files.chain(companion.iter().map(|name| format!("reasoning/as_run/R{name}")));
    let arms: Vec<Arm> = files.map(|file| arm(&file, &[])).collect();
    let runs = ["reasoning.json", "reasoning_companion_1.json", "reasoning_companion_2.json", "reasoning_1000.json"];
    let mut runs: Vec<Measured> = runs.iter().flat_map(|file| import::read(file, &fixture(file)).unwrap()).collect();
    for run in &mut runs {
        let batches = if run.arm.ends_with("_1000") { 73 } else { 10 };
        run.evaluator = Evaluator { dtype: "bf16".into(), batches, ..Evaluator::own("cosmopedia validation", Some(81_760)) };
    }
    Study { arms, runs, claims: claims("reasoning"), ..Study::default() }
}

/// The recurrent-depth study as run.
pub fn rnn() -> Study {
    let files = ["baseline", "shared_moe", "half_aux005", "as_run/half_aux003_short", "mid_short", "mid_top3_short", "mid_top4"];
    let arms = files.iter().map(|file| arm(&format!("rnn/{file}"), &[])).collect();
    let runs = import::read("rnn", &fixture("rnn.json")).unwrap();
    Study { arms, runs, claims: claims("rnn"), ..Study::default() }
}

/// exp3 as run, with the perplexities of its write-up beside those of its files.
pub fn exp3() -> Study {
    let rates = [
        ("lr_1e-3", "0.001", "0.0001"),
        ("lr_1e-4", "0.0001", "0.00001"),
        ("lr_3e-4", "0.0003", "0.00003"),
        ("lr_3e-3", "0.003", "0.0003"),
    ];
    let mut arms: Vec<Arm> = rates
        .iter()
        .map(|(name, muon, adamw)| arm(&format!("exp3/as_run/{name}"), &[("optimizer.muon.lr", muon), ("optimizer.adamw.lr", adamw)]))
        .collect();
    arms.push(arm("exp3/as_run/extended", &[]));
    arms.push(arm("exp3/mla_glm", &[]));
    let mut runs: Vec<Measured> =
        ["exp3.json", "exp3_experts.json"].iter().flat_map(|file| import::read(file, &fixture(file)).unwrap()).collect();
    for (name, of, perplexity) in [("lr_1e-3 in the write-up", "lr_1e-3", 1.024), ("lr_3e-3 in the write-up", "lr_3e-3", 1.016)] {
        let mut run = runs.iter().find(|run| run.arm == of).unwrap().clone();
        run.arm = name.into();
        run.metrics.insert("val_perplexity".into(), perplexity);
        runs.push(run);
    }
    // Windows of 128 tokens at every position, split at random.
    let overlap = Overlap { window: 128, run: 127, shared: 4_937, windows: 4_987 };
    let data = DataFacts { overlap: Some(overlap), ..DataFacts::default() };
    Study { arms, data: Some(data), runs, claims: claims("exp3"), ..Study::default() }
}

/// Every finding of a study.
pub fn all(study: &Study) -> Vec<Finding> {
    let mut findings = before(study);
    for finding in after(study) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// Every finding of a published study, computed once.
pub fn of(name: &'static str) -> Vec<Finding> {
    static FOUND: Mutex<BTreeMap<&'static str, Vec<Finding>>> = Mutex::new(BTreeMap::new());
    let study = || match name {
        "exp8" => exp8(),
        "reasoning" => reasoning(),
        "rnn" => rnn(),
        _ => exp3(),
    };
    FOUND.lock().unwrap().entry(name).or_insert_with(|| all(&study())).clone()
}

#[test]
fn what_stands_of_the_published_conclusions_is_what_the_numbers_carry() {
    for (name, study, wanted) in [
        ("exp8", exp8(), vec!["dropout 0.2 worse", "linear decay slightly worse", "constant LR has the lowest best loss"]),
        (
            "reasoning",
            reasoning(),
            vec![
                "lr 6e-4 < 3e-4 < 1e-4 < 5e-5 in loss",
                "no warm-up and no dropout better",
                "the smaller model worse but faster",
                "recursion as implemented worse and slower",
                "recursion as implemented worse also at 1000 steps",
                // Beyond noise and quantum as well, though smaller than three quanta.
                "Lower gradient clipping (0.5) works slightly better",
                "Low dropout (0.05) is better",
                "A long warm-up is better than the default",
            ],
        ),
        (
            "rnn",
            rnn(),
            vec![
                "the dense baseline leads at matched steps by more than the aux accounting can explain",
                "larger K helps the mid-size model",
            ],
        ),
        ("exp3", exp3(), vec!["1e-4 and 3e-4 are too slow to memorise in 1,000 steps"]),
    ] {
        println!("\n# {name}");
        let findings = of(name);
        let judged = standing(&study, &findings);
        for (claim, verdict) in &judged {
            match verdict {
                Ok(remarks) => println!("stands: {}\n    {}", claim.text, remarks.join("\n    ")),
                Err(refusals) => println!("does not stand: {}\n    {}", claim.text, refusals.join("\n    ")),
            }
        }
        let stands: Vec<&str> = judged.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(claim, _)| claim.text.as_str()).collect();
        assert_eq!(stands, wanted, "{name}");
    }
}
