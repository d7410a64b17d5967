//! Charts of a study: what they draw, where labels go, and that the numbers in them are those of their input.

use moelab::lab::{
    chart::{
        curves::{ArmCurves, Curves, Moment},
        heat::{self, HeatMaps},
        intervals::{ArmInterval, Intervals},
        rates::{Rate, Rates},
    },
    figure::{Figure, Mark},
    reader::{Block, Bucket},
};

use super::runs::mix;

/// Noise in 0..1, the same in every test run.
fn noise(key: u64) -> f64 {
    (mix(key) >> 11) as f64 * 2f64.powi(-53)
}

fn arm(name: &str, index: usize, seeds: u64, offset: f64) -> ArmCurves {
    let value =
        |seed: u64, update: f64| 1.3 + offset + 2.8 * (-update / 60.0).exp() + 0.03 * noise(seed * 1000 + update as u64 + 7 * index as u64);
    let seed = |seed| (0..=20).map(|i| 20.0 * f64::from(i)).map(|update| [update, value(seed, update)]).collect();
    ArmCurves { name: name.into(), index, seeds: (0..seeds).map(seed).collect() }
}

pub fn curves() -> Curves {
    let mut stopped = arm("constant_lr", 2, 3, 0.12);
    stopped.seeds[2].truncate(9);
    Curves {
        title: "Does a lower balance weight help?".into(),
        subtitle: "line: mean over seeds; band: lowest to highest seed".into(),
        y_title: "validation cross-entropy, nats per token".into(),
        x_title: "update".into(),
        arms: vec![
            arm("baseline", 0, 3, 0.0),
            arm("no_lb", 1, 3, 0.01),
            stopped,
            arm("a_name_that_is_far_too_long_for_the_margin_of_a_chart", 3, 1, 0.3),
        ],
        levels: vec![
            ("uniform".into(), 4.159),
            ("unigram".into(), 3.346),
            ("bigram".into(), 2.031),
            ("entropy of the source".into(), 1.295),
        ],
        epochs: vec![106.0, 212.0, 318.0],
        stages: vec![Moment { at: 80.0, text: "screen".into() }],
        decisions: vec![
            Moment { at: 80.0, text: "constant_lr-s3 stopped: no gain above 0.02 over 3 evaluations".into() },
            Moment { at: 80.0, text: "no_lb promoted: 0.051 better at the same update".into() },
        ],
        schedule: (0..=400).map(f64::from).map(|u| [u, (u / 20.0).min(0.55 + 0.45 * (u / 400.0 * std::f64::consts::PI).cos())]).collect(),
        ..Curves::default()
    }
}

pub fn intervals() -> Intervals {
    let arm = |name: &str, index, pairs: &[f64], interval, verdict: &str| ArmInterval {
        name: name.into(),
        index,
        mean: (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64),
        pairs: pairs.to_vec(),
        interval,
        verdict: verdict.into(),
    };
    Intervals {
        title: "Difference of each arm to baseline".into(),
        subtitle: "mean and interval at alpha 0.05 / 4, valid however often one looks; ticks below: each pair".into(),
        x_title: "difference of the final validation cross-entropy, nats per token (left is better)".into(),
        margin: 0.02,
        arms: vec![
            arm("no_lb", 1, &[-0.051, -0.048, -0.055, -0.05], Some([-0.064, -0.038]), "clear: better"),
            arm("constant_lr", 2, &[0.004, -0.003, 0.001, 0.002, 0.0], Some([-0.012, 0.014]), "equivalent within 0.02"),
            arm("higher_dropout", 3, &[0.03, 0.06, 0.11, 0.02], Some([-0.6, 0.71]), "not clear"),
            arm("short_run", 4, &[0.09, 0.085], None, "nothing can be said"),
            arm("failed", 5, &[], None, "nothing can be said"),
        ],
    }
}

/// The loads of a run whose first expert dies and whose last one takes over.
pub fn block(layers: usize, experts: usize, columns: u32) -> Block {
    let bucket = |column: u32| {
        let time = f64::from(column) / f64::from(columns);
        let mut shares = Vec::new();
        for layer in 0..layers {
            let dies = |expert: usize| if expert == 0 { (1.0 - 1.3 * time * (1.0 + layer as f64)).max(0.0) } else { 1.0 };
            let raw: Vec<f64> = (0..experts)
                .map(|e| {
                    dies(e) * (0.7 + 0.6 * noise((column as usize * 97 + layer * 31 + e) as u64))
                        + if e + 1 == experts { 2.0 * time } else { 0.0 }
                })
                .collect();
            let sum: f64 = raw.iter().sum();
            shares.extend(raw.iter().map(|value| value / sum));
        }
        Bucket {
            updates: column * 10 + 1..=column * 10 + 10,
            min: shares.clone(),
            mean: shares.clone(),
            max: shares,
            count: 10,
            not_finite: 0,
        }
    };
    Block { shape: vec![layers, experts], buckets: (0..columns).map(bucket).collect() }
}

pub fn rates() -> Rates {
    let cosine = |u: f64| 0.01 * (u / 20.0).min(0.55 + 0.45 * (u / 400.0 * std::f64::consts::PI).cos());
    let every = |rate: &dyn Fn(f64) -> f64| (0..=400).map(f64::from).map(|u| [u, rate(u)]).collect::<Vec<_>>();
    Rates {
        title: "Learning rate".into(),
        subtitle: "dashed: as planned; solid: as applied".into(),
        y_title: "learning rate of Muon".into(),
        rates: vec![
            Rate { name: "baseline, no_lb".into(), index: 0, planned: every(&cosine), applied: every(&cosine) },
            Rate {
                name: "constant_lr".into(),
                index: 2,
                planned: every(&|_| 0.01),
                applied: every(&|u| if u < 300.0 { 0.01 } else { 0.008 }),
            },
        ],
        epochs: vec![106.0, 212.0, 318.0],
    }
}

fn texts(figure: &Figure) -> Vec<(&str, [f64; 2])> {
    let mut found = Vec::new();
    for mark in &figure.marks {
        if let Mark::Text { text, at, .. } = mark {
            found.push((text.as_str(), *at));
        }
    }
    found
}

fn names(layers: usize) -> Vec<String> {
    (0..layers).map(|layer| format!("layer {layer}")).collect()
}

fn heat_maps() -> HeatMaps {
    HeatMaps::new("Load of experts: baseline-s1", "each cell: mean load over 10 updates", names(3), &block(3, 8, 40))
        .expect("it has experts")
}

#[test]
fn curves_are_drawn_as_ever() {
    insta::assert_snapshot!(curves().figure().to_svg());
}

#[test]
fn the_end_of_curves_is_drawn_as_ever() {
    insta::assert_snapshot!(Curves { window: Some([200.0, 400.0]), ..curves() }.figure().to_svg());
}

#[test]
fn intervals_are_drawn_as_ever() {
    insta::assert_snapshot!(intervals().figure().to_svg());
}

#[test]
fn heat_maps_are_drawn_as_ever() {
    insta::assert_snapshot!(heat_maps().figure().to_svg());
}

#[test]
fn rates_are_drawn_as_ever() {
    insta::assert_snapshot!(rates().figure().to_svg());
}

#[test]
fn a_mean_exists_only_where_every_seed_was_measured() {
    let arm = ArmCurves {
        seeds: vec![vec![[10.0, 2.0], [20.0, 1.0], [30.0, 1.5]], vec![[10.0, 4.0], [20.0, f64::NAN]], vec![[10.0, 3.0], [20.0, 2.0]]],
        ..ArmCurves::default()
    };
    assert_eq!(arm.band(), [[10.0, 3.0, 2.0, 4.0]]);
}

#[test]
fn the_colours_of_loads_are_fixed_and_centred_on_the_fair_share() {
    assert_eq!([0.0, 1.0, 2.0, 7.0].map(|load| heat::color(load).0), [0x005496, 0xfafaf8, 0xcd5800, 0xcd5800]);
    let bucket = Bucket { updates: 1..=1, min: vec![], mean: vec![0.0, 0.2, 0.25, 0.55], max: vec![], count: 1, not_finite: 0 };
    let maps = HeatMaps::new("", "", names(1), &Block { shape: vec![1, 4], buckets: vec![bucket] }).expect("it has experts");
    let (mut colors, mut lines) = (Vec::new(), Vec::new());
    for mark in maps.figure().marks {
        match mark {
            Mark::Cells { cells, color } if cells.iter().all(|cell| cell[1] < 180.0) => colors.push(color),
            Mark::Segments { ends, .. } if ends.iter().all(|[from, _]| from[1] < 180.0) => lines.push(ends.len()),
            _ => {}
        }
    }
    let mut expected = [0.0, 0.8, 1.0, 2.2].map(heat::color);
    expected.sort_by_key(|color| color.0);
    assert_eq!(colors, expected, "multiples of the fair share");
    assert_eq!(lines, [1, 2], "the load beyond 2 is hatched, the dead expert is crossed");
    let widths = maps.figure().marks.into_iter().filter_map(|mark| match mark {
        Mark::Segments { ends, .. } => Some(ends.into_iter().map(|[from, to]| (to[0] - from[0]).abs()).fold(0.0, f64::max)),
        _ => None,
    });
    assert!(widths.fold(0.0, f64::max) < 60.0, "a sign does not stretch over a wide cell");
}

#[test]
fn a_map_of_a_large_model_is_a_small_file() {
    let maps = HeatMaps::new("large", "", names(24), &block(24, 64, 60)).expect("it has experts");
    let size = maps.figure().to_svg().len();
    assert!(size < 2_500_000, "{size}");
}

#[test]
fn labels_of_many_arms_do_not_overlap() {
    let mut crowded = curves();
    crowded.arms = (0..24).map(|i| arm(&format!("arm {i} with a name that is long"), i as usize, 2, 0.0001 * f64::from(i))).collect();
    let figure = crowded.figure();
    let mut places: Vec<f64> = texts(&figure).iter().filter(|(_, at)| at[0] > 650.0 && at[1] > 90.0).map(|(_, at)| at[1]).collect();
    places.sort_by(f64::total_cmp);
    assert!(places.len() > 26, "{places:?}");
    assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 15.0), "{places:?}");
    assert!(places.iter().all(|place| *place < figure.height - 10.0), "{places:?} {}", figure.height);
}
