//! The PNG shows what the SVG says.

use moelab::lab::figure::{Anchor, Color, Figure, Mark};
use moelab::lab::plot::LossPlot;
use moelab_native::raster::raster;

fn png(figure: Figure) -> Vec<u8> {
    let mut raster = raster(figure);
    std::iter::repeat_with(|| raster.proceed().expect("it can be drawn")).flatten().next().expect("it ends")
}

/// A decoded picture, in pixels of the figure.
fn drawn(marks: Vec<Mark>) -> impl Fn(f64, f64) -> [u8; 3] {
    drawn_to(40.0, marks)
}

/// The same of a figure of this height.
fn drawn_to(height: f64, marks: Vec<Mark>) -> impl Fn(f64, f64) -> [u8; 3] {
    let figure = Figure { width: 100.0, height, description: String::new(), marks };
    let picture = resvg::tiny_skia::Pixmap::decode_png(&png(figure)).expect("it is a PNG");
    assert_eq!((picture.width(), f64::from(picture.height())), (200, 2.0 * height));
    move |x, y| {
        let pixel = picture.pixel((2.0 * x) as u32, (2.0 * y) as u32).expect("on the page");
        [pixel.red(), pixel.green(), pixel.blue()]
    }
}

const BLUE: [u8; 3] = [0x00, 0x72, 0xb2];
const WHITE: [u8; 3] = [255; 3];

#[test]
fn marks_are_where_they_should_be() {
    let line =
        Mark::Line { points: vec![[10.0, 20.0], [90.0, 20.0]], color: Color::BLUE, width: 4.0, dash: Some([20.0, 20.0]), opacity: 1.0 };
    let at = drawn(vec![line.clone()]);
    assert_eq!([at(15.0, 20.0), at(40.0, 20.0), at(60.0, 20.0), at(15.0, 25.0)], [BLUE, WHITE, BLUE, WHITE]);
    let faint = Mark::Line { points: vec![[10.0, 20.0], [90.0, 20.0]], color: Color(0), width: 4.0, dash: None, opacity: 0.5 };
    assert!((126..=129).contains(&drawn(vec![faint])(50.0, 20.0)[0]));
    let dot = Mark::Dot { at: [50.0, 20.0], radius: 5.0, color: Color::VERMILION };
    let at = drawn(vec![line, dot]);
    assert_eq!(at(50.0, 20.0), [0xd5, 0x5e, 0x00]);
}

#[test]
fn a_tall_picture_has_no_seams() {
    let line = Mark::Line { points: vec![[10.0, 2.0], [10.0, 298.0]], color: Color::BLUE, width: 4.0, dash: None, opacity: 1.0 };
    let at = drawn_to(300.0, vec![line]);
    assert!((8..592).all(|row| at(10.0, f64::from(row) / 2.0) == BLUE), "a line from top to bottom");
    assert_eq!([at(10.0, 0.0), at(10.0, 299.0), at(20.0, 150.0)], [WHITE; 3]);
    // Across the row between two strips as elsewhere.
    let drawn_at = |middle: f64| {
        let line = Mark::Line {
            points: vec![[5.0, middle - 15.0], [95.0, middle + 15.0]],
            color: Color::BLUE,
            width: 3.0,
            dash: None,
            opacity: 0.5,
        };
        let text = Mark::Text { at: [20.0, middle], text: "text".into(), size: 20.0, color: Color(0), anchor: Anchor::Start, bold: true };
        drawn_to(300.0, vec![Mark::Dot { at: [50.0, middle], radius: 20.0, color: Color::VERMILION }, line, text])
    };
    // Edges of curves may be rounded otherwise, by less than a row more or less would change them.
    let (across, elsewhere) = (drawn_at(128.0), drawn_at(64.0));
    let places = (0..200).flat_map(|x| (-50..50).map(move |y| [f64::from(x), f64::from(y)].map(|place| place / 2.0)));
    let differ = |[x, y]: [f64; 2]| across(x, 128.0 + y).iter().zip(elsewhere(x, 64.0 + y)).any(|(a, b)| a.abs_diff(b) > 48);
    assert_eq!(places.clone().filter(|place| differ(*place)).count(), 0);
    assert!(places.filter(|&[x, y]| across(x, 128.0 + y) != WHITE).count() > 5000);
}

#[test]
fn text_is_anchored_and_has_letters() {
    let ink = |anchor, text: &str| {
        let mark = Mark::Text { at: [50.0, 28.0], text: text.into(), size: 16.0, color: Color(0), anchor, bold: false };
        let at = drawn(vec![mark]);
        let dark = |from: usize, to: usize| (from * 2..to * 2).flat_map(|x| (0..80).map(move |y| (x, y)));
        let count = |from, to| dark(from, to).filter(|&(x, y)| at(x as f64 / 2.0, y as f64 / 2.0)[0] < 128).count();
        [count(0, 50), count(50, 100)]
    };
    let [left, right] = ink(Anchor::Start, "mmm");
    assert!(left == 0 && right > 100, "{left} {right}");
    let [left, right] = ink(Anchor::End, "mmm");
    assert!(left > 100 && right == 0, "{left} {right}");
    let [left, right] = ink(Anchor::Middle, "mmm");
    assert!(left > 50 && right > 50, "{left} {right}");
    assert_ne!(ink(Anchor::Start, "iii"), ink(Anchor::Start, "mmm"));
    let [_, lacking] = ink(Anchor::Start, "\u{4e2d}");
    assert!(lacking > 0, "what the font lacks is shown as such");
}

#[test]
fn a_plot_becomes_the_same_picture_twice() {
    let plot = LossPlot { title: "run".into(), train: vec![[1.0, 4.0].into(), [2.0, 3.0].into()], ..LossPlot::default() };
    let first = png(plot.figure());
    assert_eq!(first, png(plot.figure()));
    let other = LossPlot { train: vec![[1.0, 4.0].into(), [2.0, 3.5].into()], ..plot };
    assert_ne!(first, png(other.figure()));
}
