//! The report of a study: its files beside the plan.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use moelab::lab::study_report::{Document, Study, files, report};
use moelab_native::{atomic, print, raster};

/// The folder of the figures of a report that is kept.
const FIGURES: &str = "results";

/// Writes `report.md`, `report.html`, `results.csv`, `evaluations.csv` and the figures as SVG and PNG into a folder. Returns their names.
///
/// # Errors
/// A file that cannot be written.
pub fn write(folder: &Path, study: &Study) -> Result<Vec<String>> {
    let document = report(study);
    let mut files: Vec<(String, Vec<u8>)> = texts(study, &document).collect();
    for (name, figure) in document.figures() {
        let png = raster::png(figure).map_err(|error| anyhow::anyhow!(error)).with_context(|| print::name(name))?;
        files.push((format!("{name}.png"), png));
    }
    write_all(folder, &files)?;
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

/// Writes `RESULTS.md` and, in `results`, its figures and `results.csv` into a folder: the part of a report that is kept with the study.
///
/// # Errors
/// A file that cannot be written.
pub fn keep(folder: &Path, study: &Study) -> Result<()> {
    let document = report(study);
    let figures = folder.join(FIGURES);
    fs::create_dir_all(&figures).with_context(|| print::path(&figures))?;
    let is_kept = |name: &str| name == "results.csv" || name.ends_with(".svg");
    let files: Vec<(String, Vec<u8>)> = texts(study, &document).filter(|(name, _)| is_kept(name)).collect();
    write_all(&figures, &files)?;
    write_all(folder, &[("RESULTS.md".to_string(), document.to_markdown(&format!("{FIGURES}/")).into_bytes())])
}

fn texts(study: &Study, document: &Document) -> impl Iterator<Item = (String, Vec<u8>)> {
    files(study, document).into_iter().map(|(name, text)| (name, text.into_bytes()))
}

fn write_all(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    for (name, bytes) in files {
        let path = folder.join(name);
        atomic::write(&path, bytes).with_context(|| print::path(&path))?;
    }
    Ok(())
}
