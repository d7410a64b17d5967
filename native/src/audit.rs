//! `moelab audit`: what the conclusions of a study do not follow from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use moelab::{
    lab::{
        audit::{
            self, Arm, Claim, Finding, Severity, Study,
            study::{Measured, differences},
        },
        audit_device,
        measured::MeasuredRun,
    },
    run::{Config, suite},
};
use moelab_native::{err, out, print, store::Directory};
use serde_json::json;

use crate::{Common, ConfigArgs, inspect, open};

/// Audit a study: its arms before they run, its runs afterwards.
#[derive(Args)]
pub struct AuditArgs {
    /// A study, configs as arms of which the first is the control, run folders, or published results (JSON).
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Set one key of every config, for example train.updates=12. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Why a finding of a check does not matter; CHECK:SUBJECT for one subject. The reason is part of the result. May be repeated.
    #[arg(long = "override", value_name = "CHECK=REASON")]
    overrides: Vec<String>,
    /// Conclusions to be checked, as a JSON list.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Read neither data nor a device: configs and results only.
    #[arg(long)]
    plan_only: bool,
}

/// Prints every finding; the most severe one that is not overridden decides the exit code.
pub fn audit(common: &Common, args: &AuditArgs) -> Result<Option<Severity>> {
    let (mut study, mut overrides) = read(args)?;
    let mut findings = Vec::new();
    if !args.plan_only && !study.arms.is_empty() {
        findings = with_device(common, &mut study)?;
    }
    findings.extend(audit::all(&study));
    overrides.extend(stated_overrides(&args.overrides)?);
    audit::apply_overrides(&mut findings, &overrides)?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    show(common, &study, &findings)?;
    Ok(audit::worst(&findings))
}

/// The reasons of `--override CHECK=REASON` by check.
///
/// # Errors
/// Something else than CHECK=REASON.
pub fn stated_overrides(stated: &[String]) -> Result<BTreeMap<String, String>> {
    let reason = |stated: &String| {
        let (target, reason) = stated.split_once('=').with_context(|| format!("--override {stated}: expected CHECK=REASON"))?;
        Ok((target.to_owned(), reason.to_owned()))
    };
    stated.iter().map(reason).collect()
}

fn show(common: &Common, study: &Study, findings: &[Finding]) -> Result<()> {
    let standing = audit::standing(study, findings);
    if common.json {
        for finding in findings {
            print::json(&serde_json::to_value(finding)?);
        }
        for (claim, verdict) in &standing {
            let (stands, because) = match verdict {
                Ok(remarks) => (true, remarks),
                Err(reasons) => (false, reasons),
            };
            print::json(&json!({ "claim": claim.text, "stands": stands, "because": because }));
        }
        return Ok(());
    }
    findings.iter().for_each(|finding| out!("{}", print::name(&finding.to_string())));
    for (claim, verdict) in &standing {
        out!("{}  {}", if verdict.is_ok() { "stands        " } else { "does not stand" }, print::name(&claim.text));
    }
    let count = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity && finding.overridden.is_none()).count();
    let overridden = findings.iter().filter(|finding| finding.overridden.is_some()).count();
    out!(
        "{} arms, {} runs: {} refusals, {} warnings, {} notes, {overridden} overridden",
        study.arms.len(),
        study.runs.len(),
        count(Severity::Refuse),
        count(Severity::Warn),
        count(Severity::Note)
    );
    Ok(())
}

/// The study, and the reasons for overrides that it states itself.
fn read(args: &AuditArgs) -> Result<(Study, BTreeMap<String, String>)> {
    let (mut study, mut overrides) = (Study::default(), BTreeMap::new());
    let mut runs = Vec::new();
    for path in &args.paths {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() {
            runs.push(read_run(path)?);
        } else if extension == "json" {
            let text = open::read_text(path).map_err(|error| anyhow::anyhow!("{}: {error}", print::path(path)))?;
            study.runs.extend(audit::import::read(&stem(path), &text)?);
        } else if is_study(path) {
            let reader = |path: &str| open::read_text(Path::new(path));
            let name = path.display().to_string();
            let suite = suite::load(&reader, &name, &args.sets)?;
            study.arms.extend(suite::plan(&suite, &reader, &name)?.arms);
            overrides.extend(suite.overrides);
        } else {
            let mut config = open::config(&ConfigArgs { config: path.clone(), sets: args.sets.clone(), reduced: false })?;
            open::fill_vocabulary(&mut config)?;
            study.arms.push(arm(&study, stem(path), config));
        }
    }
    for run in &runs {
        if study.arm(&run.arm).is_none() {
            let config = run.config.clone().context("a run has a config")?;
            study.arms.push(arm(&study, run.arm.clone(), config));
        }
    }
    study.runs.extend(runs);
    if let Some(path) = &args.claims {
        let text = open::read_text(path).map_err(|error| anyhow::anyhow!("{}: {error}", print::path(path)))?;
        study.claims = serde_json::from_str::<Vec<Claim>>(&text).with_context(|| format!("{}: not a list of claims", print::path(path)))?;
    }
    ensure!(!study.arms.is_empty() || !study.runs.is_empty(), "no arm and no run to audit");
    Ok((study, overrides))
}

/// An arm that declares whatever differs from the control.
fn arm(study: &Study, name: String, config: Config) -> Arm {
    let changes = study.arms.first().map(|control| differences(&control.config, &config)).unwrap_or_default();
    let changes = changes.into_iter().filter(|change| change.key != "seed").map(|change| (change.key, change.to)).collect();
    Arm { name, config, changes }
}

/// A run; its arm is the name of its folder without the seed.
fn read_run(folder: &Path) -> Result<Measured> {
    let store = Directory::read_only(folder).with_context(|| print::path(folder))?;
    let name = open::name(folder);
    let run = MeasuredRun::read(&store, &name, &name).with_context(|| print::path(folder))?;
    let arm = name.strip_suffix(&format!("-s{}", run.seed)).unwrap_or(&name).to_owned();
    Ok(Measured::from(&MeasuredRun { arm, ..run }))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a TOML file is a study rather than a config: it has keys that only studies have.
fn is_study(path: &Path) -> bool {
    let Ok(text) = open::read_text(path) else { return false };
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    ["question", "base", "arms", "grid"].iter().any(|key| table.contains_key(*key))
}

/// Adds facts about the data and the adapter to a study with arms, and returns what only a device finds.
///
/// # Errors
/// A device that cannot be opened or is lost.
pub fn with_device(common: &Common, study: &mut Study) -> Result<Vec<Finding>> {
    measure_data(common, study);
    on_device(common, study)
}

/// Adds facts about the control's data, unless they cannot be read.
fn measure_data(common: &Common, study: &mut Study) {
    let config = study.arms[0].config.clone();
    match open::corpus(common, config.clone(), None) {
        Ok((config, corpus)) => study.data = Some(audit_device::data_facts(&corpus, &config)),
        Err(error) => err!("the data were not checked: {error:#}"),
    }
}

/// What needs a device: memory, the structure of the models, and whether what arms change acts.
fn on_device(common: &Common, study: &mut Study) -> Result<Vec<Finding>> {
    for arm in &mut study.arms {
        open::fill_vocabulary(&mut arm.config)?;
    }
    let device = Rc::new(open::device(common)?);
    let available = inspect::memory_of(&device.adapter);
    study.memory = study.arms.iter().map(|arm| audit_device::memory_facts(arm, &device, available)).collect();
    let mut findings = audit_device::structure(study, &device, &|_| {})?;
    findings.extend(audit_device::liveness(study, &device)?);
    Ok(findings)
}
