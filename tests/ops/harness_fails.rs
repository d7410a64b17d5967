//! The harness itself: it must fail on a small error, a swapped gradient, an unwritten tail, and planted mutants.

use crate::{
    harness::{Array, Case, Input},
    rms_norm::twin,
};

fn outcome(case: Case, scale: f64) -> Result<(), String> {
    let inputs = [Input::normal("x", [5, 33]), Input::normal("w", [33]).param()];
    case.try_check(
        &inputs,
        |g, t| vec![g.rms_norm(t[0], t[1], 1e-6)],
        |a: &[Array]| {
            let mut y = twin(&a[0], &a[1], 1e-6);
            y.data.iter_mut().for_each(|v| *v *= scale);
            vec![y]
        },
    )
}

fn caught(module: &'static str, from: &'static str, to: &'static str) -> String {
    outcome(Case::new(format!("`{from}` -> `{to}`")).mutate(module, from, to), 1.0).expect_err("a mutant was not caught")
}

#[test]
fn passes_as_it_is() {
    outcome(Case::new("control"), 1.0).unwrap();
}

#[test]
fn fails_on_one_percent() {
    assert!(outcome(Case::new("1 %"), 1.01).unwrap_err().contains("output 0"));
}

#[test]
fn fails_on_an_unwritten_tail() {
    let message = caught("rms_norm", "i < params.width", "i < params.width - 1u");
    assert!(message.contains("not written"), "{message}");
}
