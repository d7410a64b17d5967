//! Rows of choices in which every two choices that can stand together do so at least once.
//!
//! Greedy (AETG, Cohen et al. 1997): each row starts from the first pair that no row has yet and whatever these two need; the
//! other axes, in a drawn order, take the value that adds most new pairs; of several such rows the best is kept. A pair counts
//! only where both of its axes apply: a router's bias tells nothing in a model without router. Draws have a fixed seed.
//!
//! Which pairs are refused is found first, each in a row that else has only defaults: the first value of every axis, which
//! are assumed to contradict nothing.

use std::collections::HashMap;

use moelab::random::Stream;

/// One thing that can be chosen.
#[derive(Debug)]
pub struct Axis {
    /// Its key in a config.
    pub key: String,
    /// Its values as TOML, the default first.
    pub values: Vec<String>,
    /// It applies only where each of these earlier axes has one of these values.
    pub needs: Vec<(usize, Vec<usize>)>,
}

/// The number of a value for each axis.
pub type Row = Vec<usize>;
/// An axis and one of its values.
type Pick = (usize, usize);
type Pair = (Pick, Pick);

/// What [`cover`] found.
#[derive(Debug, Default)]
pub struct Cover {
    /// The rows.
    pub rows: Vec<Row>,
    /// Pairs that the rows have.
    pub covered: usize,
    /// Pairs that are refused.
    pub refused: Vec<Pair>,
}

/// Rows that are completed before the best is kept.
const CANDIDATES: u32 = 40;

/// Whether an axis applies in a row that may not be complete.
pub fn applies(axis: &Axis, value_of: impl Fn(usize) -> Option<usize>) -> bool {
    axis.needs.iter().all(|(decider, among)| value_of(*decider).is_some_and(|value| among.contains(&value)))
}

/// How many choices decide one after the other whether an axis applies.
pub fn depth(axes: &[Axis], at: usize) -> usize {
    axes[at].needs.iter().map(|(decider, _)| 1 + depth(axes, *decider)).max().unwrap_or(0)
}

/// Rows over `axes`, all of which `accept` takes.
pub fn cover(axes: &[Axis], mut accept: impl FnMut(&Row) -> bool) -> Cover {
    // Many pairs of a default and something else share their row.
    let mut accepted: HashMap<Row, bool> = HashMap::new();
    let (mut open, refused): (Vec<Pair>, Vec<Pair>) = pairs(axes).into_iter().partition(|&(a, b)| {
        let row = allowed(axes, &[a, b]).expect("the pair can stand together").iter().map(|values| values[0]).collect();
        *accepted.entry(row).or_insert_with_key(&mut accept)
    });
    let mut cover = Cover { covered: open.len(), refused, ..Cover::default() };
    let mut known = Known::new(axes);
    known.mark(&cover.refused, State::Refused);
    known.mark(&open, State::Open);
    while let Some(&(a, b)) = open.first() {
        let stream = |candidate| Stream { seed: 1, step: cover.rows.len() as u32, stream: candidate };
        let rows = (0..CANDIDATES).map(|candidate| known.complete(&[a, b], stream(candidate)));
        let mut rows: Vec<(usize, Row)> = rows.map(|row| (open.iter().filter(|pair| has(axes, &row, **pair)).count(), row)).collect();
        rows.sort_by_key(|(new, _)| std::cmp::Reverse(*new));
        let row = rows.into_iter().map(|(_, row)| row).find(&mut accept).expect("what is refused is refused in pairs");
        let (had, left): (Vec<Pair>, Vec<Pair>) = open.into_iter().partition(|pair| has(axes, &row, *pair));
        known.mark(&had, State::Had);
        open = left;
        cover.rows.push(row);
    }
    cover
}

/// Whether both picks of a pair apply in a row.
fn has(axes: &[Axis], row: &Row, (a, b): Pair) -> bool {
    [a, b].iter().all(|&(axis, value)| row[axis] == value && applies(&axes[axis], |at| Some(row[at])))
}

/// All pairs of values whose needs do not exclude each other.
fn pairs(axes: &[Axis]) -> Vec<Pair> {
    let picks: Vec<Pick> = (0..axes.len()).flat_map(|axis| (0..axes[axis].values.len()).map(move |value| (axis, value))).collect();
    let both = picks.iter().flat_map(|&a| picks.iter().map(move |&b| (a, b))).filter(|(a, b)| a.0 < b.0);
    both.filter(|&(a, b)| allowed(axes, &[a, b]).is_some()).collect()
}

/// The values that each axis may have beside these picks, so that they apply; `None` if they exclude each other.
fn allowed(axes: &[Axis], picks: &[Pick]) -> Option<Vec<Vec<usize>>> {
    let mut allowed: Vec<Vec<usize>> = axes.iter().map(|axis| (0..axis.values.len()).collect()).collect();
    let mut wanted: Vec<usize> = picks.iter().map(|(axis, _)| *axis).collect();
    picks.iter().for_each(|&(axis, value)| allowed[axis] = vec![value]);
    while let Some(axis) = wanted.pop() {
        for (decider, among) in &axes[axis].needs {
            allowed[*decider].retain(|value| among.contains(value));
            wanted.push(*decider);
        }
    }
    allowed.iter().all(|values| !values.is_empty()).then_some(allowed)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// In no row so far.
    Open,
    /// In a row, or in none that there can be.
    Had,
    Refused,
}

/// What is known of every pair.
struct Known<'a> {
    axes: &'a [Axis],
    depths: Vec<usize>,
    /// Number of the first pick of each axis.
    first: Vec<usize>,
    /// Of two picks, the earlier axis's first.
    states: Vec<Vec<State>>,
}

impl<'a> Known<'a> {
    fn new(axes: &'a [Axis]) -> Self {
        let before = |axis: usize| axes[..axis].iter().map(|axis| axis.values.len()).sum();
        let all: usize = before(axes.len());
        Known {
            axes,
            depths: (0..axes.len()).map(|axis| depth(axes, axis)).collect(),
            first: (0..axes.len()).map(before).collect(),
            states: vec![vec![State::Had; all]; all],
        }
    }

    fn number(&self, (axis, value): Pick) -> usize {
        self.first[axis] + value
    }

    fn mark(&mut self, pairs: &[Pair], state: State) {
        for &(a, b) in pairs {
            let (a, b) = (self.number(a), self.number(b));
            self.states[a][b] = state;
        }
    }

    /// A whole row with these picks.
    fn complete(&self, picks: &[Pick], draws: Stream) -> Row {
        let allowed = allowed(self.axes, picks).expect("the pair can stand together");
        let mut row: Vec<Option<usize>> = vec![None; self.axes.len()];
        picks.iter().for_each(|&(axis, value)| row[axis] = Some(value));
        let draws: Vec<[u32; 4]> = (0..row.len()).map(|axis| draws.bits(axis as u32)).collect();
        let mut order: Vec<usize> = (0..row.len()).filter(|axis| row[*axis].is_none()).collect();
        order.sort_by_key(|&axis| (self.depths[axis], draws[axis][0]));
        for axis in order {
            let value = if applies(&self.axes[axis], |at| row[at]) {
                let (values, turn) = (&allowed[axis], draws[axis][1] as usize);
                let turned = (0..values.len()).map(|at| values[(at + turn) % values.len()]);
                turned.max_by_key(|&value| self.gain(&row, (axis, value)))
            } else {
                Some(0)
            };
            row[axis] = value;
        }
        row.into_iter().map(|value| value.expect("every axis got one")).collect()
    }

    /// New pairs that a pick makes with what a row has, -1 if one of its pairs is refused.
    fn gain(&self, row: &[Option<usize>], pick: Pick) -> i32 {
        let mut new = 0;
        for (axis, value) in row.iter().enumerate() {
            let Some(value) = *value else { continue };
            let (one, two) = (self.number(pick.min((axis, value))), self.number(pick.max((axis, value))));
            match self.states[one][two] {
                State::Refused => return -1,
                State::Open => new += 1,
                State::Had => {}
            }
        }
        new
    }
}

#[test]
fn every_pair_that_can_be_is_in_a_row() {
    let axis = |values: usize, needs: &[(usize, &[usize])]| {
        let needs = needs.iter().map(|(decider, among)| (*decider, among.to_vec())).collect();
        Axis { key: String::new(), values: (0..values).map(|value| value.to_string()).collect(), needs }
    };
    // The fourth axis applies only where the first is 1 or 2; a 1 and a 2 of the second and third are refused.
    let axes = [axis(3, &[]), axis(3, &[]), axis(4, &[]), axis(2, &[(0, &[1, 2])]), axis(2, &[(3, &[1])])];
    let cover = cover(&axes, |row| !(row[1] == 1 && row[2] == 2));
    let all = pairs(&axes);
    let missing: Vec<Pair> = all.iter().copied().filter(|pair| !cover.rows.iter().any(|row| has(&axes, row, *pair))).collect();
    assert_eq!(missing, [((1, 1), (2, 2))]);
    assert_eq!((&cover.refused, cover.covered + 1), (&missing, all.len()));
    assert!((12..=16).contains(&cover.rows.len()), "{cover:?}");
    assert!(!all.contains(&((0, 0), (3, 1))) && !all.contains(&((3, 0), (4, 1))), "an axis that does not apply makes no pair");
}
