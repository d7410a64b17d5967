//! The tables of a report.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    charts,
    document::{Block, Span, Table, Text, code, plain, strong},
    study::Study,
};
use crate::{
    config_file,
    lab::{
        audit::{Finding, Severity},
        chart::{signed, thousands},
        export::name_of,
        measured::MeasuredRun,
        statistics::Moments,
        verdict::claim_standing,
    },
    run::{
        identity,
        suite::{Claim, Relation},
    },
};

/// Incidents of a run that are listed.
const INCIDENTS: usize = 3;

/// A column of numbers.
pub(super) fn number(name: &str) -> (String, bool) {
    (name.to_string(), true)
}

/// A column of words.
pub(super) fn words(name: &str) -> (String, bool) {
    (name.to_string(), false)
}

/// The arms with their means and intervals, and the chart of intervals.
pub(super) fn arms(study: &Study) -> Vec<Block> {
    let mut blocks = vec![Block::Table(if study.verdicts().is_empty() { measured(study) } else { compared(study) })];
    blocks.extend(charts::intervals(study));
    if !study.missing.is_empty() {
        let reason = |missing: &super::Missing| vec![Span::Code(missing.run.clone()), Span::Plain(format!(": {}", missing.reason))];
        blocks.push(Block::Notice(plain(format!("Planned runs without a result: {}.", study.missing.len()))));
        blocks.push(Block::List(study.missing.iter().map(reason).collect()));
    }
    blocks
}

fn mean_and_sd(values: impl IntoIterator<Item = f64>) -> [Text; 2] {
    let moments = Moments::of(values);
    [
        plain(if moments.n == 0 { String::new() } else { format!("{:.4}", moments.mean) }),
        plain(moments.sd().map_or("unknown".to_string(), |sd| format!("{sd:.4}"))),
    ]
}

/// The number of runs of an arm with a value, and of all if some have none.
fn run_count(study: &Study, arm: &str) -> Text {
    let ended = study.runs_of(arm).filter(|run| run.summary.as_ref().is_some_and(|summary| summary.final_val_ce.is_some())).count();
    let planned = study.runs_of(arm).count() + study.missing.iter().filter(|missing| missing.arm == arm).count();
    plain(if ended == planned { planned.to_string() } else { format!("{ended} of {planned}") })
}

/// What the arms measured at the end of their runs, without a comparison.
fn measured(study: &Study) -> Table {
    let row = |arm: &super::StudyArm| {
        let summaries = || study.runs_of(&arm.name).filter_map(|run| run.summary.as_ref());
        let [mean, sd] = mean_and_sd(summaries().filter_map(|summary| summary.final_val_ce));
        let updates: BTreeSet<u32> = summaries().map(|summary| summary.updates).collect();
        let updates: Vec<String> = updates.iter().map(u32::to_string).collect();
        vec![code(&arm.name), run_count(study, &arm.name), plain(updates.join(", ")), mean, sd]
    };
    Table {
        caption: "Validation cross-entropy after the last update, nats per token. The order is that of the study: this is no ranking."
            .into(),
        columns: vec![words("arm"), number("runs"), number("updates"), number("mean"), number("sd")],
        rows: study.arms.iter().map(row).collect(),
    }
}

/// The arms against the control.
fn compared(study: &Study) -> Table {
    let mut rows = Vec::new();
    for arm in &study.arms {
        let runs = run_count(study, &arm.name);
        let Some((judged, judgement)) = study.verdict_of(&arm.name) else {
            let control =
                study.verdicts().first().map(|judged| (judged, &judged.judgement.control)).filter(|(_, band)| band.name == arm.name);
            let number = |value: Option<f64>, otherwise: &str| plain(value.map_or(otherwise.to_string(), |value| format!("{value:.4}")));
            let mean = number(control.and_then(|(_, band)| band.mean), "");
            let sd = number(control.and_then(|(_, band)| band.sd), "unknown");
            let place = plain(control.map_or("", |(judged, _)| &judged.place));
            let is_withheld = study.withheld().contains(&arm.name.as_str());
            let role = plain(if control.is_some() {
                "control"
            } else if is_withheld {
                "withheld"
            } else {
                "not compared"
            });
            rows.push(vec![code(&arm.name), runs, place, mean, sd, plain(""), plain(""), plain(""), role]);
            continue;
        };
        let [mean, sd] = mean_and_sd(judgement.pairs.iter().map(|pair| pair.arm));
        let interval = judgement.interval.map_or(String::new(), |[low, high]| format!("{} to {}", signed(low, 4), signed(high, 4)));
        rows.push(vec![
            code(&arm.name),
            runs,
            plain(judgement.place.as_ref().map_or(judged.place.clone(), |place| format!("at {place}"))),
            mean,
            sd,
            plain(judgement.mean.map_or(String::new(), |mean| signed(mean, 4))),
            plain(interval),
            plain(judgement.pairs.len().to_string()),
            strong(judgement.verdict.words()),
        ]);
    }
    let metric = study.verdicts().first().map_or("", |judged| judged.judgement.spec.metric.as_str());
    Table {
        caption: format!(
            "Mean and standard deviation of the {metric}, nats per token. Differences are arm minus {}, paired by seed. \
             The order is that of the study: this is no ranking.",
            study.control()
        ),
        columns: vec![
            words("arm"),
            number("runs"),
            words("compared"),
            number("mean"),
            number("sd"),
            number("difference"),
            number("interval"),
            number("pairs"),
            words("verdict"),
        ],
        rows,
    }
}

/// What becomes of the claims.
pub(super) fn claims(study: &Study) -> Table {
    let row = |(name, claim): (&String, &Claim)| {
        let parts: Vec<(&str, Relation)> = claim.parts().collect();
        let standing = claim_standing(parts.iter().map(|(arm, relation)| (study.verdict_of(arm).map(|(_, arm)| arm.verdict), *relation)));
        let evidence = parts.iter().map(|(arm, _)| match study.verdict_of(arm) {
            Some((judged, arm)) => arm.sentence(&judged.judgement.spec, study.control()),
            None => format!("{arm} has no verdict."),
        });
        vec![code(name), plain(&claim.text), strong(standing.words()), plain(evidence.collect::<Vec<_>>().join(" "))]
    };
    Table {
        caption: "What was published about these arms, and what the runs of this study say about it.".into(),
        columns: vec![words("claim"), words("as published"), words("here"), words("evidence")],
        rows: study.claims.iter().map(row).collect(),
    }
}

/// What gates decided, in order.
pub(super) fn decisions(study: &Study) -> Vec<Block> {
    if study.decisions.is_empty() {
        return vec![Block::Paragraph(plain("No gate has decided anything: every run makes all its updates."))];
    }
    let rows = study.decisions.iter().map(|record| {
        let decision = &record.decision;
        let numbers: Vec<String> = decision
            .numbers
            .iter()
            .map(|number| match number.threshold {
                Some(threshold) => format!("{} {} (threshold {})", number.name, short(number.value), short(threshold)),
                None => format!("{} {}", number.name, short(number.value)),
            })
            .collect();
        vec![
            code(&record.run),
            plain(&record.stage),
            plain(decision.update.to_string()),
            strong(name_of(&decision.verdict)),
            plain(name_of(&decision.rule)),
            plain(&decision.reason),
            plain(numbers.join("; ")),
        ]
    });
    let columns =
        vec![words("run"), words("stage"), number("update"), words("decision"), words("rule"), words("reason"), words("numbers behind it")];
    vec![Block::Table(Table { caption: String::new(), columns, rows: rows.collect() })]
}

/// What the audit found, the most severe first.
pub(super) fn audit(study: &Study) -> Vec<Block> {
    let Some(findings) = &study.findings else {
        return vec![Block::Notice(plain("This study was not audited: `moelab audit` has not looked at its configs and results."))];
    };
    if findings.is_empty() {
        return vec![Block::Paragraph(plain("The audit found nothing."))];
    }
    let mut blocks = Vec::new();
    for (severity, heading) in [
        (Severity::Refuse, "Refusals: no conclusion, unless overridden"),
        (Severity::Warn, "Warnings: reasons to doubt a conclusion"),
        (Severity::Note, "Notes"),
    ] {
        let item = |finding: &Finding| {
            let mut spans = vec![Span::Strong(finding.check.clone()), Span::Plain(format!(", {}: {}", finding.subject, finding.message))];
            spans.extend(finding.overridden.as_ref().map(|reason| Span::Plain(format!(" Overridden: {reason}"))));
            spans
        };
        let found: Vec<Text> = findings.iter().filter(|finding| finding.severity == severity).map(item).collect();
        if !found.is_empty() {
            blocks.extend([Block::Heading(3, heading.into()), Block::List(found)]);
        }
    }
    blocks
}

/// What the losses are compared with.
pub(super) fn baselines(study: &Study) -> Vec<Block> {
    let baselines = study.baselines();
    if baselines.is_empty() {
        return vec![Block::Paragraph(plain("No run of the control has recorded baselines."))];
    }
    let meaning = |name: &str| match name {
        "uniform" => "every token equally likely: ln V",
        "unigram" => "by the frequency of each token",
        "bigram" => "given the token before",
        _ => "of the process that generated the text: no model can be better",
    };
    let row = |(name, [mean, low, high]): &(&str, [f64; 3])| {
        let range = if low == high { String::new() } else { format!("{low:.4} to {high:.4}") };
        vec![plain(*name), plain(format!("{mean:.4}")), plain(range), plain(meaning(name))]
    };
    let caption =
        format!("On the validation targets of the runs of {}, nats per token. They differ between seeds if the data do.", study.control());
    let columns = vec![words("baseline"), number("mean"), number("range over seeds"), words("meaning")];
    vec![Block::Table(Table { caption, columns, rows: baselines.iter().map(row).collect() })]
}

/// What each arm changes, and the whole config of the control.
pub(super) fn configs(study: &Study) -> Vec<Block> {
    let Some(control) = study.arms.first() else { return Vec::new() };
    let base = config_file::settings(&control.config);
    let mut rows = Vec::new();
    for arm in &study.arms[1..] {
        let changes = identity::changes(&base, &config_file::settings(&arm.config), 0);
        let changes: Vec<_> = changes.into_iter().filter(|change| change.key != "seed").collect();
        if changes.is_empty() {
            rows.push(vec![code(&arm.name), plain("none: the same config as the control"), plain(""), plain(""), plain("")]);
        }
        for change in changes {
            rows.push(vec![code(&arm.name), code(&change.key), plain(change.class.to_string()), code(&change.from), code(&change.to)]);
        }
    }
    let columns = vec![words("arm"), words("key"), words("class"), words(&control.name), words("arm's value")];
    let caption = "Differences to the control, the seed apart.".to_string();
    vec![
        Block::Table(Table { caption, columns, rows }),
        Block::Details(
            format!("Effective config of {}", control.name),
            vec![Block::Code { language: "toml", text: control.config.to_effective_toml() }],
        ),
    ]
}

/// Each run, and where it ran.
pub(super) fn runs(study: &Study) -> Vec<Block> {
    let row = |run: &MeasuredRun| {
        let summary = run.summary.as_ref();
        let ce = |value: Option<f64>| plain(value.map_or(String::new(), |ce| format!("{ce:.4}")));
        let best = summary.and_then(|summary| Some(format!("{:.4} at {}", summary.best_val_ce?, summary.best_update?)));
        vec![
            code(&run.id),
            plain(run.seed.to_string()),
            plain(summary.map_or("has not ended".to_string(), |summary| name_of(&summary.exit))),
            plain(summary.map_or(String::new(), |summary| thousands(u64::from(summary.updates)))),
            plain(summary.map_or(String::new(), |summary| thousands(summary.tokens))),
            ce(summary.and_then(|summary| summary.final_val_ce)),
            plain(best.unwrap_or_default()),
            plain(summary.and_then(|summary| summary.tokens_per_second).map_or(String::new(), |rate| thousands(rate.round() as u64))),
            code(summary.and_then(|summary| summary.weights_sha256.as_ref()).map_or("", |hash| hash.get(..12).unwrap_or(hash))),
        ]
    };
    let columns = vec![
        words("run"),
        number("seed"),
        words("exit"),
        number("updates"),
        number("tokens"),
        number("final val CE"),
        number("best"),
        number("tokens/s"),
        words("weights"),
    ];
    let mut blocks = vec![Block::Table(Table { caption: String::new(), columns, rows: study.runs.iter().map(row).collect() })];
    let incidents: Vec<Text> = study
        .runs
        .iter()
        .flat_map(|run| {
            let said = run
                .incidents
                .iter()
                .take(INCIDENTS)
                .map(|incident| format!(" after update {}: {}. {}", incident.update, incident.incident.words(), incident.detail));
            let more = run.incident_count.saturating_sub(INCIDENTS);
            let more = (more > 0).then(|| format!(" and {more} more, in its log."));
            said.chain(more).map(|text| vec![Span::Code(run.id.clone()), Span::Plain(text)])
        })
        .collect();
    if !incidents.is_empty() {
        blocks.extend([Block::Heading(3, "Incidents".into()), Block::List(incidents)]);
    }
    blocks.push(Block::Heading(3, "Environment".into()));
    blocks.push(Block::Table(environment(study)));
    blocks
}

/// What the runs ran on, and how many of them.
fn environment(study: &Study) -> Table {
    let mut seen: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for summary in study.runs.iter().filter_map(|run| run.summary.as_ref()) {
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_string();
        for entry in [
            ("adapter", summary.adapter.clone()),
            ("driver", summary.driver.clone()),
            ("moelab", summary.version.clone()),
            ("data", short(&summary.data_sha256)),
            ("tokenizer", short(&summary.tokenizer_sha256)),
        ] {
            *seen.entry(entry).or_default() += 1;
        }
    }
    let row = |((what, value), runs): ((&str, String), usize)| vec![plain(what), plain(value), plain(runs.to_string())];
    let rows = seen.into_iter().filter(|((_, value), _)| !value.is_empty()).map(row).collect();
    let caption = "Data and tokenizer by the start of their SHA-256.".to_string();
    Table { caption, columns: vec![words(""), words("value"), number("runs")], rows }
}

/// The commands that repeat the study.
pub(super) fn repeat(study: &Study) -> Vec<Block> {
    let versions: BTreeSet<&str> =
        study.runs.iter().filter_map(|run| run.summary.as_ref()).map(|summary| summary.version.as_str()).collect();
    let versions: Vec<&str> = versions.into_iter().collect();
    let text = format!(
        "With moelab {} and the data above. On the same adapter and driver the weights are equal bit by bit; on others the losses agree closely.",
        if versions.is_empty() { "of this version".to_string() } else { versions.join(", ") }
    );
    vec![Block::Paragraph(plain(text)), Block::Code { language: "sh", text: study.commands.join("\n") }]
}

/// A number with five digits, or all digits of an integer.
fn short(value: f64) -> String {
    match value {
        value if !value.is_finite() => "not finite".to_string(),
        value if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value}"),
        value => format!("{value:.4}"),
    }
}
