//! A [`Figure`] as PNG: the same marks as its SVG, rendered with tiny-skia and the Ubuntu font that egui ships.

use moelab::lab::figure::{Anchor, Color, Figure, Mark};
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};
use ttf_parser::{Face, OutlineBuilder};

/// Pixels of the image per unit of the figure: sharp on high-density screens and in print.
const SCALE: f32 = 2.0;
/// Stroke width of emphasised text as a share of the font size; the font has one weight.
const BOLD: f32 = 0.045;
const REGULAR: f32 = 0.012;

/// The figure as a PNG file. The same figure results in the same bytes.
///
/// Fails if the encoder fails or the figure is too large.
pub fn png(figure: &Figure) -> Result<Vec<u8>, String> {
    let [width, height] = [figure.width, figure.height].map(|side| (side as f32 * SCALE).ceil() as u32);
    let mut page = Pixmap::new(width, height).ok_or_else(|| format!("an image of {width} x {height} cannot be created"))?;
    page.fill(tiny_skia::Color::WHITE);
    let face = Face::parse(epaint_default_fonts::UBUNTU_LIGHT, 0).map_err(|error| error.to_string())?;
    for mark in &figure.marks {
        draw(&mut page, &face, mark);
    }
    page.encode_png().map_err(|error| error.to_string())
}

fn draw(page: &mut Pixmap, face: &Face, mark: &Mark) {
    match mark {
        Mark::Line { points, color, width, dash, opacity } => {
            let mut path = PathBuilder::new();
            for (i, &[x, y]) in points.iter().enumerate() {
                match i {
                    0 => path.move_to(x as f32, y as f32),
                    _ => path.line_to(x as f32, y as f32),
                }
            }
            let dash = dash.and_then(|[on, off]| StrokeDash::new(vec![on as f32, off as f32], 0.0));
            let stroke = Stroke { width: *width as f32, line_cap: LineCap::Butt, line_join: LineJoin::Round, dash, ..Stroke::default() };
            stroke_path(page, path.finish(), &paint(*color, *opacity), &stroke);
        }
        Mark::Dot { at: [x, y], radius, color } => {
            for (radius, color) in [(radius + 1.0, Color::WHITE), (*radius, *color)] {
                fill_path(page, PathBuilder::from_circle(*x as f32, *y as f32, radius as f32), &paint(color, 1.0));
            }
        }
        Mark::Text { at: [x, y], text, size, color, anchor, bold } => {
            let size = *size as f32;
            let weight = size * if *bold { BOLD } else { REGULAR };
            let (path, length) = outline(face, text, size, weight);
            let start = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => length / 2.0,
                Anchor::End => length,
            };
            let path = path.and_then(|path| path.transform(Transform::from_translate(*x as f32 - start, *y as f32)));
            let stroke = Stroke { width: weight, line_join: LineJoin::Round, ..Stroke::default() };
            fill_path(page, path.clone(), &paint(*color, 1.0));
            stroke_path(page, path, &paint(*color, 1.0), &stroke);
        }
    }
}

fn paint(Color(rgb): Color, opacity: f64) -> Paint<'static> {
    let [_, red, green, blue] = rgb.to_be_bytes();
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0).round() as u8);
    paint
}

fn stroke_path(page: &mut Pixmap, path: Option<Path>, paint: &Paint, stroke: &Stroke) {
    if let Some(path) = path {
        page.stroke_path(&path, paint, stroke, Transform::from_scale(SCALE, SCALE), None);
    }
}

fn fill_path(page: &mut Pixmap, path: Option<Path>, paint: &Paint) {
    if let Some(path) = path {
        page.fill_path(&path, paint, FillRule::Winding, Transform::from_scale(SCALE, SCALE), None);
    }
}

/// The glyphs with extra `spacing` as one path from the origin, and their length. A glyph that the font lacks is drawn as `?`.
fn outline(face: &Face, text: &str, size: f32, spacing: f32) -> (Option<Path>, f32) {
    let scale = size / f32::from(face.units_per_em());
    let mut pen = Pen { path: PathBuilder::new(), scale, x: 0.0 };
    for character in text.chars() {
        let Some(glyph) = face.glyph_index(character).or_else(|| face.glyph_index('?')) else { continue };
        face.outline_glyph(glyph, &mut pen);
        pen.x += f32::from(face.glyph_hor_advance(glyph).unwrap_or_default()) * scale + spacing;
    }
    (pen.path.finish(), pen.x)
}

/// Font units, y up, to pixels, y down.
struct Pen {
    path: PathBuilder,
    scale: f32,
    x: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, -y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
