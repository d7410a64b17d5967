//! A [`Figure`] as PNG: its SVG, rasterised by resvg with the Ubuntu font that egui ships.
//!
//! There is one drawing code, so the PNG shows what the SVG says. No font of the system is used, so the same figure results in the
//! same bytes on every machine.

use std::{collections::BTreeSet, sync::Arc};

use moelab::lab::figure::{Color, Figure, Mark};
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

/// Pixels of the image per unit of the figure: sharp on high-density screens and in print.
const SCALE: f32 = 2.0;
/// Stroke width of the letters as a share of the font size: the font has one weight, which is light.
const REGULAR: f64 = 0.012;
/// The same of emphasised text.
const BOLD: f64 = 0.045;

/// The figure as a PNG file. The same figure results in the same bytes.
///
/// # Errors
/// If the figure is too large or the encoder fails.
pub fn png(figure: &Figure) -> Result<Vec<u8>, String> {
    let mut fonts = Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
    let family = family.ok_or("the built-in font cannot be read")?;
    fonts.set_serif_family(&family);
    let options = Options { font_family: family, fontdb: Arc::new(fonts), style_sheet: Some(weights(figure)), ..Options::default() };
    let tree = Tree::from_str(&figure.to_svg(), &options).map_err(|error| error.to_string())?;
    let [width, height] = [figure.width, figure.height].map(|side| (side as f32 * SCALE).ceil() as u32);
    let mut page = Pixmap::new(width, height).ok_or_else(|| format!("an image of {width} x {height} cannot be created"))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut page.as_mut());
    page.encode_png().map_err(|error| error.to_string())
}

/// A style sheet that strokes the letters in their own colour, more in emphasised text.
fn weights(figure: &Figure) -> String {
    let color = |mark: &Mark| if let Mark::Text { color: Color(rgb), .. } = mark { Some(*rgb) } else { None };
    let colors: BTreeSet<u32> = figure.marks.iter().filter_map(color).collect();
    let strokes: String = colors.iter().map(|rgb| format!("text[fill=\"#{rgb:06x}\"]{{stroke:#{rgb:06x}}}")).collect();
    format!("text{{stroke-width:{REGULAR}em}}text[font-weight=\"600\"]{{stroke-width:{BOLD}em;letter-spacing:0.03em}}{strokes}")
}
