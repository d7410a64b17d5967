//! No alarm on sound studies: the intended configs of the published studies, up to their plan.

use std::collections::BTreeMap;

use moelab::config_file;
use moelab::lab::audit::study::DataFacts;
use moelab::lab::audit::{Arm, Severity, Study, apply_overrides, before, unresolved, worst};
use moelab::run::identity;

use crate::{arm, named};

/// Arms from files; each declares what it changes.
fn declared(study: &str, files: &[&str]) -> Vec<Arm> {
    let control = arm(&format!("{study}/{}", files[0]), &[]);
    let with_changes = |file: &&str| {
        let Arm { name, config, .. } = arm(&format!("{study}/{file}"), &[]);
        let changes = identity::changes(&config_file::settings(&control.config), &config_file::settings(&config), 0);
        let changes: BTreeMap<String, String> = changes.into_iter().map(|change| (change.key, change.to)).collect();
        Arm { changes, ..named(&name, config, &[]) }
    };
    files.iter().map(with_changes).collect()
}

#[test]
fn no_alarm_on_clean_studies() {
    let exp8 = [
        "baseline",
        "early_stopping",
        "constant_lr",
        "lower_lb_weight",
        "no_lb",
        "higher_dropout",
        "linear_decay",
        "slower_min_lr",
        "short_run",
    ];
    let reasoning = [
        "1_baseline",
        "2_recursive",
        "3_low_lr",
        "4_high_lr",
        "5_long_warmup",
        "6_no_warmup",
        "7_small_model",
        "8_few_experts",
        "9_more_topk",
        "10_low_grad_clip",
        "11_high_grad_clip",
        "12_recursive_vlow_lr",
        "13_vlow_lr",
        "14_no_dropout",
        "15_low_dropout",
    ];
    let companion = [
        "R01_baseline",
        "R02_minimal",
        "R03_deep",
        "R04_more_H",
        "R05_more_L",
        "R06_no_act",
        "R09_extended_halt",
        "R10_low_lr",
        "R11_high_lr",
        "R12_med_lr",
        "R13_optimized",
        "R14_asym_H",
        "R15_asym_L",
    ];
    let rnn = ["shared_moe", "auxsched_v1", "half_aux005", "half_aux003_short", "half_match_active"];
    let short = ["mid_short", "mid_top3_short", "mid_top3_match_active", "mid_top4"];
    let rates = ["mla_glm", "lr_1e-4", "lr_3e-4", "lr_3e-3", "mla_glm_nope"];
    let data = DataFacts { training_windows: 2521, training_tokens: 1_290_752, target_shift: Some(1), ..DataFacts::default() };
    let mut alarms = 0;
    // Study, arms, overrides.
    type Clean<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);
    let studies: [Clean; 6] = [
        ("exp8", &exp8, &[]),
        // 9_more_topk routes to all experts on purpose.
        ("reasoning", &reasoning, &[("dense:9_more_topk", "a dense mixture, as labelled")]),
        ("reasoning", &companion, &[]),
        ("rnn", &rnn, &[]),
        ("rnn", &short, &[]),
        ("exp3", &rates, &[]),
    ];
    for (study, files, overrides) in studies {
        let arms = declared(study, files);
        let audited = Study { arms, data: (study == "exp8").then_some(data), ..Study::default() };
        let mut findings = before(&audited);
        let overrides = overrides.iter().map(|(check, reason)| ((*check).to_owned(), (*reason).to_owned())).collect();
        apply_overrides(&mut findings, &overrides).unwrap();
        for finding in &findings {
            println!("{study}: {finding}");
        }
        alarms += findings.iter().filter(|finding| finding.severity > Severity::Note && finding.overridden.is_none()).count();
        assert!(!unresolved(&findings), "{study}");
        assert!(worst(&findings) <= Some(Severity::Note), "{study}");
    }
    println!("{alarms} alarms on {} clean studies", studies.len());
    assert_eq!(alarms, 0);
}
