//! The loss plot: sound SVG, every label readable, no spike lost.

use super::runs::mix;
use moelab::lab::figure::{Figure, Mark};
use moelab::lab::plot::{LossPlot, Scale};

fn plot(updates: u32) -> LossPlot {
    let loss = |update: u32| 1.3 + 2.8 * (-f64::from(update) / f64::from(updates) * 6.0).exp();
    let noise = |update: u32| (mix(u64::from(update)) >> 11) as f64 * 2f64.powi(-53) * 0.2;
    let points = |every: usize| (1..=updates).step_by(every);
    LossPlot {
        title: "quickstart".into(),
        subtitle: "a test".into(),
        train: points(1).map(|u| [f64::from(u), loss(u) + noise(u)].into()).collect(),
        validation: points(10).map(|u| [f64::from(u), loss(u) + 0.1].into()).collect(),
        baselines: vec![("uniform".into(), 4.1589), ("unigram".into(), 3.3456), ("bigram".into(), 2.0311)],
        entropy: Some(1.2954),
        ..LossPlot::default()
    }
}

fn texts(figure: &Figure) -> Vec<(&str, [f64; 2])> {
    let mut texts = Vec::new();
    for mark in &figure.marks {
        if let Mark::Text { text, at, .. } = mark {
            texts.push((text.as_str(), *at));
        }
    }
    texts
}

/// The text of every element, if the document is well-formed: tags nest, attributes are quoted, no stray character.
fn element_texts(svg: &str) -> Option<Vec<String>> {
    let (mut open, mut texts, mut rest) = (Vec::new(), Vec::new(), svg);
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        if text.contains('>') || open.is_empty() && !text.trim().is_empty() {
            return None;
        }
        texts.push(text.trim().to_string());
        let (inner, after) = tag[1..].split_once('>')?;
        rest = after;
        if let Some(name) = inner.strip_prefix('/') {
            (open.pop()? == name).then_some(())?;
        } else {
            let (name, attributes) = inner.trim_end_matches('/').split_once(' ').unwrap_or((inner, ""));
            (attributes.matches('"').count() % 2 == 0 && !attributes.contains('<')).then_some(())?;
            if !inner.ends_with('/') {
                open.push(name);
            }
        }
    }
    (open.is_empty() && rest.trim().is_empty()).then_some(texts)
}

#[test]
fn a_small_plot_is_drawn_as_ever() {
    let mut small = plot(30);
    small.train.truncate(4);
    small.validation.truncate(2);
    insta::assert_snapshot!(small.figure().to_svg());
}

#[test]
fn the_document_is_well_formed_and_labelled() {
    assert_eq!(element_texts("<a><b x=\"1\"/>t</a>").map(|texts| texts.join("")), Some("t".into()));
    assert!(element_texts("<a><b></a></b>").is_none() && element_texts("<a>").is_none() && element_texts("<a>></a>").is_none());
    let hostile = LossPlot { title: "<script>\"x\"&\u{0}'</script>".into(), subtitle: "]]>".into(), ..plot(400) };
    let texts = element_texts(&hostile.figure().to_svg()).expect("the document is well-formed");
    assert!(texts.contains(&"&lt;script&gt;&quot;x&quot;&amp;\u{fffd}'&lt;/script&gt;".to_string()), "{texts:?}");
    for label in ["uniform 4.159", "unigram 3.346", "bigram 2.031", "entropy of the source 1.295", "update"] {
        assert!(texts.iter().any(|text| text == label), "{label}: {texts:?}");
    }
    let start = |label: &str| texts.iter().filter(|text| text.starts_with(label)).count();
    assert_eq!((start("training 1."), start("validation 1.4")), (1, 1), "{texts:?}");
}

#[test]
fn labels_do_not_overlap_nor_leave_the_page() {
    for (case, value) in [0.0, 1e-9, 1e-3, 0.05, 1.0].into_iter().enumerate() {
        let mut crowded = plot(50);
        crowded.baselines.iter_mut().enumerate().for_each(|(i, level)| level.1 = 1.5 + value * i as f64);
        crowded.entropy = Some(1.5 - value);
        crowded.validation.push([50.0, 1.6].into());
        let figure = crowded.figure();
        let mut places: Vec<f64> = texts(&figure).into_iter().filter(|(_, at)| at[0] > 700.0).map(|(_, at)| at[1]).collect();
        places.sort_by(f64::total_cmp);
        assert_eq!(places.len(), 7, "case {case}: three baselines, entropy, training, validation and its best");
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 15.0), "case {case}: {places:?}");
        assert!(places[0] > 60.0 && places[6] < figure.height, "case {case}: {places:?}");
    }
}

#[test]
fn long_runs_are_thinned_without_losing_a_spike() {
    let mut long = plot(200_000);
    long.train[123_456] = [123_457.0, 50.0].into();
    let figure = long.figure();
    assert!(figure.to_svg().len() < 200_000, "{}", figure.to_svg().len());
    let highest = |figure: &Figure| {
        let points = figure.marks.iter().filter_map(|mark| if let Mark::Line { points, .. } = mark { Some(points) } else { None });
        points.filter(|points| points.len() > 1000).flatten().map(|point| point[1]).fold(f64::INFINITY, f64::min)
    };
    let axis_top = texts(&figure).iter().find(|(text, _)| *text == "50").expect("the axis goes to 50").1[1] - 4.0;
    assert!((highest(&figure) - axis_top).abs() < 0.5, "the spike reaches 50");
}

#[test]
fn values_that_are_not_finite_leave_a_gap() {
    let lines = |plot: &LossPlot| plot.figure().marks.iter().filter(|mark| matches!(mark, Mark::Line { .. })).count();
    let whole = plot(100);
    let mut broken = whole.clone();
    broken.train[40] = [41.0, f64::NAN].into();
    broken.train[70] = [71.0, f64::INFINITY].into();
    assert_eq!(lines(&broken), lines(&whole) + 2);
    broken.skipped = vec![41.0, 71.0];
    assert_eq!(lines(&broken), lines(&whole) + 4);
    assert!(!broken.figure().to_svg().contains("NaN") && !broken.figure().to_svg().contains("inf"));
    broken.train.iter_mut().for_each(|point| *point = [point.update, f64::NAN].into());
    broken.validation.clear();
    broken.baselines.clear();
    broken.entropy = None;
    assert!(!broken.figure().to_svg().contains("NaN"), "not even where nothing is finite");
}

#[test]
fn both_scales_keep_everything_on_the_page() {
    for (x_scale, y_scale) in [(Scale::Log, Scale::Log), (Scale::Linear, Scale::Log), (Scale::Log, Scale::Linear)] {
        let mut scaled = LossPlot { x_scale, y_scale, ..plot(400) };
        scaled.train[5] = [6.0, -1.0].into();
        let figure = scaled.figure();
        let outside = |at: &[f64; 2]| !(0.0..=figure.width).contains(&at[0]) || !(0.0..=figure.height).contains(&at[1]);
        for mark in &figure.marks {
            match mark {
                Mark::Line { points, .. } => assert!(!points.iter().any(outside)),
                Mark::Dot { at, .. } | Mark::Text { at, .. } => assert!(!outside(at)),
                Mark::Segments { .. } | Mark::Area { .. } | Mark::Cells { .. } => panic!("a loss plot has none of these"),
            }
        }
        assert!(texts(&figure).iter().filter(|(text, at)| at[0] < 56.0 && text.parse::<f64>().is_ok()).count() >= 3, "ticks");
    }
}

#[test]
fn a_run_without_data_says_so() {
    let empty = LossPlot { title: "empty".into(), ..LossPlot::default() };
    assert!(texts(&empty.figure()).iter().any(|(text, _)| *text == "no data yet"));
    assert!(element_texts(&empty.figure().to_svg()).is_some());
}
