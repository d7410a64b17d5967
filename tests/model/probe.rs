//! The structure checks: they pass on sound models, and each catches a planted fault.

use moelab::{
    gpu::{Command, KernelInfo, ModuleInfo, Program, Role, TensorInfo},
    lab::probe::{CHECKS, Check, Outcome},
};

use crate::harness::{SMALL, config, device, tiers};

/// Runs a check on the adapter's own tier.
fn run(check: Check, axes: &str, tamper: &dyn Fn(&mut Program)) -> Outcome {
    let config = config(&SMALL.replace("depth.layers = 2", axes), 64);
    check.run(&device(*tiers().last().unwrap()), &config, tamper).unwrap_or_else(|e| panic!("{}: {e}", check.claim))
}

/// Replaces text in the WGSL of modules whose name starts with `module`.
fn mutate(program: &mut Program, module: &str, from: &str, to: &str) {
    for command in program.micro.iter_mut() {
        if let Command::Dispatch(d) = command
            && d.kernel.module.name.starts_with(module)
            && d.kernel.module.source.contains(from)
        {
            let changed = |text: &str| &*Box::leak(text.replace(from, to).into_boxed_str());
            let module = ModuleInfo { source: changed(d.kernel.module.source), ..*d.kernel.module };
            d.kernel = Box::leak(Box::new(KernelInfo { module: Box::leak(Box::new(module)), ..*d.kernel }));
        }
    }
}

const INDEXED: &str = "depth.layers = 2";
const SHARED: &str = "depth = { kind = \"shared\", layers = 2 }";
const RECURSIVE: &str = "depth = { kind = \"recursive\", layers = 1, recursion = { networks = \"single\", embedding_injection = true, carry = \"same_data\" } }";

#[test]
fn sound_models_pass() {
    for axes in [INDEXED, SHARED, RECURSIVE] {
        let mut skipped = 0;
        for check in CHECKS {
            match run(check, axes, &|_| {}) {
                Outcome::Holds(_) => {}
                Outcome::Skipped(_) => skipped += 1,
                other => panic!("{axes}: {}: {other:?}", check.claim),
            }
        }
        assert!(skipped <= 1, "{axes}: {skipped} skipped");
    }
}

#[test]
fn states_of_unrelated_text_are_told() {
    let check = CHECKS.into_iter().find(|c| c.claim == "a micro-batch does not affect the next").expect("a check");
    let outcome = run(check, &RECURSIVE.replace("same_data", "next_data"), &|_| {});
    assert!(matches!(&outcome, Outcome::ByConfig(why) if why.contains("next_data")), "{outcome:?}");
}

/// Every check, in order, with a fault that it catches.
#[test]
fn planted_faults_are_caught() {
    type Fault<'a> = (&'a str, &'a dyn Fn(&mut Program));
    let no_mask: Fault = (INDEXED, &|p| {
        mutate(p, "attention", "+ NEXT <= vec4<u32>(query", "+ NEXT <= vec4<u32>(1u + query");
        mutate(p, "attention", "u) <= rows)", "u) <= 1u + rows)");
    });
    let own_token_only: Fault = (INDEXED, &|p| {
        mutate(p, "attention", "+ NEXT <= vec4<u32>(query", "+ NEXT == vec4<u32>(query");
        mutate(p, "attention", "t) <= rows)", "t) == rows)");
    });
    let keys_of_the_last_sequence: Fault = (INDEXED, &|p| {
        mutate(p, "attention", "load_rows(kv, place.k + c, keys)", "load_rows(kv, place.k + c, keys % params.tokens + params.tokens)");
        mutate(p, "attention", "key_index(place.batch, head,", "key_index(1u, head,");
    });
    let carry_leaks: Fault = (RECURSIVE, &|p| mutate(p, "mix_rows", "mask[", "0.0 * mask["));
    let no_weight_gradient: Fault =
        (INDEXED, &|p| mutate(p, "matmul", "d_w[index(workgroup.z, at)] +=", "d_w[index(workgroup.z, at)] += 0.0 *"));
    let no_balance: Fault = (INDEXED, &|p| mutate(p, "balance", "d_probabilities[i] =", "d_probabilities[i] = 0.0 *"));
    let scaled_experts: Fault = (INDEXED, &|p| {
        mutate(p, "grouped_matmul", "+ at.y] =", "+ at.y] = 1.1 *");
        mutate(p, "grouped_matmul", "column + j] = sum", "column + j] = 1.1 * sum");
    });
    let last_choice_lost: Fault = (INDEXED, &|p| {
        mutate(p, "combine", "k < params.experts_per_token; k++", "k < max(params.experts_per_token, 2u) - 1u; k++");
    });
    let third_choice_lost: Fault = (INDEXED, &|p| {
        mutate(p, "combine", "k < params.experts_per_token; k++", "k < min(params.experts_per_token, 2u); k++");
    });
    // The gradient of one use instead of the sum over all: what copies of a shared weight would give.
    let copies: Fault = (SHARED, &|p| mutate(p, "matmul", "d_w[index(workgroup.z, at)] +=", "d_w[index(workgroup.z, at)] ="));
    let twice: Fault = (INDEXED, &|p| {
        let first = p.tensors.iter().find(|t| t.role == Role::Parameter).expect("a parameter");
        let copy = TensorInfo {
            name: format!("{}.copy", first.name),
            shape: first.shape,
            dtype: first.dtype,
            role: Role::Parameter,
            values: None,
            within: None,
        };
        p.tensors.push(copy);
    });
    let faults = [
        no_mask,
        own_token_only,
        keys_of_the_last_sequence,
        carry_leaks,
        no_weight_gradient,
        no_balance,
        scaled_experts,
        last_choice_lost,
        third_choice_lost,
        copies,
        twice,
    ];
    for (check, (axes, fault)) in CHECKS.into_iter().zip(faults) {
        let outcome = run(check, axes, fault);
        println!("{}: {outcome:?}", check.claim);
        assert!(matches!(outcome, Outcome::Fails(_)), "not caught: {}: {outcome:?}", check.claim);
    }
}
