//! A [`Figure`] as PNG: its SVG, rasterised by resvg with the Ubuntu font that egui ships, and encoded in bands of rows.
//!
//! There is one drawing code, so the PNG shows what the SVG says. No font of the system is used, so the same figure results in the
//! same bytes on every machine.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, Write},
    rc::Rc,
    sync::Arc,
};

use moelab::lab::{
    figure::{Color, Figure, Mark},
    host::{Raster, RasterError},
};
use png::{BitDepth, ColorType, Encoder, StreamWriter};
use resvg::{
    tiny_skia::{self, Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

/// Pixels of the image per unit of the figure: sharp on high-density screens and in print.
const SCALE: f32 = 2.0;
/// Stroke width of the letters as a share of the font size: the font has one weight, which is light.
const REGULAR: f64 = 0.012;
/// The same of emphasised text.
const BOLD: f64 = 0.045;
/// Pixels that are encoded at a time: about a millisecond.
const BAND: usize = 1 << 15;

/// Starts to render a figure. The same figure results in the same bytes.
pub fn raster(figure: Figure) -> Box<dyn Raster> {
    Box::new(Drawing::Figure(figure))
}

/// The figure as a PNG file, in one call.
///
/// # Errors
/// A figure that is too large, or a fault of the encoder.
pub fn png(figure: &Figure) -> Result<Vec<u8>, RasterError> {
    let mut raster = raster(figure.clone());
    loop {
        if let Some(file) = raster.proceed()? {
            return Ok(file);
        }
    }
}

/// A figure that is being rendered.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Drawing {
    Figure(Figure),
    /// Its marks, and the white page.
    Parsed(Box<Tree>, Pixmap),
    Encoding(Encoding),
    Finished,
}

struct Encoding {
    page: Pixmap,
    writer: StreamWriter<'static, File>,
    file: File,
    /// Number of pixels that were written.
    pixels: usize,
}

impl Raster for Drawing {
    fn proceed(&mut self) -> Result<Option<Vec<u8>>, RasterError> {
        match self {
            Drawing::Figure(figure) => {
                let [width, height] = [figure.width, figure.height].map(|side| (side as f32 * SCALE).ceil() as u32);
                let mut page = Pixmap::new(width, height).ok_or_else(|| format!("an image of {width} x {height} cannot be created"))?;
                page.fill(tiny_skia::Color::WHITE);
                *self = Drawing::Parsed(Box::new(parse(figure)?), page);
            }
            // resvg cannot be interrupted; the longest part is the curve of a long run.
            Drawing::Parsed(tree, page) => {
                resvg::render(tree, Transform::from_scale(SCALE, SCALE), &mut page.as_mut());
                *self = Drawing::Encoding(Encoding::of(page.clone())?);
            }
            Drawing::Encoding(encoding) => {
                if encoding.write_band()? {
                    return Ok(None);
                }
                if let Drawing::Encoding(Encoding { writer, file, .. }) = std::mem::replace(self, Drawing::Finished) {
                    writer.finish()?;
                    return Ok(Some(file.0.take()));
                }
            }
            Drawing::Finished => return Err("the figure was rendered before".into()),
        }
        Ok(None)
    }
}

/// The SVG of a figure, with its text as outlines.
fn parse(figure: &Figure) -> Result<Tree, RasterError> {
    let mut fonts = Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
    let family = family.ok_or("the built-in font cannot be read")?;
    fonts.set_serif_family(&family);
    let options = Options { font_family: family, fontdb: Arc::new(fonts), style_sheet: Some(weights(figure)), ..Options::default() };
    Ok(Tree::from_str(&figure.to_svg(), &options)?)
}

impl Encoding {
    fn of(page: Pixmap) -> Result<Encoding, RasterError> {
        let file = File::default();
        let mut encoder = Encoder::new(file.clone(), page.width(), page.height());
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        Ok(Encoding { page, writer: encoder.write_header()?.into_stream_writer()?, file, pixels: 0 })
    }

    /// Writes the next pixels; returns whether there are more.
    fn write_band(&mut self) -> Result<bool, RasterError> {
        let pixels = self.page.pixels();
        let end = pixels.len().min(self.pixels + BAND);
        // The page is opaque, so its colours are not multiplied by an opacity.
        let band: Vec<u8> = pixels[self.pixels..end].iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
        self.writer.write_all(&band)?;
        self.pixels = end;
        Ok(end < pixels.len())
    }
}

/// The bytes of the file so far, which the writer does not return.
#[derive(Clone, Default)]
struct File(Rc<RefCell<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A style sheet that strokes the letters in their own colour, more in emphasised text.
fn weights(figure: &Figure) -> String {
    let color = |mark: &Mark| if let Mark::Text { color: Color(rgb), .. } = mark { Some(*rgb) } else { None };
    let colors: BTreeSet<u32> = figure.marks.iter().filter_map(color).collect();
    let strokes: String = colors.iter().map(|rgb| format!("text[fill=\"#{rgb:06x}\"]{{stroke:#{rgb:06x}}}")).collect();
    format!("text{{stroke-width:{REGULAR}em}}text[font-weight=\"600\"]{{stroke-width:{BOLD}em;letter-spacing:0.03em}}{strokes}")
}
