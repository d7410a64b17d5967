//! The end of a run: the reason, and the final files.
//!
//! Every run that ends writes `summary.json`, `report.md` and the plot, if its folder can be written. The reason in the summary
//! determines the exit code of the process ([`ExitReason::exit_code`]).
//!
//! Summary, report and plot are functions of the log and of the newest state, so that resuming a finished run reproduces them.

use std::fmt;

use super::{
    error::SessionError,
    opening::{Raster, Rasterize},
    overview::{Overview, Survey},
    plot::LossPlot,
    report::Report,
    run_folder::RunFolder,
    store::StoreError,
};
use crate::gpu::GpuError;
use crate::run::summary::{self, Baselines, EpochSize, ExitReason, Summary};
use crate::{
    run::{Config, state::TrainState},
    train::TrainError,
};

/// Why a run ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub reason: ExitReason,
    /// The error that ended it.
    pub detail: Option<String>,
}

impl Ending {
    /// The last checkpoint, or a final file, could not be written.
    pub fn unsaved(error: &StoreError) -> Ending {
        let reason = match ExitReason::of_store(error) {
            ExitReason::OutOfSpace => ExitReason::OutOfSpace,
            _ => ExitReason::SaveFailed,
        };
        Ending { reason, detail: Some(error.to_string()) }
    }
}

impl fmt::Display for Ending {
    /// To follow "The run".
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.reason.words()),
            None => f.write_str(self.reason.words()),
        }
    }
}

impl From<ExitReason> for Ending {
    fn from(reason: ExitReason) -> Ending {
        Ending { reason, detail: None }
    }
}

impl From<&SessionError> for Ending {
    fn from(error: &SessionError) -> Ending {
        Ending { reason: ExitReason::of_session(error), detail: Some(error.to_string()) }
    }
}

/// The exit reason of an error, during a run or before one.
impl ExitReason {
    /// Of a session.
    pub fn of_session(error: &SessionError) -> ExitReason {
        match error {
            SessionError::Store(error) => Self::of_store(error),
            SessionError::Train(error) => Self::of_train(error),
            SessionError::Unwritten { .. } => Self::SaveFailed,
            SessionError::Mismatch(_) | SessionError::Unsaved { .. } | SessionError::Refused(_) => Self::Failed,
        }
    }

    /// Of a trainer.
    pub fn of_train(error: &TrainError) -> ExitReason {
        match error {
            TrainError::Diverged { .. } => Self::Diverged,
            TrainError::Gpu(error) => Self::of_gpu(error),
        }
    }

    /// Of a device.
    pub fn of_gpu(error: &GpuError) -> ExitReason {
        if error.is_lost() { Self::DeviceLost } else { Self::Failed }
    }
}

/// The inputs of the files.
pub(super) struct Material<'a> {
    pub name: &'a str,
    pub config: &'a Config,
    pub state: &'a TrainState,
    pub baselines: Option<Baselines>,
    /// The size of an epoch.
    pub epoch: Option<EpochSize>,
    /// Update and hash of the newest checkpoint.
    pub saved: Option<&'a (u32, String)>,
    pub rasterize: Option<Rasterize>,
}

/// Writes the final files of a run in short steps. A file other than the summary that cannot be written becomes a warning, and the
/// exit reason if the run had ended well.
pub(super) struct Files {
    next: Step,
    ending: Ending,
    overview: Overview,
    /// Once the overview is complete.
    summary: Option<Summary>,
    /// Why plot and report were not written.
    failed: [(&'static str, Option<StoreError>); 2],
}

enum Step {
    Open,
    Survey(Box<Survey>),
    Svg,
    Png(Box<dyn Raster>),
    Report,
    Summary,
}

impl Files {
    /// Writes nothing yet.
    pub fn new(ending: Ending) -> Files {
        Files { next: Step::Open, ending, overview: Overview::default(), summary: None, failed: [("plot", None), ("report", None)] }
    }

    /// How the run ended.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// Makes the next step. Returns the summary when all files are written.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub fn proceed(&mut self, folder: &mut RunFolder, of: &Material, warn: &mut dyn FnMut(String)) -> Result<Option<Summary>, StoreError> {
        let [(_, plot), (_, report)] = &mut self.failed;
        let summary = &*self.summary.get_or_insert_with(|| summarize(&self.ending, of, &self.overview));
        self.next = match std::mem::replace(&mut self.next, Step::Summary) {
            Step::Open => match Survey::open(folder.store()) {
                Ok(survey) => Step::Survey(Box::new(survey)),
                Err(error) => self.without_metrics(error, warn),
            },
            Step::Survey(mut survey) => match survey.proceed(folder.store()) {
                Ok(None) => Step::Survey(survey),
                Ok(Some(overview)) => {
                    (self.overview, self.summary) = (overview, None);
                    Step::Svg
                }
                Err(error) => self.without_metrics(error, warn),
            },
            Step::Svg => {
                let figure = LossPlot::from_run(of.name, summary, &self.overview).figure();
                *plot = folder.write("loss.svg", figure.to_svg().as_bytes()).err();
                match of.rasterize {
                    Some(rasterize) if plot.is_none() => Step::Png(rasterize(figure)),
                    _ => Step::Report,
                }
            }
            Step::Png(mut raster) => match raster.proceed() {
                Ok(None) => Step::Png(raster),
                Ok(Some(png)) => {
                    *plot = folder.write("loss.png", &png).err();
                    Step::Report
                }
                Err(problem) => {
                    warn(format!("loss.png was not drawn: {problem}"));
                    Step::Report
                }
            },
            Step::Report => {
                *report = write_report(folder, of, summary, &self.overview).err();
                Step::Summary
            }
            Step::Summary => return self.write_summary(folder, warn),
        };
        Ok(None)
    }

    /// What comes next if the log cannot be read: no plot.
    fn without_metrics(&mut self, error: StoreError, warn: &mut dyn FnMut(String)) -> Step {
        warn(format!("the report is without the metrics: {error}"));
        self.failed[0].1 = Some(error);
        Step::Report
    }

    fn write_summary(&mut self, folder: &mut RunFolder, warn: &mut dyn FnMut(String)) -> Result<Option<Summary>, StoreError> {
        let Some(mut summary) = self.summary.take() else { return Ok(None) };
        for (what, error) in &self.failed {
            let Some(error) = error else { continue };
            warn(format!("the {what} was not written: {error}"));
            if summary.exit.exit_code() == 0 {
                let ending = Ending::unsaved(error);
                (summary.exit, summary.detail) = (ending.reason, ending.detail);
            }
        }
        folder.write("summary.json", summary.to_json().as_bytes())?;
        Ok(Some(summary))
    }
}

fn write_report(folder: &mut RunFolder, of: &Material, summary: &Summary, overview: &Overview) -> Result<(), StoreError> {
    let config = of.config.to_effective_toml();
    let report = Report { summary, overview, config: &config, plot: Some("loss.svg") };
    folder.write("report.md", report.to_markdown().as_bytes())
}

fn summarize(ending: &Ending, of: &Material, overview: &Overview) -> Summary {
    let (state, last) = (of.state, overview.last_eval.as_ref());
    Summary {
        schema: summary::SCHEMA,
        name: of.name.to_string(),
        exit: ending.reason,
        detail: ending.detail.clone(),
        final_val_ce: last.filter(|eval| eval.update == state.update).map(|eval| eval.val_ce).filter(|ce| ce.is_finite()),
        best_val_ce: state.best.map(|best| best.val_ce),
        best_update: state.best.map(|best| best.update),
        updates: state.update,
        skipped_updates: state.skipped.non_finite,
        rollbacks: state.skipped.rollbacks,
        blew_up_at: overview.blew_up_at,
        routing_alarms: overview.routing_alarms.clone(),
        forced_balance: of.config.model.router.force_balance && of.config.model.router_calls() > 0,
        tokens: state.tokens,
        tokens_per_second: overview.tokens_per_second(),
        adapter: state.identity.adapter.clone(),
        driver: state.identity.driver.clone(),
        weights_sha256: of.saved.filter(|(update, _)| *update == state.update).map(|(_, hash)| hash.clone()),
        baselines: of.baselines,
        epoch: of.epoch,
        changes: state.changes.clone(),
        settings_sha256: state.identity.class_hashes(),
        config_sha256: state.identity.config.clone(),
        data_sha256: state.identity.data.clone(),
        tokenizer_sha256: state.identity.tokenizer.clone(),
        version: env!("CARGO_PKG_VERSION").to_string(),
    }
}
