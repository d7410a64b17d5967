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
    vec::IntoIter,
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
/// Marks that are read at a time: most of it is the layout of their text.
const MARKS: usize = 8;
/// Rows that are rendered at a time: each strip costs a look at every mark.
const STRIP: u32 = 256;
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

/// A figure that is being rendered, in slices, because usvg and resvg cannot be interrupted.
enum Drawing {
    Figure(Figure),
    Reading(Reading),
    Encoding(Encoding),
    Finished,
}

/// Marks that become outlines.
struct Reading {
    page: [u32; 2],
    options: Options<'static>,
    documents: IntoIter<String>,
    layers: Vec<Tree>,
}

/// Outlines that become pixels, and pixels that become a file.
struct Encoding {
    layers: Vec<Tree>,
    /// Rows of the image.
    height: u32,
    /// The rows that are being written, and the first of them.
    strip: Pixmap,
    top: u32,
    /// Number of their pixels that were written.
    pixels: usize,
    writer: StreamWriter<'static, File>,
    file: File,
}

impl Raster for Drawing {
    fn proceed(&mut self) -> Result<Option<Vec<u8>>, RasterError> {
        let (next, file) = match std::mem::replace(self, Drawing::Finished) {
            Drawing::Figure(figure) => (Drawing::Reading(Reading::of(&figure)?), None),
            Drawing::Reading(mut reading) => match reading.documents.next() {
                Some(document) => {
                    reading.layers.push(Tree::from_str(&document, &reading.options)?);
                    (Drawing::Reading(reading), None)
                }
                None => (Drawing::Encoding(Encoding::of(reading)?), None),
            },
            Drawing::Encoding(mut encoding) => match encoding.proceed()? {
                true => (Drawing::Encoding(encoding), None),
                false => (Drawing::Finished, Some(encoding.finish()?)),
            },
            Drawing::Finished => return Err("the figure was rendered before".into()),
        };
        *self = next;
        Ok(file)
    }
}

impl Reading {
    fn of(figure: &Figure) -> Result<Reading, RasterError> {
        let mut fonts = Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        let family = fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
        let family = family.ok_or("the built-in font cannot be read")?;
        fonts.set_serif_family(&family);
        let options = Options { font_family: family, fontdb: Arc::new(fonts), style_sheet: Some(weights(figure)), ..Options::default() };
        let page = [figure.width, figure.height].map(|side| (side as f32 * SCALE).ceil() as u32);
        let documents = figure.layers(MARKS).collect::<Vec<_>>().into_iter();
        Ok(Reading { page, options, documents, layers: Vec::new() })
    }
}

impl Encoding {
    fn of(Reading { page: [width, height], layers, .. }: Reading) -> Result<Encoding, RasterError> {
        let strip = Pixmap::new(width, height.min(STRIP)).ok_or_else(|| format!("an image of {width} x {height} cannot be created"))?;
        let file = File::default();
        let mut encoder = Encoder::new(file.clone(), width, height);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        let writer = encoder.write_header()?.into_stream_writer()?;
        let mut encoding = Encoding { layers, height, strip, top: 0, pixels: 0, writer, file };
        encoding.render();
        Ok(encoding)
    }

    /// Renders the rows from `top` on a white page.
    fn render(&mut self) {
        self.strip.fill(tiny_skia::Color::WHITE);
        let transform = Transform::from_scale(SCALE, SCALE).post_translate(0.0, -(self.top as f32));
        for layer in &self.layers {
            resvg::render(layer, transform, &mut self.strip.as_mut());
        }
        self.pixels = 0;
    }

    /// Writes the next pixels, or renders the next rows; returns whether there is more to do.
    fn proceed(&mut self) -> Result<bool, RasterError> {
        let rows = self.strip.height().min(self.height - self.top);
        let pixels = &self.strip.pixels()[..(rows * self.strip.width()) as usize];
        if self.pixels < pixels.len() {
            let end = pixels.len().min(self.pixels + BAND);
            // The page is opaque, so its colours are not multiplied by an opacity.
            let band: Vec<u8> = pixels[self.pixels..end].iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
            self.writer.write_all(&band)?;
            self.pixels = end;
        } else if self.top + rows < self.height {
            self.top += rows;
            self.render();
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn finish(self) -> Result<Vec<u8>, RasterError> {
        self.writer.finish()?;
        Ok(self.file.0.take())
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
