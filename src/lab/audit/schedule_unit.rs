//! A schedule ends where the run ends, and its warm-up has the declared share of the run.
//!
//! moelab's types keep updates and micro-batches apart; what can still go wrong is a horizon given as a count that does not fit the
//! length of the run, for example one that was counted in the other unit.

use super::study::{Study, value};
use super::{Check, Found, Severity, Stage, found};
use crate::run::Config;
use crate::run::schedule::{ScheduleKind, Unit};

pub const CHECK: Check =
    Check { id: "schedule-unit", stage: Stage::Before, claim: "a schedule reaches its floor, and warms up as declared", find };

/// How far above the floor a schedule may end, as a share of the peak.
const ABOVE_FLOOR: f64 = 0.05;
/// How many times the declared share a warm-up may take.
const OFF_SHARE: f64 = 2.0;

fn find(study: &Study) -> Vec<Found> {
    study.arms.iter().filter_map(|arm| Some(found(Severity::Refuse, &arm.name, message(&arm.config)?))).collect()
}

fn message(config: &Config) -> Option<String> {
    let (schedule, updates) = (config.learning_rates(), config.train.updates);
    let (floor, ends) = (schedule.min_ratio, schedule.at_update(updates));
    let decays = matches!(schedule.kind, ScheduleKind::Cosine | ScheduleKind::Linear | ScheduleKind::HoldThenLinear);
    let warm = (0..updates).take_while(|done| !schedule.is_warm(*done)).count();
    let share = warm as f64 / f64::from(updates);
    let declared = f64::from(schedule.warmup) / f64::from(schedule.horizon.max(1));
    let misses_floor = decays && ends > floor + ABOVE_FLOOR;
    let misses_share = decays && (share > OFF_SHARE * declared || OFF_SHARE * share < declared);
    if !misses_floor && !misses_share {
        return None;
    }
    let micro_steps = u64::from(updates) * u64::from(config.train.micro_batches);
    let horizon = u64::from(schedule.horizon);
    let unit = match schedule.unit {
        Unit::Updates if horizon == micro_steps && config.train.micro_batches > 1 => {
            format!("horizon {horizon} is in micro-batches but the schedule advances per update ({updates} in this run)")
        }
        Unit::Updates => format!("horizon {horizon} is not the length of the run ({updates} updates)"),
        Unit::MicroSteps if horizon == u64::from(updates) => {
            format!("horizon {horizon} is in updates but the schedule advances per micro-batch ({micro_steps} in this run)")
        }
        Unit::MicroSteps => format!("horizon {horizon} is not the length of the run ({micro_steps} micro-batches)"),
    };
    Some(format!(
        "SCHEDULE UNIT  {} {unit}: final multiplier {ends:.3}, declared floor {floor}; warm-up {:.0} % of the run, declared {:.0} %.",
        value(config, "schedule.kind").unwrap_or_default().trim_matches('"'),
        100.0 * share,
        100.0 * declared
    ))
}
