//! `moelab probe`: structure checks of a config's model.

use std::rc::Rc;

use anyhow::{Result, ensure};
use moelab::lab::probe::{CHECKS, Outcome};
use moelab_native::{out, print};
use serde_json::json;

use crate::{Common, ConfigArgs, open};

/// Runs every check; a failed check is an input error.
pub fn probe(common: &Common, args: &ConfigArgs) -> Result<()> {
    let mut config = open::config(args)?;
    open::fill_vocabulary(&mut config)?;
    let device = Rc::new(open::device(common)?);
    if !common.json {
        out!("{} on {}", print::path(&args.config), print::name(&device.adapter.name));
    }
    let mut failed = 0;
    for check in CHECKS {
        let (claim, outcome) = (check.claim, check.run(&device, &config, &|_| {})?);
        failed += usize::from(matches!(outcome, Outcome::Fails(_)));
        let (name, mark, detail) = match &outcome {
            Outcome::Holds(detail) => ("holds", "ok  ", detail),
            Outcome::Fails(detail) => ("fails", "FAIL", detail),
            Outcome::ByConfig(detail) => ("by_config", "note", detail),
            Outcome::Skipped(detail) => ("skipped", "skip", detail),
        };
        if common.json {
            print::json(&json!({ "check": check.id, "claim": claim, "outcome": name, "detail": detail }));
        } else {
            out!("{mark}  {claim}: {detail}");
        }
    }
    ensure!(failed == 0, "{failed} of {} structure checks failed", CHECKS.len());
    Ok(())
}
