//! Repeats are added where they are needed, the plan depends on results alone, and verdicts stay right however often one looks.
//!
//! The large simulations are ignored by default; they print the tables of false verdicts and of power:
//!
//! ```text
//! cargo test --release --test lab repeats:: -- --ignored --nocapture
//! ```

use moelab::lab::repeats::{FIRST_ROUND, GIVE_UP, Policy, Repeats, State, Step, Wanted, next};
use moelab::lab::statistics::sequential::SequentialT;
use moelab::lab::statistics::{Moments, t_quantile};
use moelab::lab::verdict::{Arm, Comparison, Spec, Verdict, judge};
use moelab::random::Stream;

/// The noise of simulated runs, in units of its standard deviation (of its scale, for t3).
#[derive(Clone, Copy, Debug)]
enum Noise {
    Normal,
    /// Student's t with three degrees of freedom: heavy tails.
    T3,
    /// The runs of arms are exponential, shifted to mean 0, as if they sometimes nearly diverged; those of the control are normal.
    Skewed,
}

/// Simulated suites: the value of a run is a function of suite, arm and seed, as that of a real run is.
struct World {
    suite: u32,
    noise: Noise,
    /// The effect of each arm, in standard deviations of a pair's difference.
    effects: Vec<f64>,
    /// Whether a run fails.
    fails: fn(Wanted) -> bool,
}

impl World {
    fn null(suite: u32, arms: usize) -> World {
        World { suite, noise: Noise::Normal, effects: vec![0.0; arms], fails: |_| false }
    }

    fn run(&self, wanted: Wanted) -> Option<f64> {
        if (self.fails)(wanted) {
            return None;
        }
        let arm = wanted.arm.map_or(0, |arm| arm as u32 + 1);
        let stream = |stream| Stream { seed: u64::from(self.suite) << 16 | wanted.seed, step: arm, stream };
        let normal = |index| f64::from(stream(index).normal(0));
        let scale = match self.noise {
            Noise::Normal | Noise::Skewed => 1.0,
            Noise::T3 => (3.0 / (1..4).map(|i| normal(i).powi(2)).sum::<f64>()).sqrt(),
        };
        // The difference of two such values has standard deviation 1.
        let own = match (self.noise, wanted.arm) {
            (Noise::Skewed, Some(_)) => -1.0 - f64::from(1.0 - stream(0).uniform(0)).ln(),
            _ => normal(0) * scale,
        } / 2.0_f64.sqrt();
        Some(wanted.arm.map_or(0.0, |arm| self.effects[arm]) + own)
    }

    fn comparison(&self, margin: f64) -> Comparison {
        let arms = (0..self.effects.len()).map(|index| Arm::new(format!("arm {index}"), [])).collect();
        let spec = Spec { margin, ..Spec::default() };
        Comparison { spec, control: Arm::new("control", []), arms, key: None }
    }

    /// Runs a comparison to its end, a step at a time.
    fn finish(&self, comparison: &mut Comparison, repeats: &Repeats) -> Step {
        loop {
            let step = next(comparison, repeats);
            if step.runs.is_empty() {
                return step;
            }
            step.runs.iter().for_each(|wanted| put(comparison, *wanted, self.run(*wanted)));
        }
    }
}

fn put(comparison: &mut Comparison, wanted: Wanted, value: Option<f64>) {
    let arm = wanted.arm.map_or(&mut comparison.control, |index| &mut comparison.arms[index]);
    assert!(arm.values.insert(wanted.seed, value).is_none(), "{wanted:?} was made twice");
}

fn until_clear(most: u64, budget: Option<usize>) -> Repeats {
    Repeats { policy: Policy::UntilClear, seeds: (100..100 + most).collect(), budget }
}

fn runs(comparison: &Comparison) -> Vec<usize> {
    std::iter::once(&comparison.control).chain(&comparison.arms).map(|arm| arm.values.len()).collect()
}

/// A deterministic shuffle.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let stream = Stream { seed, step: 0, stream: 77 };
    for index in (1..items.len()).rev() {
        items.swap(index, stream.bits(index as u32)[0] as usize % (index + 1));
    }
}

#[test]
fn repeats_go_to_the_arms_that_need_them() {
    let world = World { effects: vec![6.0, 0.0, -1.2, -6.0], ..World::null(3, 4) };
    let mut comparison = world.comparison(0.05);
    let first = next(&comparison, &until_clear(12, None));
    let seeds: Vec<u64> = first.runs.iter().map(|wanted| wanted.seed).collect();
    assert_eq!(seeds, [100; 5].into_iter().chain([101; 5]).chain([102; 5]).collect::<Vec<_>>());
    let last = world.finish(&mut comparison, &until_clear(12, None));
    let made = runs(&comparison);
    assert!(made[1] < 8 && made[4] < 8 && made[1] > FIRST_ROUND, "{made:?}");
    assert_eq!((made[0], made[2]), (12, 12), "{made:?}");
    assert_eq!((last.arms[0], last.arms[1], last.arms[3]), (State::Done, State::OutOfSeeds, State::Done));
    let verdicts: Vec<Verdict> = judge(&comparison).arms.iter().map(|arm| arm.verdict).collect();
    assert_eq!((verdicts[0], verdicts[1], verdicts[3]), (Verdict::Worse, Verdict::NotClear, Verdict::Better));
    // Equivalent arms are settled too.
    let mut wide = world.comparison(8.0);
    world.finish(&mut wide, &until_clear(12, None));
    assert!(runs(&wide).iter().all(|n| *n < 12), "{:?}", runs(&wide));
}

#[test]
fn a_fixed_number_of_repeats_is_the_same_for_all() {
    let world = World::null(1, 2);
    let mut comparison = world.comparison(0.1);
    let repeats = Repeats { policy: Policy::Fixed(5), ..until_clear(8, None) };
    assert_eq!(next(&comparison, &repeats).runs.len(), 15);
    assert_eq!(world.finish(&mut comparison, &repeats).arms, [State::Done; 2]);
    assert_eq!(runs(&comparison), [5, 5, 5]);
    let alone = World::null(1, 0);
    let mut comparison = alone.comparison(0.1);
    alone.finish(&mut comparison, &Repeats { budget: Some(4), ..repeats });
    assert_eq!(runs(&comparison), [4]);
}

/// However the runs of a step are ordered, cut off and resumed, the same runs are made: with one worker, with several, after a crash.
#[test]
fn the_plan_depends_on_results_alone() {
    for suite in 0..12 {
        let fails: fn(Wanted) -> bool =
            |wanted| Stream { seed: wanted.seed, step: wanted.arm.map_or(9, |a| a as u32), stream: 5 }.uniform(0) < 0.1;
        let effects = vec![0.0, 1.0, 3.0, 0.3, 2.0];
        let world = World { effects, fails, ..World::null(suite, 5) };
        let repeats = until_clear(9, Some(30 + suite as usize));
        let mut whole = world.comparison(0.8);
        let last = world.finish(&mut whole, &repeats);
        assert!(runs(&whole).iter().sum::<usize>() <= 30 + suite as usize);
        for order in 0..3 {
            let mut parts = world.comparison(0.8);
            for turn in 0.. {
                let mut step = next(&parts, &repeats);
                if step.runs.is_empty() {
                    assert_eq!(step, last);
                    break;
                }
                shuffle(&mut step.runs, order * 1000 + turn);
                let done = 1 + turn as usize % 3;
                step.runs.iter().take(done).for_each(|wanted| put(&mut parts, *wanted, world.run(*wanted)));
            }
            assert_eq!(parts, whole, "suite {suite}, order {order}");
        }
    }
}

#[test]
fn a_short_budget_goes_to_the_arms_nearest_to_a_verdict() {
    // After three pairs, the noise of arm 1 is a hundredth of the others'.
    let world = World { effects: vec![1.5, 100.0, 1.5], ..World::null(8, 3) };
    let mut comparison = world.comparison(1e-3);
    let step = world.finish(&mut comparison, &until_clear(20, Some(14)));
    assert_eq!(runs(&comparison), [4, 3, 4, 3]);
    assert_eq!(step.arms, [State::OutOfBudget, State::Done, State::OutOfBudget]);
    // An odd run is left over rather than spent on a control without a partner.
    let mut comparison = world.comparison(1e-3);
    world.finish(&mut comparison, &until_clear(20, Some(13)));
    assert_eq!(runs(&comparison), [3; 4]);
    let order = next(&comparison, &until_clear(20, None)).runs;
    assert_eq!((order[0].arm, order[1].arm), (None, Some(1)));
}

#[test]
fn failed_runs_are_missing_and_are_not_made_again() {
    let fails: fn(Wanted) -> bool = |wanted| wanted.arm == Some(0) || wanted.arm == Some(1) && wanted.seed % 2 == 0;
    let world = World { effects: vec![0.0, 0.0, 5.0], fails, ..World::null(2, 3) };
    let mut comparison = world.comparison(1e-3);
    let last = world.finish(&mut comparison, &until_clear(10, None));
    assert_eq!(last.arms, [State::GivenUp, State::OutOfSeeds, State::Done]);
    let made = runs(&comparison);
    assert_eq!((made[1], made[2]), (GIVE_UP, 10));
    assert_eq!(judge(&comparison).arms[1].pairs.len(), 5);
    // Without a control, nothing can be compared.
    let world = World { fails: |wanted| wanted.arm.is_none(), ..World::null(2, 2) };
    let mut comparison = world.comparison(1e-3);
    assert_eq!(world.finish(&mut comparison, &until_clear(10, None)).arms, [State::GivenUp; 2]);
    assert_eq!(runs(&comparison), [3; 3]);
}

#[test]
fn copies_of_the_control_are_not_repeated() {
    let world = World::null(2, 1);
    let mut comparison = world.comparison(1e-3);
    for seed in 100..103 {
        comparison.control.values.insert(seed, Some(5.0));
        comparison.arms[0].values.insert(seed, Some(5.0));
        comparison.control.weights.insert(seed, "same".into());
        comparison.arms[0].weights.insert(seed, "same".into());
    }
    assert_eq!(next(&comparison, &until_clear(10, None)), Step { runs: vec![], arms: vec![State::Done] });
}

/// Whether the interval of an arm excludes 0, and whether it is inside the margin. A judgement says the same, and takes longer because it
/// forecasts the repeats that are needed.
fn stated(comparison: &Comparison, arm: &Arm) -> [bool; 2] {
    let Spec { alpha, effect, margin, .. } = comparison.spec;
    let test = SequentialT { alpha: alpha / comparison.arms.len() as f64, effect };
    let difference = |(seed, value): (&u64, &Option<f64>)| Some((*value)? - (*comparison.control.values.get(seed)?)?);
    let moments = Moments::of(arm.values.iter().filter_map(difference));
    let Some([low, high]) = test.interval(&moments) else { return [false; 2] };
    [low > 0.0 || high < 0.0, -margin < low && high < margin]
}

/// The result of many simulated suites.
struct Simulated {
    /// The fraction of suites in which any arm is called clear, and in which any is called equivalent.
    suites: [f64; 2],
    /// The fraction of arms that are called clear.
    clear: f64,
    /// Mean number of pairs of an arm.
    pairs: f64,
}

/// Whether a difference is claimed.
fn is_clear(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Better | Verdict::Worse | Verdict::BetterAndEquivalent | Verdict::WorseAndEquivalent)
}

fn simulate(suites: u32, noise: Noise, effects: &[f64], margin: f64, most: u64) -> Simulated {
    let (mut any, mut clear, mut pairs) = ([0; 2], 0, 0);
    for suite in 0..suites {
        let world = World { noise, effects: effects.to_vec(), ..World::null(suite, 0) };
        let mut comparison = world.comparison(margin);
        world.finish(&mut comparison, &until_clear(most, None));
        let said: Vec<[bool; 2]> = comparison.arms.iter().map(|arm| stated(&comparison, arm)).collect();
        if suite % 500 == 0 {
            let judged = judge(&comparison).arms;
            assert!(judged.iter().zip(&said).all(|(judged, [clear, _])| is_clear(judged.verdict) == *clear));
        }
        any[0] += u32::from(said.iter().any(|said| said[0]));
        any[1] += u32::from(said.iter().any(|said| said[1]));
        clear += said.iter().filter(|said| said[0]).count();
        pairs += comparison.arms.iter().map(|arm| arm.values.len()).sum::<usize>();
    }
    let arms = f64::from(suites) * effects.len() as f64;
    Simulated { suites: any.map(|n| f64::from(n) / f64::from(suites)), clear: clear as f64 / arms, pairs: pairs as f64 / arms }
}

#[test]
fn null_suites_seldom_give_a_clear_verdict() {
    let wrong = simulate(200, Noise::Normal, &[0.0; 3], 1e-3, 12).suites[0];
    // At most 5 %, plus three standard errors of the simulation.
    assert!(wrong <= 0.05 + 3.0 * (0.05 * 0.95 / 200.0_f64).sqrt(), "{wrong}");
}

#[test]
#[ignore = "10,000 suites a row take minutes in release; run by hand after a change of the method"]
fn ten_thousand_null_suites_give_at_most_five_percent_false_verdicts() {
    println!("| noise | arms | suites with a false \"clear\" | suites with a false \"equivalent\" | mean pairs of an arm |");
    println!("|---|---|---|---|---|");
    for noise in [Noise::Normal, Noise::T3, Noise::Skewed] {
        for arms in [1, 3, 8] {
            // A margin out of reach keeps every arm open for all 20 looks, the worst case for "clear". An effect of exactly the margin makes
            // every "equivalent" wrong.
            let null = simulate(10_000, noise, &vec![0.0; arms], 1e-3, 20);
            let at_margin = simulate(10_000, noise, &vec![1.0; arms], 1.0, 20);
            let [clear, equivalent] = [null.suites[0], at_margin.suites[1]].map(|fraction| fraction * 100.0);
            println!("| {noise:?} | {arms} | {clear:.2} % | {equivalent:.2} % | {:.1} |", null.pairs);
            if matches!(noise, Noise::Normal) {
                assert!(clear <= 5.0 && equivalent <= 5.0);
            }
        }
    }
}

#[test]
#[ignore = "simulates for a minute in release; prints the tables of power"]
fn power_against_a_fixed_number_of_repeats() {
    println!("| arms | effect (sd) | until clear, at most 20: found | mean pairs | fixed 5, t-test: found | fixed 8 | fixed 20 |");
    println!("|---|---|---|---|---|---|---|");
    for arms in [1, 3, 8] {
        for effect in [0.5, 1.0, 2.0, 4.0] {
            let found = simulate(3_000, Noise::Normal, &vec![effect; arms], 1e-3, 20);
            let fixed = [5, 8, 20].map(|n| format!("{:.0} %", 100.0 * found_by_t_test(effect, n, 0.05 / arms as f64, &[n])));
            println!("| {arms} | {effect} | {:.0} % | {:.1} | {} |", 100.0 * found.clear, found.pairs, fixed.join(" | "));
        }
    }
    let looks: Vec<u64> = (2..=20).collect();
    let peeking = found_by_t_test(0.0, 20, 0.05, &looks);
    println!("A t-test at 5 %, looked at after every pair from 2 to 20, finds a difference in {:.1} % of null studies.", 100.0 * peeking);
    assert!((0.24..0.28).contains(&peeking));
}

/// The fraction of studies in which a two-sided t-test finds a difference at one of the `looks`.
fn found_by_t_test(effect: f64, most: u64, alpha: f64, looks: &[u64]) -> f64 {
    let limits: Vec<f64> = (0..=most).map(|n| if n > 1 { t_quantile(1.0 - alpha / 2.0, (n - 1) as f64) } else { f64::NAN }).collect();
    let is_found = |suite: u32| {
        let world = World { effects: vec![effect], ..World::null(suite, 1) };
        let mut moments = Moments::default();
        (1..=most).any(|n| {
            let [arm, control] = [Some(0), None].map(|arm| world.run(Wanted { arm, seed: n }).unwrap());
            moments.push(arm - control);
            looks.contains(&n) && (moments.mean / moments.standard_error().unwrap()).abs() > limits[n as usize]
        })
    };
    (0..10_000).filter(|suite| is_found(*suite)).count() as f64 / 10_000.0
}
