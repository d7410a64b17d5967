//! Charts as files.

use std::path::Path;

use anyhow::{Context, Result};
use moelab::lab::figure::Figure;
use moelab_native::{atomic, print, raster};

/// The bytes of a file in one format.
pub type Draw = fn(&Figure) -> Result<Vec<u8>>;

/// SVG.
pub fn svg(figure: &Figure) -> Result<Vec<u8>> {
    Ok(figure.to_svg().into_bytes())
}

/// PNG.
pub fn png(figure: &Figure) -> Result<Vec<u8>> {
    raster::png(figure).map_err(|error| anyhow::anyhow!(error))
}

/// Writes a chart.
pub fn write(path: &Path, figure: &Figure, draw: Draw) -> Result<()> {
    let bytes = draw(figure).with_context(|| print::path(path))?;
    atomic::write(path, &bytes).with_context(|| print::path(path))
}
