//! The report of a study: its files beside the plan.

use std::path::Path;

use anyhow::{Context, Result};
use moelab::lab::{
    export::csv,
    study_report::{Study, report},
};
use moelab_native::{atomic, print, raster};

/// Writes `report.md`, `report.html`, `results.csv`, `evaluations.csv` and the figures as SVG and PNG into a folder. Returns their names.
///
/// # Errors
/// A file that cannot be written.
pub fn write(folder: &Path, study: &Study) -> Result<Vec<String>> {
    let document = report(study);
    let mut files = vec![
        ("report.md".to_string(), document.to_markdown().into_bytes()),
        ("report.html".to_string(), document.to_html().into_bytes()),
        ("results.csv".to_string(), csv::runs(&study.runs).into_bytes()),
        ("evaluations.csv".to_string(), csv::evaluations(&study.runs).into_bytes()),
    ];
    for (name, figure) in document.figures() {
        files.push((format!("{name}.svg"), figure.to_svg().into_bytes()));
        files
            .push((format!("{name}.png"), raster::png(figure).map_err(|error| anyhow::anyhow!(error)).with_context(|| print::name(name))?));
    }
    for (name, bytes) in &files {
        let path = folder.join(name);
        atomic::write(&path, bytes).with_context(|| print::path(&path))?;
    }
    Ok(files.into_iter().map(|(name, _)| name).collect())
}
