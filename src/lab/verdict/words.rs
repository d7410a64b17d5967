//! Verdicts as sentences. Command line, report and app print these.

use super::{ArmJudgement, Band, Better, FEWEST_PAIRS, Judgement, Needed, Spec, Verdict};

impl Judgement {
    /// The verdicts in one sentence.
    pub fn sentence(&self) -> String {
        let (spec, control) = (&self.spec, &self.control.name);
        if let [arm] = &self.arms[..] {
            return arm.sentence(spec, control);
        }
        let of = |kind: Verdict, phrase: &str| {
            let names: Vec<&str> = self.arms.iter().filter(|arm| arm.verdict == kind).map(|arm| arm.name.as_str()).collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            match (&names[..], kind) {
                ([], _) => None,
                (_, Verdict::Unknown) => Some(format!("nothing can be said about {}", names.join(", "))),
                _ => Some(format!("{} {verb} {phrase}", names.join(", "))),
            }
        };
        let said: Vec<String> = [
            of(Verdict::Better, "clearly better"),
            of(Verdict::BetterAndEquivalent, "clearly better, by less than the margin"),
            of(Verdict::Equivalent, "equivalent within the margin"),
            of(Verdict::WorseAndEquivalent, "clearly worse, by less than the margin"),
            of(Verdict::Worse, "clearly worse"),
            of(Verdict::Identical, "identical to it: what they change has no effect"),
            of(Verdict::NotClear, "not clear"),
            of(Verdict::Unknown, ""),
        ]
        .into_iter()
        .flatten()
        .collect();
        if said.is_empty() {
            return format!("No arm has been compared with {control}.");
        }
        format!("Against {control}, by the {} and with a margin of {}: {}.", spec.metric, spec.margin, said.join("; "))
    }

    /// The whole judgement, a sentence an item: the control's repeats, each arm, then the findings.
    pub fn sentences(&self) -> Vec<String> {
        let control = std::iter::once(self.control.sentence(&self.spec));
        let arms = self.arms.iter().map(|arm| arm.sentence(&self.spec, &self.control.name));
        let findings = self.findings.iter().map(|finding| format!("{}  {}", finding.title(), finding.message()));
        control.chain(arms).chain(findings).collect()
    }
}

impl Band {
    /// The noise of the control's repeats in a sentence.
    pub fn sentence(&self, spec: &Spec) -> String {
        let metric = &spec.metric;
        let failed = failures(&self.failed, self.n);
        match (self.mean, self.sd, self.range) {
            (Some(mean), Some(sd), Some([low, high])) => {
                let d = decimals(sd);
                let range = high - low;
                format!("{}: {metric} {mean:.d$} over {} repeats, sd {sd:.d$}, range {range:.d$}.{failed}", self.name, self.n)
            }
            (Some(mean), ..) => format!("{}: {metric} {mean:.4}, one run, so the noise of repeats is unknown.{failed}", self.name),
            _ => format!("{}: no run has ended with a value.{failed}", self.name),
        }
    }
}

impl ArmJudgement {
    /// What is said about this arm, in a sentence or two.
    pub fn sentence(&self, spec: &Spec, control: &str) -> String {
        let (name, n, margin) = (&self.name, self.pairs.len(), spec.margin);
        let mut text = match self.verdict {
            Verdict::Better => format!("{name} is clearly better than {control}: {}.", self.facts(spec)),
            Verdict::Worse => format!("{name} is clearly worse than {control}: {}.", self.facts(spec)),
            Verdict::BetterAndEquivalent => {
                format!("{name} is clearly better than {control}, but equivalent within the margin of {margin}: {}.", self.facts(spec))
            }
            Verdict::WorseAndEquivalent => {
                format!("{name} is clearly worse than {control}, but equivalent within the margin of {margin}: {}.", self.facts(spec))
            }
            Verdict::Equivalent => format!("{name} is equivalent to {control} within the margin of {margin}: {}.", self.facts(spec)),
            Verdict::NotClear => format!("{name} against {control} is not clear: {}.", self.facts(spec)),
            Verdict::Unknown => self.too_few(control),
            Verdict::Identical => format!("{name} is identical to {control} at {}: what it changes has no effect.", count(n, "seed")),
        };
        if let Some(place) = self.place.as_ref().filter(|_| !self.pairs.is_empty()) {
            text += &format!(" Compared at {place}, where its runs end.");
        }
        if self.is_tie && self.verdict != Verdict::Identical {
            let quantum = spec.quantum.unwrap_or_default();
            text += &format!(" The difference is below the step of the metric ({quantum}): a tie.");
        }
        if let Some(needed) = self.needed {
            text += &format!(" {}", needed.sentence());
        }
        text += &failures(&self.failed, self.pairs.len() + self.unpaired.len());
        if !self.unpaired.is_empty() {
            let have = if self.unpaired.len() == 1 { "run has" } else { "runs have" };
            text += &format!(" {} of its {have} no partner, because the control has no value there.", self.unpaired.len());
        }
        if !self.also_differs.is_empty() {
            text += &format!(" Not attributed to what the arm declares: also differ {}.", self.also_differs.join(", "));
        }
        text
    }

    /// "val_ce is lower by 0.0123 (0.0042 to 0.0204 lower, 6 pairs)".
    fn facts(&self, spec: &Spec) -> String {
        let (Some(mean), Some([low, high])) = (self.mean, self.interval) else { return count(self.pairs.len(), "pair") };
        // A bound that excludes 0 is not written as 0.
        let excluding = [low, high].map(f64::abs).into_iter().fold(f64::INFINITY, f64::min);
        let scale = if low * high > 0.0 { ((high - low) / 2.0).min(excluding * 10.0) } else { (high - low) / 2.0 };
        let d = decimals(scale);
        let pairs = count(self.pairs.len(), "pair");
        let metric = &spec.metric;
        if mean < 0.0 && high < 0.0 {
            return format!("{metric} is lower by {:.d$} (interval {:.d$} to {:.d$}, {pairs})", -mean, -high, -low);
        }
        if mean > 0.0 && low > 0.0 {
            return format!("{metric} is higher by {mean:.d$} (interval {low:.d$} to {high:.d$}, {pairs})");
        }
        let better = if spec.better == Better::Lower { "negative is better" } else { "positive is better" };
        format!("{metric} differs by {mean:+.d$} (interval {low:+.d$} to {high:+.d$}, {better}, {pairs})")
    }

    fn too_few(&self, control: &str) -> String {
        let pairs = match self.pairs.len() {
            0 => "there is no pair".into(),
            n => format!("{} so far", count(n, "pair")),
        };
        let fewest = self.fewest.unwrap_or(FEWEST_PAIRS);
        format!("Nothing can be said about {} against {control}: {pairs}, at least {fewest} are needed.", self.name)
    }
}

impl Needed {
    /// How many repeats it would take, in a sentence.
    pub fn sentence(&self) -> String {
        let beyond = format!("more than {}", self.horizon);
        let Some(median) = self.median else {
            return format!("If the differences go on like these, {beyond} repeats would be needed.");
        };
        let ninety = self.ninety.map_or(beyond, |n| n.to_string());
        format!("If the differences go on like these, {median} repeats in all would settle it with probability 50 %, {ninety} with 90 %.")
    }
}

/// " 1 of its 5 runs failed and is left out."
fn failures(failed: &[u64], others: usize) -> String {
    if failed.is_empty() {
        return String::new();
    }
    let seeds: Vec<String> = failed.iter().map(u64::to_string).collect();
    let (are, seed) = if failed.len() == 1 { ("is", "seed") } else { ("are", "seeds") };
    let all = failed.len() + others;
    format!(" {} of its {} failed ({seed} {}) and {are} left out.", failed.len(), count(all, "run"), seeds.join(", "))
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Decimals that show two significant digits of `scale`, from 2 to 10.
fn decimals(scale: f64) -> usize {
    if scale > 0.0 && scale.is_finite() { (1.0 - scale.log10().floor()).clamp(2.0, 10.0) as usize } else { 4 }
}
