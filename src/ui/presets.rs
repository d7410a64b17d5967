//! The configs and the study that the app offers.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::{
    config_file::{Problems, Unreadable},
    run::{Config, config, suite},
};

/// A config that the app offers.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in one line.
    pub purpose: &'static str,
    /// Its path below `configs`.
    pub path: &'static str,
    /// Whether it is one of a published study, at its full size.
    pub is_published: bool,
}

const fn preset(name: &'static str, purpose: &'static str, path: &'static str) -> Preset {
    Preset { name, purpose, path, is_published: false }
}

const fn published(name: &'static str, purpose: &'static str, path: &'static str) -> Preset {
    Preset { name, purpose, path, is_published: true }
}

/// The configs, the first one for the first run.
pub const PRESETS: [Preset; 8] = [
    preset("Quickstart", "Four experts learn the embedded language, whose entropy is known.", "quickstart.toml"),
    preset("Tiny", "The base of the example study: moments on any GPU.", "example/base.toml"),
    published("exp8", "The cosine baseline of blueberry-llm's ablations: 79 M parameters, 8 experts.", "exp8/baseline.toml"),
    published("exp3", "The attention baseline of the expert-count study.", "exp3/baseline.toml"),
    published("reasoning, plain", "The control of the fifteen reasoning ablations.", "reasoning/1_baseline.toml"),
    published("reasoning, recursive", "The same with recursion in depth.", "reasoning/2_recursive.toml"),
    published("rnn, dense baseline", "The dense control of rnn-transformer.", "rnn/baseline.toml"),
    published("rnn, shared depth", "One block of experts applied at every depth.", "rnn/shared_moe.toml"),
];

/// The files of presets and of the example study, by their paths below `configs`.
const FILES: [(&str, &str); 9] = [
    ("quickstart.toml", include_str!("../../configs/quickstart.toml")),
    ("example/base.toml", include_str!("../../configs/example/base.toml")),
    ("exp8/baseline.toml", include_str!("../../configs/exp8/baseline.toml")),
    ("exp3/baseline.toml", include_str!("../../configs/exp3/baseline.toml")),
    ("reasoning/1_baseline.toml", include_str!("../../configs/reasoning/1_baseline.toml")),
    ("reasoning/2_recursive.toml", include_str!("../../configs/reasoning/2_recursive.toml")),
    ("rnn/baseline.toml", include_str!("../../configs/rnn/baseline.toml")),
    ("rnn/indexed.toml", include_str!("../../configs/rnn/indexed.toml")),
    ("rnn/shared_moe.toml", include_str!("../../configs/rnn/shared_moe.toml")),
];

/// The example study.
pub const STUDY: &str = include_str!("../../configs/example/suite.toml");

/// The files of the example study, by name.
pub fn study_files() -> BTreeMap<String, String> {
    let base = FILES.iter().find(|(path, _)| *path == "example/base.toml").map_or("", |(_, text)| text);
    BTreeMap::from([("suite.toml".to_string(), STUDY.to_string()), ("base.toml".to_string(), base.to_string())])
}

/// Name of the config of the user in problems with it.
pub const OWN: &str = "config.toml";

/// Reads a config: a preset by its path, or the text of the user.
///
/// # Errors
/// All its problems.
pub fn load(path: &str, own: Option<&str>, sets: &[String]) -> Result<Config, Problems> {
    let read = |wanted: &str| match (own, wanted) {
        (Some(text), OWN) => Ok(text.to_string()),
        _ => {
            let found = FILES.iter().find(|(path, _)| *path == wanted.trim_start_matches("./"));
            found.map(|(_, text)| (*text).to_string()).ok_or_else(|| Unreadable::from("the app has no such file"))
        }
    };
    config::load(&read, if own.is_some() { OWN } else { path }, sets)
}

/// What one of the app's buttons starts.
pub struct Offer {
    /// The config of its runs, or of its control.
    pub config: Config,
    /// The same with every default filled in, TOML.
    pub text: String,
    /// The number of its runs, before a study adds seeds.
    pub runs: usize,
}

/// The first run.
pub fn quickstart() -> Option<&'static Offer> {
    static QUICKSTART: LazyLock<Option<Offer>> = LazyLock::new(|| {
        let config = load(PRESETS[0].path, None, &[]).ok()?;
        Some(Offer { text: config.to_effective_toml(), config, runs: 1 })
    });
    QUICKSTART.as_ref()
}

/// The example study.
pub fn study() -> Option<&'static Offer> {
    static STUDY: LazyLock<Option<Offer>> = LazyLock::new(|| {
        let files = study_files();
        let read = |path: &str| files.get(path).cloned().ok_or_else(|| Unreadable::from("the app has no such file"));
        let suite = suite::load(&read, "suite.toml", &[]).ok()?;
        let plan = suite::plan(&suite, &read, "suite.toml").ok()?;
        let config = plan.arms.first()?.config.clone();
        Some(Offer { text: config.to_effective_toml(), config, runs: plan.runs.len() })
    });
    STUDY.as_ref()
}

#[cfg(test)]
mod tests {
    use super::{OWN, PRESETS, load, study_files};
    use crate::{
        config_file::Unreadable,
        run::suite::{load as load_suite, plan},
    };

    #[test]
    fn every_preset_is_a_config_and_has_a_reduced_size() {
        for preset in &PRESETS {
            let config = load(preset.path, None, &[]).unwrap_or_else(|problems| panic!("{}: {problems}", preset.path));
            let text = config.reduced().to_effective_toml();
            load(OWN, Some(&text), &[]).unwrap_or_else(|problems| panic!("{} reduced: {problems}", preset.path));
        }
    }

    #[test]
    fn the_example_study_can_be_planned_from_its_files() {
        let files = study_files();
        let read = |path: &str| files.get(path).cloned().ok_or_else(|| Unreadable::from("missing"));
        let suite = load_suite(&read, "suite.toml", &[]).unwrap();
        assert_eq!(plan(&suite, &read, "suite.toml").unwrap().arms.len(), 3);
    }
}
