//! One level of a min/max pyramid: buckets of updates, whose width doubles whenever there are too many.

use std::ops::RangeInclusive;

/// Statistics of a series over some updates; vectors have one value per element of the series.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// The first and the last update in it that have a value.
    pub updates: RangeInclusive<u32>,
    /// Number of updates with a value.
    pub count: u32,
    /// Number of non-finite values. They are excluded from the numbers below.
    pub not_finite: u64,
    /// The minimum; NaN if no value is finite.
    pub min: Vec<f64>,
    /// The maximum.
    pub max: Vec<f64>,
    /// The mean.
    pub mean: Vec<f64>,
}

/// A bucket that is being filled.
#[derive(Clone, Debug)]
struct Slot {
    /// Its first update divided by the width.
    index: u32,
    updates: RangeInclusive<u32>,
    count: u32,
    not_finite: u64,
    /// For each element: minimum, maximum, sum, number of finite values.
    elements: Vec<[f64; 4]>,
}

impl Slot {
    fn add(&mut self, update: u32, values: &[f64]) {
        self.updates = *self.updates.start()..=update;
        self.count += 1;
        for (element, value) in self.elements.iter_mut().zip(values) {
            if value.is_finite() {
                *element = [element[0].min(*value), element[1].max(*value), element[2] + value, element[3] + 1.0];
            } else {
                self.not_finite += 1;
            }
        }
    }

    fn merge(&mut self, other: &Slot) {
        self.updates = *self.updates.start().min(other.updates.start())..=*self.updates.end().max(other.updates.end());
        self.count += other.count;
        self.not_finite += other.not_finite;
        for (own, other) in self.elements.iter_mut().zip(&other.elements) {
            *own = [own[0].min(other[0]), own[1].max(other[1]), own[2] + other[2], own[3] + other[3]];
        }
    }

    fn bucket(&self) -> Bucket {
        let of = |value: fn(&[f64; 4]) -> f64| {
            self.elements.iter().map(|element| if element[3] > 0.0 { value(element) } else { f64::NAN }).collect()
        };
        Bucket {
            updates: self.updates.clone(),
            count: self.count,
            not_finite: self.not_finite,
            min: of(|element| element[0]),
            max: of(|element| element[1]),
            mean: of(|element| element[2] / element[3]),
        }
    }
}

/// At most `limit` buckets of equal width, a power of two, over updates that come in order.
#[derive(Clone, Debug)]
pub(in crate::lab) struct Buckets {
    limit: usize,
    width: u32,
    slots: Vec<Slot>,
}

impl Buckets {
    /// No buckets yet. `limit` is at least 1.
    pub fn new(limit: usize) -> Buckets {
        Buckets { limit: limit.max(1), width: 1, slots: Vec::new() }
    }

    /// Adds the values of an update.
    pub fn add(&mut self, update: u32, values: &[f64]) {
        let index = update / self.width;
        if let Some(last) = self.slots.last_mut().filter(|last| last.index == index) {
            return last.add(update, values);
        }
        let element =
            |value: &f64| if value.is_finite() { [*value, *value, *value, 1.0] } else { [f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0] };
        let not_finite = values.iter().filter(|value| !value.is_finite()).count() as u64;
        let elements = values.iter().map(element).collect();
        self.push(Slot { index, updates: update..=update, count: 1, not_finite, elements });
    }

    fn push(&mut self, slot: Slot) {
        match self.slots.last_mut().filter(|last| last.index == slot.index) {
            Some(last) => last.merge(&slot),
            None => self.slots.push(slot),
        }
        while self.slots.len() > self.limit {
            self.width = self.width.saturating_mul(2);
            for mut slot in std::mem::take(&mut self.slots) {
                slot.index /= 2;
                match self.slots.last_mut().filter(|last| last.index == slot.index) {
                    Some(last) => last.merge(&slot),
                    None => self.slots.push(slot),
                }
            }
        }
    }

    /// Merges to fewer buckets: the next levels of the pyramid.
    pub fn at_most(&self, limit: usize) -> Buckets {
        let mut fewer = Buckets { limit: limit.max(1), width: self.width, slots: Vec::new() };
        for slot in &self.slots {
            let index = *slot.updates.start() / fewer.width;
            fewer.push(Slot { index, ..slot.clone() });
        }
        fewer
    }

    /// Whether every update has its own bucket.
    pub fn is_exact(&self) -> bool {
        self.width == 1
    }

    /// The buckets that start in a range; their content is exact if there is no range or each has one update.
    pub fn within(&self, range: &RangeInclusive<u32>) -> Buckets {
        let slots = self.slots.iter().filter(|slot| range.contains(slot.updates.start())).cloned().collect();
        Buckets { limit: self.limit, width: self.width, slots }
    }

    /// The buckets.
    pub fn finish(&self) -> Vec<Bucket> {
        self.slots.iter().map(Slot::bucket).collect()
    }
}
