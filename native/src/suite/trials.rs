//! `moelab suite ask` and `tell`: trials of an outside sampler.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use moelab::{
    lab::{
        results::{evaluations, summary},
        suite::is_started,
        trials::{self, State},
    },
    run::config::load,
};
use moelab_native::{folders::Folders, print, store::Directory};
use serde_json::json;

use super::Opened;
use crate::open;

/// Folder of the trials' configs in that of the study.
const CONFIGS: &str = "trials";

/// Prints the run to make for a trial with these parameters: its name, its state, and the command that makes or resumes it.
pub fn ask(opened: &Opened, parameters: &str) -> Result<()> {
    let sets = trials::settings(parameters).context("--params")?;
    let control = opened.plan.arms.first().context("the study has no arms")?.config.to_effective_toml();
    let config = load(&|_| Ok(control.clone()), "the control of the study", &sets)?;
    let trial = trials::name(&config);
    let configs = opened.folder.join(CONFIGS);
    fs::create_dir_all(&configs).with_context(|| print::path(&configs))?;
    let file = configs.join(format!("{trial}.toml"));
    fs::write(&file, config.to_effective_toml()).with_context(|| print::path(&file))?;
    let run = opened.folder.join(&trial);
    let told = told(&opened.folder, &trial)?;
    let program = std::env::current_exe()?;
    let path = |path: &Path| path.display().to_string();
    let command = match told.state {
        State::Waiting => vec![path(&program), "train".into(), path(&file), "--out".into(), path(&run)],
        State::Running => vec![path(&program), "resume".into(), path(&run)],
        State::Complete | State::Pruned | State::Fail => Vec::new(),
    };
    print::json(&json!({ "trial": trial, "state": told.state, "run": path(&run), "command": command }));
    Ok(())
}

/// Prints what is known of trials; of all in the study's folder, if none is named.
pub fn tell(opened: &Opened, names: &[String]) -> Result<()> {
    let mut names = names.to_vec();
    if names.is_empty() {
        let configs = opened.folder.join(CONFIGS);
        let files = if configs.exists() {
            fs::read_dir(&configs).with_context(|| print::path(&configs))?.collect::<Result<Vec<_>, _>>()?
        } else {
            Vec::new()
        };
        names = files.iter().filter_map(|file| file.path().file_stem()?.to_str().map(str::to_owned)).collect();
        names.sort();
    }
    for trial in names {
        print::json(&told(&opened.folder, &trial)?);
    }
    Ok(())
}

fn told(folder: &Path, trial: &str) -> Result<trials::Told> {
    let run = &folder.join(trial);
    // A run that was killed before its first line is made anew.
    if !run.exists() || !is_started(&Folders::read_only(folder)?, trial)? {
        return Ok(trials::tell(trial, false, None, &[]));
    }
    let store = Directory::read_only(run).with_context(|| print::path(run))?;
    let config = open::config_of_run(run, &[])?;
    Ok(trials::tell(trial, true, summary(&store)?.as_ref(), &evaluations(&store, &config)?))
}
