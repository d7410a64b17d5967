//! Alarms of the routers: collapse, dead experts and starved experts, each with the update at which it began.
//!
//! They watch the load of every router call in every update; thresholds are configurable ([`Alarms`]):
//! - *Collapsed.* The load of a layer has a [`spread`] below `collapsed_spread`: nearly all tokens go to the same K experts.
//! - *Dead.* An expert has no assignment.
//! - *Starved.* An expert has less than `starved_load` times the mean load. Not raised for an expert that is reported as dead.
//!
//! A condition raises an alarm after `window` consecutive updates, or more if these have fewer than `LEAST_ASSIGNMENTS` assignments per
//! expert, because with few tokens an expert may be idle by chance. All experts whose alarm is raised in the same update share one incident.
//! It is raised again only after as many consecutive updates without the condition.
//! The state is part of the checkpoint; it is empty while all experts are used.

use serde::{Deserialize, Serialize};

use super::model::ModelConfig;
use super::{
    alarms::Alarm,
    config::{Alarms, Config},
    records::Incident,
    routing::spread,
};

/// Minimum number of assignments per expert, at balance, in the updates that raise an alarm. The probability that an expert gets none of
/// them by chance is then below exp(-50).
const LEAST_ASSIGNMENTS: f64 = 50.0;

/// Consecutive updates with a condition in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Streak {
    /// The router call.
    layer: u32,
    /// 0 if the condition is of the whole layer.
    expert: u32,
    /// The first of the updates.
    since: u32,
    length: u32,
    /// Consecutive updates since then without the condition.
    recovered: u32,
}

/// The state of the routers' alarms between updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingAlarmState {
    collapsed: Vec<Streak>,
    dead: Vec<Streak>,
    starved: Vec<Streak>,
}

impl RoutingAlarmState {
    /// Whether no condition holds anywhere.
    pub fn is_empty(&self) -> bool {
        self.collapsed.is_empty() && self.dead.is_empty() && self.starved.is_empty()
    }

    /// Records the load of each router call in an update.
    pub fn note_update(&mut self, config: &Config, update: u32, load: &[Vec<f32>]) -> Vec<Alarm> {
        let Config { alarms, model, .. } = config;
        if alarms.window == 0 || load.is_empty() {
            return Vec::new();
        }
        let found = Found::of(alarms, model, load);
        let fair = config.tokens_per_update() as f64 * f64::from(model.router.top_k) / f64::from(model.router.experts);
        let window = alarms.window.max((LEAST_ASSIGNMENTS / fair).ceil() as u32);
        let collapsed = note(&mut self.collapsed, &found.collapsed, update, window);
        let dead = note(&mut self.dead, &found.dead, update, window);
        let mut starved = note(&mut self.starved, &found.starved, update, window);
        let is_dead =
            |place: &Streak| self.dead.iter().any(|dead| (dead.layer, dead.expert) == (place.layer, place.expert) && dead.length >= window);
        starved.retain(|streak| !is_dead(streak));
        let raised = [(Incident::RouterCollapsed, collapsed), (Incident::ExpertDead, dead), (Incident::ExpertStarved, starved)];
        let alarm = |(incident, streaks): (Incident, Vec<Streak>)| {
            let since = streaks.first()?.since;
            Some(Alarm { incident, since, detail: detail(incident, &streaks, &model.router_labels(), config, load) })
        };
        raised.into_iter().filter_map(alarm).collect()
    }
}

/// The places, layer and expert, in which each condition holds.
#[derive(Default)]
struct Found {
    collapsed: Vec<(u32, u32)>,
    dead: Vec<(u32, u32)>,
    starved: Vec<(u32, u32)>,
}

impl Found {
    fn of(alarms: &Alarms, model: &ModelConfig, load: &[Vec<f32>]) -> Found {
        let (mut found, mut shares) = (Found::default(), Vec::new());
        for (layer, load) in (0..).zip(load) {
            shares.clear();
            shares.extend(load.iter().map(|share| f64::from(*share)));
            if spread(&shares, model.router.top_k).is_some_and(|spread| spread < alarms.collapsed_spread) {
                found.collapsed.push((layer, 0));
            }
            let mean = 1.0 / load.len() as f64;
            for (expert, &share) in (0..).zip(&shares) {
                if alarms.dead_experts && share == 0.0 {
                    found.dead.push((layer, expert));
                }
                if share < alarms.starved_load * mean {
                    found.starved.push((layer, expert));
                }
            }
        }
        found
    }
}

/// Records in which places a condition holds; returns the streaks that reach `window`.
fn note(streaks: &mut Vec<Streak>, places: &[(u32, u32)], update: u32, window: u32) -> Vec<Streak> {
    for &(layer, expert) in places {
        if !streaks.iter().any(|streak| (streak.layer, streak.expert) == (layer, expert)) {
            streaks.push(Streak { layer, expert, since: update, length: 0, recovered: 0 });
        }
    }
    let mut raised = Vec::new();
    streaks.retain_mut(|streak| {
        if places.contains(&(streak.layer, streak.expert)) {
            (streak.length, streak.recovered) = (streak.length.saturating_add(1), 0);
            raised.extend((streak.length == window).then_some(*streak));
            return true;
        }
        streak.recovered += 1;
        streak.length >= window && streak.recovered < window
    });
    raised
}

fn detail(incident: Incident, streaks: &[Streak], labels: &[String], config: &Config, load: &[Vec<f32>]) -> String {
    let (router, since) = (&config.model.router, streaks[0].since);
    let label = |layer: u32| labels.get(layer as usize).map_or("a router", String::as_str);
    let mut layers: Vec<u32> = streaks.iter().map(|streak| streak.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let experts_of = |layer: u32| {
        let mut experts: Vec<u32> = streaks.iter().filter(|streak| streak.layer == layer).map(|streak| streak.expert).collect();
        experts.sort_unstable();
        let listed: Vec<String> = experts.iter().map(u32::to_string).collect();
        format!("{} of {}: expert{} {}", listed.len(), router.experts, if listed.len() == 1 { "" } else { "s" }, listed.join(", "))
    };
    let places = |text: &dyn Fn(u32) -> String| {
        layers.iter().map(|layer| format!("{} ({})", label(*layer), text(*layer))).collect::<Vec<_>>().join("; ")
    };
    let found = match incident {
        Incident::RouterCollapsed => {
            let top = |layer: u32| {
                let shares = load[layer as usize].iter().map(|share| share * router.top_k as f32);
                let (expert, share) = shares.enumerate().fold((0, 0.0), |best, found| if found.1 > best.1 { found } else { best });
                format!("expert {expert} processes {:.0} % of the tokens", 100.0 * share)
            };
            format!("nearly all tokens have been routed to the same experts since update {since}: {}", places(&top))
        }
        Incident::ExpertDead => format!("no token has been routed to some experts since update {since}: {}", places(&experts_of)),
        _ => {
            let limit = 100.0 * config.alarms.starved_load;
            format!("some experts have had less than {limit} % of the mean load since update {since}: {}", places(&experts_of))
        }
    };
    format!("{found}; {}", remedy(&config.model))
}

fn remedy(model: &ModelConfig) -> String {
    use super::model::BalanceKind::Off;
    let coefficient = if model.balance.kind == Off { 0.0 } else { model.balance.coefficient };
    if coefficient == 0.0 {
        return "there is no load-balancing loss: try model.balance.coefficient = 0.01".to_string();
    }
    format!("raise model.balance.coefficient (it is {coefficient}), or lower the learning rate of the router")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 4;

    fn config() -> Config {
        let mut config = Config::default();
        config.alarms.window = WINDOW;
        (config.model.router.experts, config.model.router.top_k) = (4, 1);
        config
    }

    /// Alarms of one layer of four experts: the update at which each is raised, its kind, and its first update.
    fn raised(config: &Config, loads: &[[f32; 4]]) -> Vec<(u32, Incident, u32)> {
        let mut state = RoutingAlarmState::default();
        let of_update = |(update, load): (u32, &[f32; 4])| {
            // The state survives a checkpoint.
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            let alarms = state.note_update(config, update, &[load.to_vec()]);
            alarms.into_iter().map(move |alarm| (update, alarm.incident, alarm.since)).collect::<Vec<_>>()
        };
        (1..).zip(loads).flat_map(of_update).collect()
    }

    const EVEN: [f32; 4] = [0.25; 4];
    const DEAD: [f32; 4] = [0.0, 0.3, 0.3, 0.4];
    const STARVED: [f32; 4] = [0.02, 0.28, 0.3, 0.4];
    const COLLAPSED: [f32; 4] = [0.98, 0.01, 0.01, 0.0];

    #[test]
    fn each_condition_is_raised_once_with_its_first_update() {
        use Incident::{ExpertDead, ExpertStarved, RouterCollapsed};
        let config = config();
        assert_eq!(raised(&config, &[EVEN; 20]), []);
        let after_two = |load: [f32; 4]| [&[EVEN; 2][..], &[load; 9]].concat();
        assert_eq!(raised(&config, &after_two(DEAD)), [(6, ExpertDead, 3)], "an expert that is dead is not starved as well");
        assert_eq!(raised(&config, &after_two(STARVED)), [(6, ExpertStarved, 3)]);
        let collapsed = [(6, RouterCollapsed, 3), (6, ExpertDead, 3), (6, ExpertStarved, 3)];
        assert_eq!(raised(&config, &after_two(COLLAPSED)), collapsed);
        let worse = [&[STARVED; 5][..], &[DEAD; 5]].concat();
        assert_eq!(raised(&config, &worse), [(4, ExpertStarved, 1), (9, ExpertDead, 6)]);
        let too_short = [&[DEAD; 3][..], &[EVEN], &[DEAD; 3]].concat();
        assert_eq!(raised(&config, &too_short), []);
    }

    #[test]
    fn it_is_raised_again_only_after_a_recovery_as_long() {
        let dead_again = |even: usize| [&[DEAD; 5][..], &vec![EVEN; even], &[DEAD; 5]].concat();
        let updates =
            |loads: &[[f32; 4]]| raised(&config(), loads).into_iter().map(|(update, _, since)| (update, since)).collect::<Vec<_>>();
        assert_eq!(updates(&dead_again(3)), [(4, 1)]);
        assert_eq!(updates(&dead_again(4)), [(4, 1), (13, 10)]);
    }

    #[test]
    fn limits_can_be_switched_off_and_few_tokens_need_more_updates() {
        let mut config = config();
        config.alarms = Alarms { dead_experts: false, starved_load: 0.0, collapsed_spread: 0.0, ..config.alarms };
        assert_eq!(raised(&config, &[COLLAPSED; 20]), []);
        config.alarms = Alarms { dead_experts: true, ..config.alarms };
        assert_eq!(raised(&Config { alarms: Alarms { window: 0, ..config.alarms }, ..config.clone() }, &[DEAD; 20]), []);
        // 2 * 12 tokens for 4 experts: 6 each, 50 after 9 updates.
        (config.data.batch, config.data.sequence_length, config.train.micro_batches) = (2, 12, 1);
        assert_eq!(raised(&config, &[DEAD; 20]), [(9, Incident::ExpertDead, 1)]);
    }

    #[test]
    fn the_text_names_layers_experts_and_what_to_do() {
        let mut config = config();
        config.model.ffn.dense_layers = 1;
        config.model.depth.layers = 3;
        config.model.balance.coefficient = 0.0;
        let mut state = RoutingAlarmState::default();
        let mut text = |update| {
            let alarms = state.note_update(&config, update, &[DEAD.to_vec(), COLLAPSED.to_vec()]);
            alarms.into_iter().map(|alarm| alarm.detail).collect::<Vec<_>>()
        };
        assert!((1..WINDOW).all(|update| text(update).is_empty()));
        assert_eq!(
            text(WINDOW)[..2],
            [
                "nearly all tokens have been routed to the same experts since update 1: layer 2 (expert 0 processes 98 % of the tokens); there is no load-balancing loss: try model.balance.coefficient = 0.01",
                "no token has been routed to some experts since update 1: layer 1 (1 of 4: expert 0); layer 2 (1 of 4: expert 3); there is no load-balancing loss: try model.balance.coefficient = 0.01",
            ]
        );
    }
}
