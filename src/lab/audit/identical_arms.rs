//! No two arms are the same run under different names.

use super::study::{Study, same_run};
use super::{Check, Found, Severity, Stage, found};
use crate::run::digest::sha256_hex;

pub const CHECK: Check = Check { id: "identical-arms", stage: Stage::Before, claim: "no two arms are the same run", find };

fn find(study: &Study) -> Vec<Found> {
    let hashes: Vec<String> = study.arms.iter().map(|arm| same_run(&arm.config)).collect();
    let twin = |index: usize| hashes[..index].iter().position(|hash| *hash == hashes[index]);
    let report = |(index, arm): (usize, &super::Arm)| {
        let first = &study.arms[twin(index)?].name;
        let plan = &sha256_hex(hashes[index].as_bytes())[..8];
        Some(found(Severity::Refuse, &arm.name, format!("DUPLICATE  {} has the same plan as {first} ({plan}…).", arm.name)))
    };
    study.arms.iter().enumerate().filter_map(report).collect()
}
