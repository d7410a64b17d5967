//! Scripts for engines that distribute the runs of a study.

use std::path::Path;

use clap::ValueEnum;
use moelab::gpu::AdapterChoice;
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

/// The script for the runs that are planned now, on an adapter if one was chosen. Gates and adaptive repeats add runs: `moelab suite promote` decides, and the script is
/// made again.
pub fn script(engine: Engine, adapter: Option<&AdapterChoice>, study: &Path, folder: &Path, runs: usize) -> String {
    let (study, folder) = (quoted(&print::path(study)), quoted(&print::path(folder)));
    let last = runs.saturating_sub(1);
    let adapter = adapter.map_or(String::new(), |adapter| format!(" --adapter {}", quoted(&adapter.to_string())));
    let run = format!("moelab{adapter} run --plan {folder}/plan.jsonl --index");
    let gpus = match adapter.is_empty() {
        true => {
            "# On a machine with several GPUs tell each task its own with `--adapter pci:ADDRESS`, from `moelab adapters`:\n\
                 # CUDA_VISIBLE_DEVICES, which the engines set, does not steer Vulkan.\n"
        }
        false => "",
    };
    let again = format!(
        "# Then `moelab suite promote {study} --out {folder}` decides which arms continue and which repeats are added.\n\
         # While it prints decisions, run the array again: runs that are made end at once with the same code.\n\
         # Exit codes of a run: 0 made, 3 diverged, 4 device lost, 75 try again.\n"
    );
    match engine {
        Engine::Hyperqueue => format!(
            "#!/bin/sh\n{again}{gpus}hq submit --wait --array 0-{last} --crash-limit 5 -- sh -c {task} || echo 'some runs failed'\n\
             moelab suite promote {study} --out {folder}\n",
            task = quoted(&format!("{run} \"$HQ_TASK_ID\""))
        ),
        Engine::Slurm => format!(
            "#!/bin/sh\n#SBATCH --job-name=moelab\n#SBATCH --array=0-{last}\n#SBATCH --output={folder}/slurm-%a.log\n{again}{gpus}\
             {run} \"$SLURM_ARRAY_TASK_ID\"\n"
        ),
        Engine::Parallel => {
            let commands: String = (0..runs).map(|index| format!("{run} {index}\n")).collect();
            format!("# parallel --jobs 2 --joblog {folder}/joblog < THIS-FILE\n{again}{gpus}{commands}")
        }
    }
}

/// A word for a shell.
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
