//! The report of a study: the answer and what it stands on, what it never does, and where its numbers come from.

use moelab::{
    lab::{
        audit::{Finding, Severity},
        evaluation::EvalPoint,
        figure,
        gates::{Decision, DecisionRecord, Number, Verdict},
        measured::MeasuredRun,
        study_report::{Judged, Missing, Study, StudyArm, report},
        verdict::{self, Arm, Comparison, Spec},
    },
    run::{
        Config, config,
        gates::GateRule,
        records::{Incident, IncidentRecord, Time},
        suite::Claim,
        summary::{EpochSize, Summary},
    },
};

use super::charts::block;

fn config(changes: &[&str]) -> Config {
    let read = |_: &str| Ok("[model]\nvocabulary = 256\nwidth = 64\n[train]\nupdates = 40\n".to_string());
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    config::load(&read, "base.toml", &changes).expect("the config is sound")
}

fn summary(ce: f64) -> Summary {
    let epoch = Some(EpochSize { windows: 240, tokens: 122_880 });
    Summary { name: String::new(), final_val_ce: Some(ce), best_val_ce: Some(ce - 0.0101), epoch, ..super::report::summary() }
}

fn run(arm: &str, seed: u64, config: &Config, ce: f64) -> MeasuredRun {
    let eval = |update: u32| EvalPoint {
        update,
        val_ce: if update == 40 { ce } else { ce + f64::from(40 - update) / 16.0 },
        accuracy: 0.5,
        targets: 16_384,
        ..EvalPoint::default()
    };
    let schedule = config.learning_rates();
    let rate = |update: u32| (update, [config.optimizer.muon.lr * schedule.at_update(update - 1), 0.0]);
    MeasuredRun {
        id: format!("{arm}-s{seed}"),
        arm: arm.into(),
        seed,
        config: config.clone(),
        summary: Some(summary(ce)),
        evals: [10, 20, 30, 40].map(eval).to_vec(),
        rates: (1..=40).map(rate).collect(),
        train_ce: Vec::new(),
        load: (seed == 1).then(|| block(2, 4, 4)),
        incidents: Vec::new(),
        incident_count: 0,
    }
}

/// The final losses by arm and seed.
const LOSSES: [(&str, &[f64]); 3] = [
    ("baseline", &[1.7001, 1.7102, 1.6903, 1.7004]),
    ("no_lb", &[1.6501, 1.6598, 1.6407, 1.6499]),
    ("<script>alert(1)</script>|*x*", &[1.7061, 1.7002, 1.7103, 1.6904]),
];

fn arm(place: usize) -> Arm {
    let (name, losses) = LOSSES[place];
    Arm::new(name, (1..).zip(losses.iter().map(|loss| Some(*loss))))
}

fn study() -> Study {
    let configs = [config(&[]), config(&["model.balance.coefficient=0.0"]), config(&["schedule.kind=constant"])];
    let mut runs = Vec::new();
    for ((name, losses), config) in LOSSES.iter().zip(&configs) {
        runs.extend((1..).zip(losses.iter()).map(|(seed, loss)| run(name, seed, config, *loss)));
    }
    let comparison = Comparison { spec: Spec::default(), control: arm(0), arms: vec![arm(1), arm(2)], key: None };
    let decision = Decision {
        verdict: Verdict::Promote,
        rule: GateRule::StopPromote,
        update: 20,
        reason: "0.0503 better than baseline at the same update".into(),
        numbers: vec![Number { name: "gain".into(), value: 0.0503, threshold: Some(0.05) }],
    };
    let finding = |severity, message: &str| Finding {
        check: "epoch-boundary".into(),
        severity,
        message: message.into(),
        subject: "no_lb".into(),
        overridden: None,
    };
    let claim = Claim { text: "No balance loss is the <winner>".into(), better: vec!["no_lb".into()], ..Claim::default() };
    Study {
        claims: [("winner".to_string(), claim)].into(),
        name: "balance".into(),
        question: "Does a lower balance weight <help>?".into(),
        arms: LOSSES.iter().zip(configs).map(|((name, _), config)| StudyArm { name: (*name).into(), config }).collect(),
        runs,
        missing: vec![Missing { run: "no_lb-s5".into(), arm: "no_lb".into(), reason: "it has not started".into() }],
        judged: vec![Judged { place: "at 40 updates".into(), figure: "intervals".into(), judgement: verdict::judge(&comparison) }],
        stages: vec![("screen".into(), 20)],
        decisions: vec![DecisionRecord { run: "no_lb".into(), stage: "screen".into(), decision, time: 0.0 }],
        findings: Some(vec![finding(Severity::Warn, "the rise at 848 is an epoch boundary"), finding(Severity::Note, "410 epochs")]),
        commands: vec!["moelab suite run balance.toml".into()],
    }
}

/// The report without the text of the effective config, which changes with every new key.
fn without_config(text: &str) -> String {
    let config = study().arms[0].config.to_effective_toml();
    let forms = [config.trim_end().to_string(), figure::escape(config.trim_end()).replace('\u{fffd}', "\n")];
    let form = forms.iter().find(|form| text.contains(form.as_str())).expect("the whole config is in it");
    text.replace(form.as_str(), "(the effective config)")
}

#[test]
fn the_markdown_reads_as_ever() {
    insta::assert_snapshot!(without_config(&report(&study()).to_markdown("")));
}

#[test]
fn the_html_reads_as_ever() {
    // The figures have snapshots of their own.
    let html = report(&study()).to_html();
    let mut text = String::new();
    let mut rest = html.as_str();
    while let Some((before, after)) = rest.split_once("<svg ") {
        text += before;
        text += "<svg/>";
        rest = after.split_once("</svg>").expect("a drawing ends").1;
    }
    insta::assert_snapshot!(without_config(&(text + rest)));
}

#[test]
fn names_from_outside_are_only_text() {
    let mut hostile = study();
    hostile.question = "<img src=x onerror=alert(1)> [a](b) `c`".into();
    hostile.decisions[0].decision.reason = "</td><script>alert(2)</script> | a".into();
    hostile.commands = vec!["```\n</code><script>alert(3)</script>".into()];
    let (html, markdown) = (report(&hostile).to_html(), report(&hostile).to_markdown(""));
    for bad in ["<script", "<img", "href=", "http-equiv=\"refresh\"", "@import", "url("] {
        assert!(!html.contains(bad), "{bad}");
    }
    assert!(html.contains("default-src 'none'"), "nothing is loaded from elsewhere");
    let (text, commands) = markdown.split_once("## How to repeat it").expect("it is the last section");
    assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
    assert!(!markdown.contains("](loads-<"), "the names of files are safe");
    assert!(commands.contains("\n````sh\n"), "the fence is longer than that of the command");
    let tables = markdown.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let mut widths: Vec<usize> = tables.map(cells).collect();
    widths.dedup();
    assert!(widths.len() < 20, "every row of a table has the same number of cells: {widths:?}");
}

#[test]
fn an_unresolved_refusal_suppresses_the_answer() {
    let mut refused = study();
    let finding = |overridden: Option<&str>| Finding {
        check: "inert-knob".into(),
        severity: Severity::Refuse,
        message: "the knob is inert".into(),
        subject: "baseline".into(),
        overridden: overridden.map(String::from),
    };
    refused.findings = Some(vec![finding(None)]);
    let document = report(&refused);
    let text = document.to_markdown("");
    assert!(text.contains("No answer: a refusal of the audit must be resolved first."), "{text}");
    for word in ["clear: better", "clearly", "not clear", "equivalent", "lower by", "| verdict |"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert!(!document.to_html().contains("clear: better"));
    assert!(document.figures().iter().all(|(name, _)| !name.starts_with("intervals")));
    assert!(text.contains("1.7003"), "what was measured is still there: {text}");
    refused.findings = Some(vec![finding(Some("replicas on purpose"))]);
    let text = report(&refused).to_markdown("");
    assert!(text.contains("clear: better") && text.contains("This answer stands over checks"), "{text}");
    assert!(text.contains("Overridden: replicas on purpose"), "{text}");
}

/// A refusal about an arm withholds the verdict on it, and no other.
#[test]
fn a_refusal_about_an_arm_withholds_its_verdict_alone() {
    let refuse = |subject: &str| Finding {
        check: "inert-knob".into(),
        severity: Severity::Refuse,
        message: "the knob is inert".into(),
        subject: subject.into(),
        overridden: None,
    };
    let arms = ["no_lb", LOSSES[2].0];
    for subject in [arms[0], "no_lb against baseline"] {
        let refused = Study { findings: Some(vec![refuse(subject)]), ..study() };
        let document = report(&refused);
        let text = document.to_markdown("").replace('\\', "");
        assert!(text.contains("No verdict on no_lb: a refusal of the audit must be resolved first."), "{text}");
        assert!(!text.contains("no_lb is clearly better") && !text.contains("clear: better"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `no_lb`")).collect();
        assert!(rows[0].ends_with("withheld |"), "{rows:?}");
        assert!(text.contains("is not clear") || text.contains("equivalent"), "the other arm has its verdict: {text}");
        let (_, figure) = document.figures().into_iter().find(|(name, _)| *name == "intervals").expect("the other arm has its interval");
        assert!(!figure.to_svg().contains("no_lb"));
    }
    let all = Study { findings: Some(arms.map(refuse).to_vec()), ..study() };
    assert!(report(&all).to_markdown("").contains("No answer: 2 refusals of the audit must be resolved first."));
}

/// The ends of epochs are on the curves if the runs have recorded how large one is.
#[test]
fn curves_show_the_ends_of_epochs() {
    let mut endless = study();
    endless.runs.iter_mut().filter_map(|run| run.summary.as_mut()).for_each(|summary| summary.epoch = None);
    let drawn = |study: &Study| {
        let document = report(study);
        let figure = document.figures().into_iter().find(|(name, _)| *name == "curves").map(|(_, figure)| figure.to_svg());
        figure.expect("it has curves")
    };
    let ends = study().runs[0].epoch_ends();
    assert!(!ends.is_empty() && ends.iter().all(|end| *end <= 40.0), "{ends:?}");
    assert_ne!(drawn(&study()), drawn(&endless));
}

#[test]
fn of_many_incidents_the_first_are_listed_and_the_others_counted() {
    let mut study = study();
    let incident =
        |update| IncidentRecord { update, incident: Incident::ExpertDead, detail: "of 8".into(), since: None, time: Time::default() };
    (study.runs[0].incidents, study.runs[0].incident_count) = ((1..=5).map(incident).collect(), 400);
    let markdown = report(&study).to_markdown("");
    assert_eq!(markdown.matches("after update").count(), 3, "{markdown}");
    assert!(markdown.contains("`baseline-s1` and 397 more, in its log."), "{markdown}");
}

#[test]
fn a_study_that_was_not_audited_says_so() {
    let found = |findings| report(&Study { findings, ..study() }).to_markdown("");
    assert!(found(None).contains("This study was not audited") && !found(None).contains("The audit found nothing"));
    assert!(found(Some(Vec::new())).contains("The audit found nothing"));
}

/// The decimals of the report that are not those of the config, and how the inputs give them.
#[test]
fn every_number_comes_from_the_input() {
    let study = study();
    let mut known: Vec<f64> = vec![4.1589, 3.3456, 2.0311, 1.2954, 0.0503, 0.05];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let sd = |values: &[f64]| (values.iter().map(|v| (v - mean(values)).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt();
    for (_, losses) in LOSSES {
        known.extend([mean(losses), sd(losses), mean(losses) + 0.625, mean(losses) + 1.25, mean(losses) + 1.875]);
        let differences: Vec<f64> = losses.iter().zip(LOSSES[0].1).map(|(arm, control)| arm - control).collect();
        known.push(mean(&differences));
        known.extend(&differences);
        for loss in losses {
            known.extend([*loss, loss - 0.0101, loss + 0.625, loss + 1.25, loss + 1.875]);
        }
    }
    known.extend(study.judged[0].judgement.arms.iter().filter_map(|arm| arm.interval).flatten());
    let markdown = report(&study).to_markdown("");
    let (body, _) = markdown.split_once("Effective config of").expect("the config is in it");
    let mut checked = 0;
    for token in body.split(|c: char| !c.is_ascii_digit() && c != '.') {
        let Some((_, decimals)) = token.split_once('.').filter(|(_, decimals)| decimals.len() == 4) else { continue };
        let value: f64 = token.parse().expect("a number");
        let unit = 0.5 * 10f64.powi(-(decimals.len() as i32)) + 1e-12;
        assert!(known.iter().any(|known| (known.abs() - value).abs() <= unit), "{token} is not of the input");
        checked += 1;
    }
    assert!(checked > 80, "{checked}");
}
