//! The structure checks: they pass on sound models, and each catches a planted fault.

use moelab::{
    gpu::{Command, KernelInfo, ModuleInfo, Program, Role, TensorInfo},
    lab::probe::{Finding, Outcome, probe},
};

use crate::harness::{SMALL, config, device, tiers};

/// Runs every check on the adapter's own tier.
fn run(axes: &str, tamper: &dyn Fn(&mut Program)) -> Vec<Finding> {
    let config = config(&SMALL.replace("depth.layers = 2", axes), 64);
    probe(&device(*tiers().last().unwrap()), &config, tamper).unwrap_or_else(|e| panic!("{e}"))
}

/// Claims that do not hold.
fn failed(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|f| matches!(f.outcome, Outcome::Fails(_))).map(|f| f.claim).collect()
}

/// Replaces text in the WGSL of modules whose name starts with `module`.
fn mutate(program: &mut Program, module: &str, from: &str, to: &str) {
    for command in program.micro.iter_mut() {
        if let Command::Dispatch(d) = command
            && d.kernel.module.name.starts_with(module)
            && d.kernel.module.source.contains(from)
        {
            let changed = |text: &str| &*Box::leak(text.replace(from, to).into_boxed_str());
            let ModuleInfo { name, source, subgroup_source } = *d.kernel.module;
            let module = ModuleInfo { name, source: changed(source), subgroup_source: subgroup_source.map(changed) };
            let KernelInfo { entry, workgroup, params_bytes, uses_step, bindings, .. } = *d.kernel;
            let module = Box::leak(Box::new(module));
            d.kernel = Box::leak(Box::new(KernelInfo { module, entry, workgroup, params_bytes, uses_step, bindings }));
        }
    }
}

const INDEXED: &str = "depth.layers = 2";
const SHARED: &str = "depth = { kind = \"shared\", layers = 2 }";
const RECURSIVE: &str = "depth = { kind = \"recursive\", layers = 1, recursion = { networks = \"single\", embedding_injection = true, carry = \"same_data\" } }";

#[test]
fn sound_models_pass() {
    for axes in [INDEXED, SHARED, RECURSIVE] {
        let findings = run(axes, &|_| {});
        assert_eq!(failed(&findings), [""; 0], "{axes}: {findings:#?}");
        let skipped = findings.iter().filter(|f| matches!(f.outcome, Outcome::Skipped(_))).count();
        assert!(skipped <= 1, "{axes}: {findings:#?}");
    }
}

#[test]
fn states_of_unrelated_text_are_told() {
    let findings = run(&RECURSIVE.replace("same_data", "next_data"), &|_| {});
    let told = findings.iter().any(|f| matches!(&f.outcome, Outcome::ByConfig(why) if why.contains("next_data")));
    assert!(told && failed(&findings).is_empty(), "{findings:#?}");
}

#[test]
fn planted_faults_are_caught() {
    type Fault<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Program));
    let no_mask: &dyn Fn(&mut Program) = &|p| {
        mutate(p, "attention", "+ NEXT <= vec4<u32>(query", "+ NEXT <= vec4<u32>(1u + query");
        mutate(p, "attention", "u) <= rows)", "u) <= 1u + rows)");
    };
    let leaks: &dyn Fn(&mut Program) = &|p| {
        mutate(p, "mix_rows", "mask[", "0.0 * mask[");
    };
    let no_balance: &dyn Fn(&mut Program) = &|p| mutate(p, "balance", "d_probabilities[i] =", "d_probabilities[i] = 0.0 *");
    // The gradient of one use instead of the sum over all: what copies of a shared weight would give.
    let copies: &dyn Fn(&mut Program) = &|p| {
        for module in ["matmul", "matmul_cpu"] {
            mutate(p, module, "d_w[index(workgroup.z, at)] +=", "d_w[index(workgroup.z, at)] =");
        }
    };
    let twice: &dyn Fn(&mut Program) = &|p| {
        let first = p.tensors.iter().find(|t| t.role == Role::Parameter).expect("a parameter");
        let copy = TensorInfo { name: format!("{}.copy", first.name), shape: first.shape, dtype: first.dtype, role: Role::Parameter, values: None };
        p.tensors.push(copy);
    };
    let faults: [Fault; 5] = [
        ("a token changes no logits before its own", INDEXED, no_mask),
        ("a micro-batch changes nothing in the next", RECURSIVE, leaks),
        ("the balance loss reaches every router", INDEXED, no_balance),
        ("shared weights equal copies of them, and their gradient is the sum of the copies'", SHARED, copies),
        ("every parameter is counted once", INDEXED, twice),
    ];
    for (claim, axes, fault) in faults {
        let findings = run(axes, fault);
        assert!(failed(&findings).contains(&claim), "not caught: {claim}\n{findings:#?}");
    }
}
