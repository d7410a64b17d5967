//! One planted fault or more for every item of the audit's table, as it was published where it was, and a sound twin of each.
//!
//! Long because all faults are rows of one table.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;

use moelab::config_file::Problems;
use moelab::gpu::{AdapterChoice, Command, Device, KernelInfo, ModuleInfo, Program};
use moelab::lab::audit::study::{
    AppliedRates, Comparison, DataFacts, Decision, Evaluation, Evaluator, ExpertLoad, MemoryFacts, Quantity, Statement, VAL_LOSS,
};
use moelab::lab::audit::{Claim, Finding, Measured, Severity, Study, apply_overrides, overlap, target_shift, unresolved, worst};
use moelab::lab::audit_device;
use moelab::random::Stream;
use moelab::run::Config;

use crate::published::{all, exp8, of, rnn};
use crate::{arm, load, named};

/// A planted fault: the check that must find it, words of its message, the faulty study's findings, and those of a sound one.
struct Fault {
    /// Number of the item.
    item: u32,
    check: &'static str,
    severity: Severity,
    words: &'static str,
    faulty: fn() -> Vec<Finding>,
    sound: fn() -> Vec<Finding>,
}

use Severity::{Note, Refuse, Warn};

fn study(arms: Vec<moelab::lab::audit::Arm>) -> Study {
    Study { arms, ..Study::default() }
}

/// A study of one arm, as a control.
fn one(file: &str, sets: &[&str]) -> Vec<Finding> {
    all(&study(vec![named("arm", load(file, sets), &[])]))
}

/// A control and an arm that differ in these settings.
fn pair(file: &str, sets: &[&str], changes: &[(&str, &str)]) -> Study {
    let more: Vec<String> = changes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let arm_sets: Vec<&str> = sets.iter().copied().chain(more.iter().map(String::as_str)).collect();
    study(vec![named("control", load(file, sets), &[]), named("arm", load(file, &arm_sets), changes)])
}

fn claim(text: &str, says: Statement) -> Claim {
    Claim { text: text.into(), says, of_training_text: false }
}

fn comparison(better: &str, than: &str) -> Comparison {
    Comparison { better: better.into(), than: than.into(), metric: VAL_LOSS.into(), at: None, because: Vec::new() }
}

fn run(arm: &str, metrics: &[(&str, f64)]) -> Measured {
    let metrics: BTreeMap<String, f64> = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Measured { arm: arm.into(), metrics, evaluator: Evaluator::own("validation", Some(1000)), ..Measured::default() }
}

/// Runs of three seeds of two arms, compared.
fn repeated(values: [[f64; 3]; 2]) -> Study {
    let runs = values.iter().zip(["a", "b"]).flat_map(|(values, arm)| values.iter().map(move |value| run(arm, &[(VAL_LOSS, *value)])));
    Study {
        arms: pair("exp8/baseline", &[], &[("optimizer.muon.lr", "0.02")])
            .arms
            .into_iter()
            .zip(["b", "a"])
            .map(|(arm, name)| moelab::lab::audit::Arm { name: name.into(), ..arm })
            .collect(),
        runs: runs.collect(),
        claims: vec![claim("a is better than b", Statement::Better(vec![comparison("a", "b")]))],
        ..Study::default()
    }
}

/// exp8's baseline with curves that fall all the way.
fn smooth_curve() -> Study {
    let at = (1..=100).map(|index| 10 * index);
    let evaluation =
        |at: u64| Evaluation { at, metrics: BTreeMap::from([(VAL_LOSS.to_owned(), 5.0 + 6.0 * (-(at as f64) / 200.0).exp())]) };
    let mut curve = run("baseline", &[(VAL_LOSS, 5.04)]);
    (curve.evaluations, curve.counts_micro_steps) = (at.map(evaluation).collect(), true);
    Study { arms: vec![arm("exp8/baseline", &[])], data: exp8().data, runs: vec![curve], ..Study::default() }
}

/// A run with the learning rates of its schedule, one of which is changed.
fn rates(wrong: Option<u32>) -> Study {
    let config = load("exp8/baseline", &[]);
    let schedule = config.learning_rates();
    let rate = |update: u32| {
        let multiplier = if wrong == Some(update) { 1.0 } else { schedule.at_update(update - 1) };
        let [adamw, muon] = [config.optimizer.adamw.lr, config.optimizer.muon.lr].map(|peak| f64::from((peak * multiplier) as f32));
        AppliedRates { update, adamw, muon }
    };
    let measured = Measured { rates: (1..=250).map(rate).collect(), config: Some(config.clone()), ..run("baseline", &[]) };
    Study { arms: vec![named("baseline", config, &[])], runs: vec![measured], ..Study::default() }
}

/// Windows of random text at every position, split at random; or of two halves of it.
fn windows(leaking: bool) -> DataFacts {
    let bits = |step: u32, i: u32| Stream { seed: 7, step, stream: 0 }.bits(i)[0];
    let tokens: Vec<u32> = (0..4000).map(|i| bits(0, i) % 256).collect();
    let (length, half) = (64, tokens.len() / 2);
    let (training, validation): (Vec<&[u32]>, Vec<&[u32]>) = if leaking {
        let all = tokens.windows(length).enumerate();
        let (validation, training): (Vec<_>, Vec<_>) = all.partition(|(i, _)| bits(1, *i as u32) % 10 == 0);
        (training.into_iter().map(|(_, w)| w).collect(), validation.into_iter().map(|(_, w)| w).collect())
    } else {
        (vec![&tokens[..half]], tokens[half..].chunks_exact(length).collect())
    };
    let validation: Vec<Vec<u32>> = validation.into_iter().map(<[u32]>::to_vec).collect();
    DataFacts { overlap: Some(overlap(training, &validation, length - 1)), ..DataFacts::default() }
}

fn data(facts: DataFacts) -> Vec<Finding> {
    all(&Study { data: Some(facts), ..study(vec![arm("exp3/baseline", &[])]) })
}

/// Facts about a batch whose targets are its tokens moved by `shift`.
fn shifted(shift: usize) -> DataFacts {
    let tokens: Vec<u32> = (0..256).map(|i| Stream { seed: 3, step: 0, stream: 0 }.bits(i)[0] % 97).collect();
    let targets: Vec<u32> = (0..256).map(|i| if i % 32 + shift < 32 { tokens[i + shift] } else { u32::MAX }).collect();
    DataFacts { target_shift: target_shift(&tokens, &targets, 32, u32::MAX), ..DataFacts::default() }
}

/// A run whose loss after 5 of 100 updates is this, on text with a unigram entropy of 3 nats.
fn early_loss(loss: f64) -> Vec<Finding> {
    let evaluations = vec![Evaluation { at: 5, metrics: BTreeMap::from([(VAL_LOSS.to_owned(), loss)]) }];
    let measured = Measured { evaluations, length: Some((100, 100)), baselines: Some((3.0, Some(0.4))), ..run("arm", &[]) };
    all(&Study { runs: vec![measured], ..study(vec![named("arm", load("reasoning/1_baseline", &[]), &[])]) })
}

/// Correlation over these points.
fn correlated(points: &[(f64, f64)], r: f64) -> Vec<Finding> {
    let measured = points.iter().map(|(x, y)| Measured { recorded: BTreeMap::from([("x".to_owned(), *x)]), ..run("a", &[("y", *y)]) });
    let says = Statement::Correlates { setting: "x".into(), metric: "y".into(), r };
    all(&Study { runs: measured.collect(), claims: vec![claim("x drives y", says)], ..Study::default() })
}

fn decision(share: f64) -> Vec<Finding> {
    let decision = Decision { name: "halting step".into(), value: "3".into(), share, settings: "ACT settings".into() };
    all(&Study { runs: vec![Measured { decisions: vec![decision], ..run("R06_no_act", &[]) }], ..Study::default() })
}

fn matches(arm_file: &str) -> Vec<Finding> {
    let says = Statement::Matches { arm: "arm".into(), to: "shared_moe".into(), quantity: Quantity::ActiveFfn };
    let arms = vec![arm("rnn/shared_moe", &[]), named("arm", load(arm_file, &[]), &[])];
    all(&Study { claims: vec![claim("same active compute", says)], ..study(arms) })
}

/// The published comparison of two balance coefficients, with this config for one of them.
fn coefficients(file: &str) -> Vec<Finding> {
    let mut study = rnn();
    study.claims.retain(|claim| claim.text.starts_with("aux 0.03"));
    study.arms.retain(|arm| arm.name != "half_aux003_short");
    study.arms.push(arm(file, &[]));
    all(&study)
}

fn device() -> Rc<Device> {
    Rc::new(pollster::block_on(Device::open(&AdapterChoice::Best)).expect("a Vulkan driver (cargo xtask setup)"))
}

/// Replaces text in the WGSL of the modules of one op.
fn mutate(program: &mut Program, module: &str, from: &str, to: &str) {
    for command in program.micro.iter_mut() {
        if let Command::Dispatch(d) = command
            && d.kernel.module.name.starts_with(module)
        {
            let changed = |text: &str| &*Box::leak(text.replace(from, to).into_boxed_str());
            let module = ModuleInfo { source: changed(d.kernel.module.source), ..*d.kernel.module };
            d.kernel = Box::leak(Box::new(KernelInfo { module: Box::leak(Box::new(module)), ..*d.kernel }));
        }
    }
}

/// A small model of exp8's kind.
const SMALL: [&str; 5] = ["model.depth.layers=1", "model.width=32", "model.attention.heads=2", "model.ffn.width=32", "data.embedded=true"];

/// Findings of the structure probes with a fault in the kernels.
fn structure(tamper: &dyn Fn(&mut Program)) -> Vec<Finding> {
    audit_device::structure(&study(vec![named("arm", load("exp8/baseline", &SMALL), &[])]), &device(), tamper).unwrap()
}

fn sound_structure() -> Vec<Finding> {
    static FOUND: OnceLock<Vec<Finding>> = OnceLock::new();
    FOUND.get_or_init(|| structure(&|_| {})).clone()
}

/// A warm-up in percent is one although the updates that are compared are few.
#[test]
fn a_warm_up_in_percent_acts() {
    let changes = [("schedule.kind", "constant"), ("schedule.warmup", "0")];
    let found = audit_device::liveness(&pair("exp8/baseline", &[], &changes), &device()).unwrap();
    assert!(found.is_empty(), "{found:?}");
}

/// Findings about whether a setting acts in single updates.
fn liveness(sets: &[&str], change: (&str, &str)) -> Vec<Finding> {
    let sets: Vec<&str> = SMALL.iter().chain(sets).copied().collect();
    audit_device::liveness(&pair("exp8/baseline", &sets, &[change]), &device()).unwrap()
}

const FAULTS: &[Fault] = &[
    Fault {
        item: 1,
        check: "inert-knob",
        severity: Refuse,
        words: "model.balance.coefficient in {0.01, 0.001, 0.0}: it is 0.01 in its run. These 3 runs would be replicas",
        faulty: || of("exp8"),
        sound: || all(&pair("exp8/baseline", &[], &[("model.balance.coefficient", "0.001")])),
    },
    Fault {
        item: 1,
        check: "inert-knob",
        severity: Refuse,
        words: "optimizer.muon.lr in {0.01, 0.02}: Muon updates no parameter",
        faulty: || all(&pair("reasoning/1_baseline", &[], &[("optimizer.muon.lr", "0.02")])),
        sound: || all(&pair("exp8/baseline", &[], &[("optimizer.muon.lr", "0.02")])),
    },
    Fault {
        item: 1,
        check: "inert-knob",
        severity: Refuse,
        words: "are identical, bit for bit",
        // The balance loss of one expert is constant.
        faulty: || liveness(&["model.router.experts=1", "model.router.top_k=1"], ("model.balance.coefficient", "0.5")),
        sound: || liveness(&[], ("model.balance.coefficient", "0.5")),
    },
    Fault {
        item: 2,
        check: "noise",
        severity: Refuse,
        words: "no_lb vs baseline: Δ = -0.0167, replica sd 0.0073, n = 1 vs 1. Ranking withheld. 3 replicas per arm needed",
        faulty: || of("exp8"),
        sound: || all(&repeated([[5.0, 5.01, 4.99], [5.5, 5.51, 5.49]])),
    },
    Fault {
        item: 2,
        check: "noise",
        severity: Warn,
        words: "UNKNOWN NOISE",
        faulty: || of("rnn"),
        sound: || all(&repeated([[5.0, 5.01, 4.99], [5.5, 5.51, 5.49]])),
    },
    Fault {
        item: 3,
        check: "epoch-boundary",
        severity: Warn,
        words: "starts at 848 = epoch 8 × 106 (rank 1 of 2725 periods and phases). This run makes 9.43 passes over 1,290,752 tokens",
        faulty: || of("exp8"),
        sound: || all(&smooth_curve()),
    },
    Fault {
        item: 3,
        check: "partial-batch",
        severity: Warn,
        words: "has 1 of 24 sequences but a full 1/4 weight of an update (24× per token)",
        faulty: || of("exp8"),
        sound: || all(&Study { data: exp8().data, ..study(vec![arm("exp8/baseline", &[])]) }),
    },
    Fault {
        item: 4,
        check: "schedule-unit",
        severity: Refuse,
        words: "cosine horizon 1000 is in micro-batches but the schedule advances per update (250 in this run): final multiplier 0.905, \
                declared floor 0.1; warm-up 20 % of the run, declared 5 %",
        faulty: || one("exp8/as_run/baseline", &[]),
        sound: || one("exp8/baseline", &[]),
    },
    Fault {
        item: 4,
        check: "similar-schedules",
        severity: Refuse,
        words: "differ by at most 0.021 of the peak",
        faulty: || all(&study(vec![arm("exp8/as_run/baseline", &[]), arm("exp8/as_run/slower_min_lr", &[("schedule.min_ratio", "0.3")])])),
        sound: || all(&study(vec![arm("exp8/baseline", &[]), arm("exp8/slower_min_lr", &[("schedule.min_ratio", "0.3")])])),
    },
    Fault {
        item: 4,
        check: "applied-rates",
        severity: Refuse,
        words: "in update 200 AdamW used 0.001000, the schedule says",
        faulty: || all(&rates(Some(200))),
        sound: || all(&rates(None)),
    },
    Fault {
        item: 5,
        check: "stale-result",
        severity: Refuse,
        words: "short_run: declared 600 micro-batches, result was produced with 1000",
        faulty: || of("exp8"),
        sound: || all(&rates(None)),
    },
    Fault {
        item: 5,
        check: "stale-result",
        severity: Refuse,
        words: "baseline: declared schedule.min_ratio 0.1, result was produced with 0.2",
        faulty: || {
            let mut study = rates(None);
            study.runs[0].config = Some(load("exp8/baseline", &["schedule.min_ratio=0.2"]));
            study.runs[0].rates.clear();
            all(&study)
        },
        sound: || all(&rates(None)),
    },
    Fault {
        item: 6,
        check: "fragile-statistic",
        severity: Refuse,
        words: "corr(dropout, degradation) = -0.53, n = 9, only 1 point has dropout other than 0.1; undefined without one point. Not reported",
        faulty: || of("exp8"),
        sound: || correlated(&[(1.0, 2.0), (2.0, 3.9), (3.0, 6.1), (4.0, 8.0), (5.0, 10.1), (6.0, 11.9)], 1.0),
    },
    Fault {
        item: 7,
        check: "active-count",
        severity: Warn,
        words: "36,592,512 of 79,059,840 (46.28 %) are active at top-2; the figure 28.4 % counts no expert",
        faulty: || of("exp8"),
        sound: || {
            let says = Statement::ActiveShare { arm: "baseline".into(), share: 0.4628 };
            all(&Study { claims: vec![claim("46.28 % active", says)], ..study(vec![arm("exp8/baseline", &[])]) })
        },
    },
    Fault {
        item: 8,
        check: "identical-arms",
        severity: Refuse,
        words: "8_few_experts has the same plan as 1_baseline",
        faulty: || all(&study(vec![arm("reasoning/1_baseline", &[]), arm("reasoning/as_run/8_few_experts", &[])])),
        sound: || all(&study(vec![arm("reasoning/1_baseline", &[]), arm("reasoning/8_few_experts", &[("model.router.experts", "3")])])),
    },
    Fault {
        item: 8,
        check: "dense",
        severity: Warn,
        words: "routes every token to all 4 experts",
        faulty: || one("reasoning/9_more_topk", &[]),
        sound: || one("reasoning/1_baseline", &[]),
    },
    Fault {
        item: 8,
        check: "stale-derived-field",
        severity: Warn,
        words: "7_small_model: model.ffn.width = 2048 = 8·model.width; the base uses 4·model.width (1024)",
        faulty: || all(&study(vec![arm("reasoning/1_baseline", &[]), arm("reasoning/as_run/7_small_model", &[])])),
        sound: || all(&study(vec![arm("reasoning/1_baseline", &[]), arm("reasoning/7_small_model", &[])])),
    },
    Fault {
        item: 8,
        check: "undeclared-change",
        severity: Warn,
        words: "declares model.router.experts, but also differs in optimizer.clip_norm 1.0 → 0.5",
        faulty: || {
            let mut study = pair("exp8/baseline", &[], &[("model.router.experts", "4"), ("optimizer.clip_norm", "0.5")]);
            study.arms[1].changes.remove("optimizer.clip_norm");
            all(&study)
        },
        sound: || all(&pair("exp8/baseline", &[], &[("model.router.experts", "4"), ("optimizer.clip_norm", "0.5")])),
    },
    Fault {
        item: 9,
        check: "quantised-metric",
        severity: Refuse,
        words: "lies on a grid of 1/320 (bf16 CE, 10 batches; quantum 0.03125). Ties: 10_low_grad_clip and 15_low_dropout (0.00625 apart), \
                1_baseline and 11_high_grad_clip (0 apart), 8_few_experts and 1_baseline (0.00625 apart)",
        faulty: || of("reasoning"),
        sound: || all(&repeated([[5.012_345, 5.013_999, 4.991_721], [5.498_231, 5.511_013, 5.487_117]])),
    },
    Fault {
        item: 10,
        check: "dead-parameter",
        severity: Refuse,
        words: "recursion.halting (1,026 values)",
        faulty: || one("reasoning/as_run/2_recursive", &[]),
        sound: || one("reasoning/2_recursive", &[]),
    },
    Fault {
        item: 10,
        check: "constant-loss-term",
        severity: Refuse,
        words: "the balance loss of one expert is 1 times its coefficient 0.01 and has no gradient",
        faulty: || one("exp8/baseline", &["model.router.experts=1", "model.router.top_k=1"]),
        sound: || one("exp8/baseline", &[]),
    },
    Fault {
        item: 10,
        check: "degenerate-decision",
        severity: Refuse,
        words: "halting step = 3 in 100 % of steps; ACT settings cannot matter",
        faulty: || decision(1.0),
        sound: || decision(0.7),
    },
    Fault {
        item: 10,
        check: "degenerate-decision",
        severity: Refuse,
        words: "early_stopping: early stopping was never reached; its settings cannot matter",
        faulty: || of("exp8"),
        sound: || decision(0.7),
    },
    Fault {
        item: 11,
        check: "state-leak",
        severity: Refuse,
        words: "logits of batch 2 depend on batch 1 (states are kept for 3 batches). The carry is not tied to its data.",
        faulty: || one("reasoning/as_run/2_recursive", &[]),
        sound: || one("reasoning/2_recursive", &[]),
    },
    Fault {
        item: 11,
        check: "dropped-term",
        severity: Refuse,
        words: "model.balance.coefficient = 0.01 but the coefficient does not affect the gradient of",
        faulty: || structure(&|p| mutate(p, "balance", "d_probabilities[i] =", "d_probabilities[i] = 0.0 *")),
        sound: sound_structure,
    },
    Fault {
        item: 11,
        check: "sequence-leak",
        severity: Refuse,
        words: "the second sequence changes the first's loss",
        faulty: || {
            structure(&|p| {
                mutate(
                    p,
                    "attention",
                    "load_rows(kv, place.k + c, keys)",
                    "load_rows(kv, place.k + c, keys % params.tokens + params.tokens)",
                );
                mutate(p, "attention", "key_index(place.batch, head,", "key_index(1u, head,");
            })
        },
        sound: sound_structure,
    },
    Fault {
        item: 12,
        check: "split-leak",
        severity: Refuse,
        words: "% of validation windows share 63 of 64 tokens with a training window",
        faulty: || data(windows(true)),
        sound: || data(windows(false)),
    },
    Fault {
        item: 13,
        check: "not-causal",
        severity: Refuse,
        words: "changes the logits of token",
        faulty: || {
            structure(&|p| {
                mutate(p, "attention", "+ NEXT <= vec4<u32>(query", "+ NEXT <= vec4<u32>(1u + query");
                mutate(p, "attention", "t) <= rows)", "t) <= 1u + rows)");
            })
        },
        sound: sound_structure,
    },
    Fault {
        item: 14,
        check: "component-mismatch",
        severity: Refuse,
        words: "declared glm4_moe(E=4, K=2) has 25,622,464 parameters, the result has 20,456,704",
        faulty: || of("exp3"),
        sound: || {
            let says = Statement::Model { arm: "mla_glm".into(), declared: "glm4_moe".into(), total: 25_622_464 };
            all(&Study { claims: vec![claim("MLA and GLM-4.5's experts", says)], ..study(vec![arm("exp3/mla_glm", &[])]) })
        },
    },
    Fault {
        item: 14,
        check: "component-mismatch",
        severity: Refuse,
        words: "51,383,296 parameters per layer are in no declared component",
        faulty: || {
            let says = Statement::Model { arm: "moe".into(), declared: "a dense SwiGLU of width 10,944".into(), total: 232_894_976 };
            all(&Study { claims: vec![claim("GLM4 MoE", says)], ..study(vec![arm("exp1/as_run/moe", &[])]) })
        },
        sound: || one("exp1/as_run/moe", &[]),
    },
    Fault {
        item: 15,
        check: "inconsistent",
        severity: Warn,
        words: "ppl 1.016 ≠ exp(0.0313) = 1.0318",
        faulty: || of("exp3"),
        sound: || all(&Study { runs: vec![run("a", &[(VAL_LOSS, 0.03134), ("val_perplexity", 1.03184)])], ..Study::default() }),
    },
    Fault {
        item: 15,
        check: "tie",
        severity: Warn,
        words: "lr_3e-3 and lr_1e-3: loss and accuracy disagree",
        faulty: || of("exp3"),
        sound: || all(&repeated([[5.0, 5.01, 4.99], [5.5, 5.51, 5.49]])),
    },
    Fault {
        item: 16,
        check: "no-evidence",
        severity: Refuse,
        words: "experts_4_top_2 and experts_2_top_2: 0 of 2 runs succeeded (empty() received an invalid combination of arguments)",
        faulty: || of("exp3"),
        sound: || all(&repeated([[5.0, 5.01, 4.99], [5.5, 5.51, 5.49]])),
    },
    Fault {
        item: 17,
        check: "eval-contains-aux",
        severity: Refuse,
        words: "ce + aux in half_aux003_short, ce + aux in half_aux005; the other terms may account for 0.3: not comparable",
        faulty: || {
            let mut study = rnn();
            study.runs.iter_mut().filter(|run| run.arm.starts_with("half")).for_each(|run| run.evaluator.other_terms_at_most = Some(0.3));
            all(&study)
        },
        sound: || all(&repeated([[5.0, 5.01, 4.99], [5.5, 5.51, 5.49]])),
    },
    Fault {
        item: 18,
        check: "confounded",
        severity: Refuse,
        words: "half_aux003_short vs half_aux005 @500: also differ train.updates 2000/20000, warm-up 60/600 updates, share of the run 0.250/0.025, \
                LR now 2.64e-4/2.50e-4, ΣLR ×2.17, λ(500) 0.014/0.05. Gap 0.240 not attributed",
        faulty: || coefficients("rnn/as_run/half_aux003_short"),
        sound: || coefficients("rnn/half_aux003_short"),
    },
    Fault {
        item: 19,
        check: "unread-field",
        severity: Warn,
        words: "optimizer.muon.lr = 0.02 is set but not used (Muon updates no parameter)",
        faulty: || one("reasoning/1_baseline", &["optimizer.muon.lr=0.02"]),
        sound: || one("exp8/baseline", &["optimizer.muon.lr=0.02"]),
    },
    Fault {
        item: 19,
        check: "unread-field",
        severity: Warn,
        words: "adamw_lr = 0.003 is set but not used (effective 0.001)",
        faulty: || {
            let recorded = BTreeMap::from([("requested adamw_lr".to_owned(), 0.003), ("effective adamw_lr".to_owned(), 0.001)]);
            all(&Study { runs: vec![Measured { recorded, ..run("baseline", &[]) }], ..Study::default() })
        },
        sound: || all(&rates(None)),
    },
    Fault {
        item: 20,
        check: "no-token-mixing",
        severity: Refuse,
        words: "do not depend on token",
        faulty: || {
            structure(&|p| {
                mutate(p, "attention", "+ NEXT <= vec4<u32>(query", "+ NEXT == vec4<u32>(query");
                mutate(p, "attention", "t) <= rows)", "t) == rows)");
            })
        },
        sound: sound_structure,
    },
    Fault {
        item: 20,
        check: "copy-task",
        severity: Refuse,
        words: "targets equal inputs (shift 0)",
        faulty: || data(shifted(0)),
        sound: || data(shifted(1)),
    },
    Fault {
        item: 20,
        check: "copy-task",
        severity: Refuse,
        words: "validation loss 0.5000 after 5 of 100 updates is far below the unigram entropy, 3.0000",
        faulty: || early_loss(0.5),
        sound: || early_loss(2.9),
    },
    Fault {
        item: 22,
        check: "eval-mismatch",
        severity: Refuse,
        words: "2.6623 (13,299 targets of wikitext-103 validation) and 4.357 (245,520 targets",
        faulty: || of("rnn"),
        sound: || all(&repeated([[5.0, 5.01, 4.99], [5.5, 5.51, 5.49]])),
    },
    Fault {
        item: 23,
        check: "not-matched",
        severity: Warn,
        words: "arm has 0.30× the active FFN reads per token of shared_moe. A match would have K·F ≈ 13,653",
        faulty: || matches("rnn/half_aux005"),
        sound: || matches("rnn/half_match_active"),
    },
    Fault {
        item: 24,
        check: "warm-up",
        severity: Refuse,
        words: "warm-up = length = 100 updates: no decay phase",
        faulty: || one("reasoning/1_baseline", &["schedule.warmup=100"]),
        sound: || one("reasoning/1_baseline", &[]),
    },
    Fault {
        item: 24,
        check: "warm-up",
        severity: Note,
        words: "50 of 100 updates are warm-up, 49 are below half of the peak; mean LR is 0.50 of the peak",
        faulty: || all(&study(vec![arm("reasoning/1_baseline", &[]), arm("reasoning/5_long_warmup", &[("schedule.warmup", "\"50%\"")])])),
        sound: || one("reasoning/1_baseline", &[]),
    },
];

/// Checks beyond the table's items.
const MORE: &[Fault] = &[
    Fault {
        item: 21,
        check: "starved-expert",
        severity: Warn,
        words: "layer 3 expert 5 has 2.0 % of its fair share since update 40",
        faulty: || {
            let starved = vec![ExpertLoad { layer: 3, expert: 5, of_fair: 0.02, since: 40 }];
            all(&Study { runs: vec![Measured { starved, ..run("a", &[]) }], ..Study::default() })
        },
        sound: || all(&rates(None)),
    },
    Fault {
        item: 0,
        check: "memory",
        severity: Warn,
        words: "it needs at least 2048.0 MiB, the adapter has 1024.0 MiB",
        faulty: || memory(1 << 30),
        sound: || memory(1 << 32),
    },
    Fault {
        item: 0,
        check: "epochs",
        severity: Note,
        words: "9.52 passes over 1,290,752 tokens; an epoch ends every 105 micro-batches",
        faulty: || all(&Study { data: exp8().data, ..study(vec![arm("exp8/baseline", &[])]) }),
        sound: || one("exp8/baseline", &[]),
    },
];

fn memory(available: u64) -> Vec<Finding> {
    let facts = MemoryFacts { arm: "arm".into(), needed: 1 << 31, largest: 1 << 20, most_binding: 1 << 27, available: Some(available) };
    all(&Study { memory: vec![facts], ..study(vec![named("arm", load("exp8/baseline", &[]), &[])]) })
}

fn is_found(fault: &Fault, findings: &[Finding]) -> bool {
    let is_it = |finding: &&Finding| finding.check == fault.check && finding.severity == fault.severity;
    findings.iter().filter(is_it).any(|finding| finding.message.contains(fault.words))
}

/// Items of the list that software can see: all but underflow in half precision: moelab's moments are f32, and gradients from f16 operands are scaled.
const ITEMS: u32 = 24;
const NOT_SEEN: u32 = 21;

#[test]
fn every_planted_fault_is_found_and_its_sound_twin_is_not() {
    let mut missed: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for fault in FAULTS.iter().chain(MORE) {
        let (faulty, sound) = ((fault.faulty)(), (fault.sound)());
        let of_check = |findings: &[Finding]| {
            findings.iter().filter(|finding| finding.check == fault.check).map(|finding| finding.to_string()).collect::<Vec<_>>()
        };
        if !is_found(fault, &faulty) {
            missed.entry(fault.item).or_default().push(format!(
                "{}: not found: {}\n  but {:#?}",
                fault.check,
                fault.words,
                of_check(&faulty)
            ));
        }
        if sound.iter().any(|finding| finding.check == fault.check && finding.severity >= fault.severity) {
            missed.entry(fault.item).or_default().push(format!("{}: found in its sound twin: {:#?}", fault.check, of_check(&sound)));
        }
    }
    let items: Vec<u32> = (1..=ITEMS).filter(|item| *item != NOT_SEEN).collect();
    let flagged = items.iter().filter(|item| FAULTS.iter().any(|fault| fault.item == **item) && !missed.contains_key(item)).count();
    println!("{flagged} of {} items flagged, by {} planted faults", items.len(), FAULTS.len());
    assert!(missed.is_empty(), "{missed:#?}");
    assert_eq!(flagged, items.len());
}

#[test]
fn every_check_has_a_planted_fault() {
    let planted: Vec<&str> = FAULTS.iter().chain(MORE).map(|fault| fault.check).collect();
    for check in moelab::lab::audit::checks() {
        assert!(planted.contains(&check.id), "{} has no planted fault", check.id);
    }
}

/// Unknown keys, and keys that would have no effect, do not get past the config.
#[test]
fn unread_keys_are_refused_before_any_audit() {
    let refused = |text: &str| -> String {
        let text = text.to_owned();
        let problems: Problems = moelab::run::config::load(&move |_| Ok(text.clone()), "arm.toml", &[]).unwrap_err();
        problems.to_string()
    };
    assert!(refused("checkpoint_every = 3000\n").contains("checkpoint_every"));
    assert!(refused("[model]\nffn.kind = \"dense\"\nrouter.top_k = 1\n").contains("model.router.top_k"));
}

#[test]
fn a_reason_overrides_a_refusal_and_stands_beside_it() {
    let mut findings = one("exp8/as_run/baseline", &[]);
    assert!(unresolved(&findings));
    let reasons = BTreeMap::from([("schedule-unit".to_owned(), "as published".to_owned())]);
    apply_overrides(&mut findings, &reasons).unwrap();
    assert!(!unresolved(&findings) && worst(&findings) != Some(Refuse));
    let overridden = findings.iter().find(|finding| finding.check == "schedule-unit").unwrap();
    assert_eq!(overridden.overridden.as_deref(), Some("as published"));
    let line = serde_json::to_string(overridden).unwrap();
    assert_eq!(serde_json::from_str::<Finding>(&line).unwrap(), *overridden);
    let refused = |target: &str, reason: &str| {
        apply_overrides(&mut Vec::new(), &BTreeMap::from([(target.to_owned(), reason.to_owned())])).unwrap_err().to_string()
    };
    assert!(refused("schedule", "why not").contains("no check is called `schedule`"));
    assert!(refused("schedule-unit", " ").contains("needs a reason"));
}

#[test]
fn a_comparison_is_attributed_to_keys_and_whole_tables() {
    let because = |key: &str| Comparison { because: vec![key.into()], ..comparison("a", "b") };
    assert!(because("schedule").is_because("schedule.kind") && because("schedule.kind").is_because("schedule.kind"));
    assert!(!because("train.update").is_because("train.updates") && !because("schedule.kind").is_because("schedule"));
}

#[test]
fn the_data_of_a_run_are_measured() {
    let config: Config = load("quickstart", &[]);
    let (config, corpus) =
        moelab::data::prepare::corpus(config, None, moelab::data::prepare::Purpose::Train, &moelab::data::prepare::NoFiles).unwrap();
    let facts = audit_device::data_facts(&corpus, &config);
    println!("{facts:?}");
    assert_eq!(facts.target_shift, Some(1));
    let overlap = facts.overlap.unwrap();
    assert!(overlap.windows > 0 && overlap.shared * 100 <= overlap.windows, "{overlap:?}");
}
