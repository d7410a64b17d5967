//! Alarms: detect a training run that diverges although its losses are finite.
//!
//! Two conditions raise an alarm; both thresholds are configurable ([`Alarms`]):
//! - *Above the uniform baseline.* After the warm-up, `window` consecutive updates have a training loss above `above_uniform` times
//!   ln V, the loss of a uniform guess; or an evaluation has.
//! - *Risen.* `window` consecutive updates have a training perplexity above `perplexity_rise` times the lowest running one. The
//!   running loss is an exponential mean over about `window` updates, and is valid after that many updates. Perplexities
//!   are compared rather than losses, so that a loss near 0 may double but a loss of 5 may not.
//!
//! An alarm is one incident with its first update; it is raised again only after a loss within the limit. The run continues,
//! because it may recover, and the user decides what to do. Non-finite losses are handled by [`Nan`](super::config::Nan) and
//! ignored here.
//! Alarms of the routers are in [`routing_alarms`](super::routing_alarms).
//! The state is part of the checkpoint, so that a resumed run raises the same alarms.

use serde::{Deserialize, Serialize};

use super::{config::Alarms, records::Incident, routing_alarms::RoutingAlarmState};

/// The state of the alarms between updates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlarmState {
    /// Finite training losses so far.
    losses: u64,
    /// Exponential mean of the training loss, nats.
    running: f64,
    /// Its lowest value, once it is valid.
    lowest: Option<f64>,
    above_uniform: Excursion,
    risen: Excursion,
    /// Whether the newest evaluation was above the uniform baseline.
    validation_is_above: bool,
    /// Of the routers.
    #[serde(default, skip_serializing_if = "RoutingAlarmState::is_empty")]
    pub routing: RoutingAlarmState,
}

/// Consecutive updates with a loss that is too high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Excursion {
    /// The first of them.
    since: u32,
    length: u32,
}

impl Excursion {
    /// Records an update; returns whether it raises the alarm.
    fn note(&mut self, update: u32, is_high: bool, window: u32) -> bool {
        if !is_high {
            *self = Excursion::default();
            return false;
        }
        if self.length == 0 {
            self.since = update;
        }
        self.length = self.length.saturating_add(1);
        self.length == window
    }
}

/// An alarm: the first update and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// What happened.
    pub incident: Incident,
    /// The first update that it concerns.
    pub since: u32,
    /// The reason as text, with numbers.
    pub detail: String,
}

/// Advice for a diverging run.
const REMEDY: &str =
    "lower the learning rates (optimizer.adamw.lr, optimizer.muon.lr), lengthen schedule.warmup, or clip harder (optimizer.clip_norm)";

impl AlarmState {
    /// Records an update. `uniform` is ln V.
    pub fn note_update(&mut self, config: &Alarms, update: u32, loss: f64, uniform: f64, is_warm: bool) -> Vec<Alarm> {
        let window = config.window;
        if window == 0 || !loss.is_finite() {
            return Vec::new();
        }
        let mut alarms = Vec::new();
        let limit = config.above_uniform * uniform;
        if self.above_uniform.note(update, config.above_uniform > 0.0 && is_warm && loss > limit, window) {
            let since = self.above_uniform.since;
            let detail = format!(
                "the training loss has been above {limit:.4} since update {since} ({} times the uniform baseline): {loss:.4} at update {update}; {REMEDY}",
                config.above_uniform
            );
            alarms.push(Alarm { incident: Incident::BlowUp, since, detail });
        }
        let limit = self.lowest.filter(|_| config.perplexity_rise > 0.0).map(|lowest| lowest + config.perplexity_rise.ln());
        if self.risen.note(update, limit.is_some_and(|limit| loss > limit), window) {
            let (since, lowest) = (self.risen.since, self.lowest.unwrap_or_default());
            let detail = format!(
                "the training loss rose and did not recover: it was {lowest:.4} and has been more than {:.4} above that since update {since} (perplexity times {}): {loss:.4} at update {update}; {REMEDY}",
                config.perplexity_rise.ln(),
                config.perplexity_rise
            );
            alarms.push(Alarm { incident: Incident::BlowUp, since, detail });
        }
        self.losses += 1;
        self.running += (loss - self.running) / self.losses.min(u64::from(window)) as f64;
        if self.losses >= u64::from(window) {
            self.lowest = Some(self.lowest.map_or(self.running, |lowest| lowest.min(self.running)));
        }
        alarms
    }

    /// Records an evaluation. It is a mean over the whole validation set, so one is enough.
    pub fn note_evaluation(&mut self, config: &Alarms, update: u32, loss: f64, uniform: f64, is_warm: bool) -> Option<Alarm> {
        let limit = config.above_uniform * uniform;
        let is_above = config.window > 0 && config.above_uniform > 0.0 && is_warm && loss.is_finite() && loss > limit;
        let was_above = std::mem::replace(&mut self.validation_is_above, is_above);
        // The training loss may have raised the alarm already.
        let is_reported = was_above || self.above_uniform.length >= config.window;
        (is_above && !is_reported).then(|| {
            let training = &mut self.above_uniform;
            // If the training loss was above the limit already, the alarm has its first update and is not raised again.
            let since = if training.length > 0 { training.since } else { update };
            training.length = if training.length > 0 { config.window } else { 0 };
            let times = config.above_uniform;
            let detail = format!(
                "the validation loss at update {update} is {loss:.4}, above {limit:.4} ({times} times the uniform baseline), since update {since}; {REMEDY}"
            );
            Alarm { incident: Incident::BlowUp, since, detail }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Alarms =
        Alarms { window: 4, above_uniform: 1.1, perplexity_rise: 3.0, collapsed_spread: 0.1, dead_experts: true, starved_load: 0.1 };
    const UNIFORM: f64 = 5.0;

    /// Updates at which an alarm was raised, each with its first update.
    fn raised(losses: &[f64], warmup: u32) -> Vec<(u32, u32)> {
        let mut state = AlarmState::default();
        let of_update = |(update, loss): (u32, &f64)| {
            let alarms = state.note_update(&CONFIG, update, *loss, UNIFORM, update > warmup);
            alarms.into_iter().map(move |alarm| (update, alarm.since)).collect::<Vec<_>>()
        };
        (1..).zip(losses).flat_map(of_update).collect()
    }

    #[test]
    fn a_loss_above_uniform_after_the_warm_up_is_an_alarm_once() {
        let losses = [5.6; 12];
        assert_eq!(raised(&losses, 3), [(7, 4)], "updates 4 to 7 are the first four after the warm-up");
        assert_eq!(raised(&losses, 9), [], "three are too few");
        assert_eq!(raised(&[5.4; 12], 0), [], "an untrained model is a little above ln V");
        let recovered = [&[5.6; 5][..], &[5.0], &[5.6; 5]].concat();
        assert_eq!(raised(&recovered, 0), [(4, 1), (10, 7)]);
    }

    #[test]
    fn a_loss_that_rises_and_stays_is_an_alarm() {
        let risen = [&[2.0; 8][..], &[3.2; 5]].concat();
        assert_eq!(raised(&risen, 0), [(12, 9)]);
        let spikes = [&[2.0; 8][..], &[4.9; 3], &[2.0], &[4.9; 3], &[f64::NAN, f64::INFINITY], &[2.0]].concat();
        assert_eq!(raised(&spikes, 0), [], "a rise shorter than the window is a spike");
        let memorised = [&[2.0; 8][..], &[0.01; 30], &[0.5; 8]].concat();
        assert_eq!(raised(&memorised, 0), [], "a small loss may vary");
    }

    #[test]
    fn one_evaluation_raises_the_alarm_once() {
        let mut state = AlarmState::default();
        let mut note = |update, loss, is_warm| state.note_evaluation(&CONFIG, update, loss, UNIFORM, is_warm).map(|alarm| alarm.since);
        assert_eq!(note(10, 144.0, false), None);
        assert_eq!(
            [note(20, 144.0, true), note(30, 144.0, true), note(40, 4.0, true), note(50, 6.0, true)],
            [Some(20), None, None, Some(50)]
        );
    }

    #[test]
    fn an_evaluation_in_the_middle_names_the_first_update_and_is_the_only_alarm() {
        let config = Alarms { perplexity_rise: 0.0, ..CONFIG };
        let mut state = AlarmState::default();
        let mut alarms = Vec::new();
        for update in 1..=20 {
            alarms.extend(state.note_update(&config, update, if update < 3 { 5.0 } else { 9.0 }, UNIFORM, true));
            if update == 4 {
                alarms.extend(state.note_evaluation(&config, update, 9.0, UNIFORM, true));
            }
        }
        let since: Vec<u32> = alarms.iter().map(|alarm| alarm.since).collect();
        assert_eq!(since, [3], "{alarms:?}");
        assert!(alarms[0].detail.contains("update 4 is 9.0000") && alarms[0].detail.contains("since update 3"), "{alarms:?}");
    }
}
