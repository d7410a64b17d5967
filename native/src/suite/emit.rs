//! Scripts for engines that distribute the runs of a study.

use std::path::Path;

use clap::ValueEnum;
use moelab_native::print;

/// An engine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Engine {
    /// HyperQueue: a task array on the workers of an `hq` server.
    Hyperqueue,
    /// Slurm: a job array for `sbatch`.
    Slurm,
    /// GNU parallel: a list of commands.
    Parallel,
}

/// The script for the runs that are planned now. Gates and adaptive repeats add runs: `moelab suite promote` decides, and the script is
/// made again.
pub fn script(engine: Engine, study: &Path, folder: &Path, runs: usize) -> String {
    let (study, folder) = (quoted(study), quoted(folder));
    let last = runs.saturating_sub(1);
    let run = format!("moelab run --plan {folder}/plan.jsonl --index");
    let again = format!(
        "# Then `moelab suite promote {study} --out {folder}` decides which arms continue and which repeats are added.\n\
         # While it prints decisions, run the array again: runs that are made end at once with 0.\n\
         # Exit codes of a run: 0 made, 3 diverged, 4 device lost, 75 try again.\n"
    );
    match engine {
        Engine::Hyperqueue => format!(
            "#!/bin/sh\n{again}set -e\n\
             # One GPU a task where a worker has some: HyperQueue sets CUDA_VISIBLE_DEVICES, which Vulkan ignores;\n\
             # choose the adapter on each worker with `--adapter pci:ADDRESS` (`moelab adapters`).\n\
             hq submit --wait --array 0-{last} --crash-limit 5 -- sh -c '{run} \"$HQ_TASK_ID\"'\n\
             moelab suite promote {study} --out {folder}\n"
        ),
        Engine::Slurm => format!(
            "#!/bin/sh\n#SBATCH --job-name=moelab\n#SBATCH --array=0-{last}\n#SBATCH --output={folder}/slurm-%a.log\n{again}\
             {run} \"$SLURM_ARRAY_TASK_ID\"\n"
        ),
        Engine::Parallel => {
            let commands: String = (0..runs).map(|index| format!("{run} {index}\n")).collect();
            format!("# parallel --jobs 2 --joblog {folder}/joblog --resume-failed < THIS-FILE\n{again}{commands}")
        }
    }
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    let text = print::path(path);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
