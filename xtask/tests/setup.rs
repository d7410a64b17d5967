//! Set-up prints what it would install and why, installs only what is missing, and prints the command to run if the user
//! may not install packages. The machines are simulated.

use std::path::{Path, PathBuf};

use xtask::{
    machine::{DebianRust, Machine, Rights, System},
    setup::{Need, Purpose, Remedy, plan},
    steps,
};

fn bare(system: System, rights: Rights) -> Machine {
    Machine {
        system,
        rights,
        vulkan: Vec::new(),
        python: None,
        node: None,
        chromium: None,
        wasm_target: None,
        rust_src: None,
        newer_mesa: None,
        has_gpu: false,
        rustup: Some("/home/me/.cargo/bin/rustup".into()),
        rust_lld: Some("/sysroot/rust-lld".into()),
        debian_rust: None,
        npm: None,
    }
}

fn complete() -> Machine {
    let here = |name: &str| Some(PathBuf::from("/usr/bin").join(name));
    Machine {
        vulkan: vec!["lvp_icd.x86_64.json".into()],
        python: here("python3"),
        node: here("node"),
        chromium: here("chromium"),
        npm: here("npm"),
        wasm_target: Some("/sysroot/wasm32-unknown-unknown".into()),
        rust_src: Some("/sysroot/src/rust/library/std/Cargo.toml".into()),
        newer_mesa: Some("/mesa/run".into()),
        ..bare(System::Debian, Rights::Root)
    }
}

fn missing(purpose: Purpose, machine: &Machine) -> Vec<Need> {
    plan(purpose, machine).missing().cloned().collect()
}

#[test]
fn nothing_is_installed_on_a_complete_machine() {
    for purpose in [Purpose::Run, Purpose::Test, Purpose::Web] {
        assert!(missing(purpose, &complete()).is_empty());
        assert!(!plan(purpose, &complete()).to_string().contains("install"));
    }
}

#[test]
fn only_what_is_missing_is_installed() {
    let needs = missing(Purpose::Test, &Machine { node: None, ..complete() });
    assert_eq!(needs.len(), 1);
    assert_eq!(needs[0].remedies, [Remedy::Apt(&["nodejs"])]);
}

#[test]
fn the_plan_says_what_and_why() {
    let machine = bare(System::Debian, Rights::Root);
    let text = plan(Purpose::Test, &machine).to_string();
    for need in missing(Purpose::Test, &machine) {
        assert!(text.contains(&format!("install  {}, because it {}", need.name, need.why)), "{}: {text}", need.name);
    }
    for package in ["mesa-vulkan-drivers", "libvulkan1", "python3", "nodejs", "chromium", "rustc-web", "cargo-web", "rust-web-src"] {
        assert!(text.contains(package), "{package}: {text}");
    }
    assert!(text.contains("rustup target add wasm32-unknown-unknown, otherwise apt-get install rustc-web"), "{text}");
}

#[test]
fn each_task_needs_no_more_than_it_uses() {
    let names = |purpose, system| missing(purpose, &bare(system, Rights::Root)).iter().map(|n| n.name).collect::<Vec<_>>();
    assert_eq!(names(Purpose::Run, System::Debian), ["a Vulkan driver"]);
    let of_the_page = ["Rust's standard library for wasm32-unknown-unknown", "the sources of Rust's standard library"];
    assert_eq!(names(Purpose::Web, System::Debian), of_the_page);
    assert!(names(Purpose::Run, System::MacOs).is_empty(), "the driver is part of the system");
}

#[test]
fn debians_linker_is_installed_if_the_toolchain_has_none() {
    let machine = Machine { rustup: None, rust_lld: None, ..bare(System::Debian, Rights::Root) };
    assert_eq!(missing(Purpose::Web, &machine)[0].remedies, [Remedy::Apt(&["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"])]);
}

#[test]
fn a_user_without_rights_gets_the_command_to_run() {
    let machine = Machine { vulkan: Vec::new(), ..bare(System::Debian, Rights::None) };
    let error = plan(Purpose::Run, &machine).carry_out(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(error.contains("sudo apt-get update && sudo apt-get install --yes mesa-vulkan-drivers libvulkan1"), "{error}");
}

#[test]
fn an_unknown_system_gets_the_list_of_missing_programs_first() {
    let machine = Machine { rustup: None, ..bare(System::Linux, Rights::Root) };
    let error = plan(Purpose::Test, &machine).carry_out(Path::new("/nowhere")).unwrap_err().to_string();
    for word in ["Vulkan", "rustup target add", "Python 3", "nodejs.org", "CHROME"] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn the_page_is_made_smaller_where_there_is_npm() {
    let shown = |machine: &Machine, profile| steps::page(machine, profile).iter().map(ToString::to_string).collect::<String>();
    assert!(shown(&complete(), "web").contains("/usr/bin/npm install") && shown(&complete(), "web").contains("wasm-opt -Oz"));
    assert!(!shown(&complete(), "dev").contains("wasm-opt"));
    assert!(!shown(&Machine { npm: None, ..complete() }, "web").contains("wasm-opt"));
}

#[test]
fn kernels_for_tensor_cores_are_tested_where_there_is_a_newer_mesa() {
    let on_mesa = |machine: &Machine| {
        let steps = steps::test(Path::new("/nowhere"), machine);
        steps.iter().map(ToString::to_string).filter(|step| step.contains("LINUX_GNU_RUNNER=/mesa/run-tests")).collect::<Vec<_>>()
    };
    // In the run of all tests, or beside it where that is on a GPU.
    assert!(matches!(&on_mesa(&complete())[..], [all] if !all.contains("--test ops")));
    assert!(matches!(&on_mesa(&Machine { has_gpu: true, ..complete() })[..], [some] if some.contains("--test ops --test model")));
    let without = Machine { newer_mesa: None, ..complete() };
    assert!(on_mesa(&without).is_empty());
    assert_eq!(missing(Purpose::Test, &without)[0].remedies, [Remedy::NewerMesa]);
}

#[test]
fn a_toolchain_with_the_wasm_target_is_preferred() {
    let debian = DebianRust { rustc: "/usr/bin/rustc".into(), cargo: "/usr/bin/cargo".into(), linker: "/lld".into() };
    let with_target = Machine { debian_rust: Some(debian.clone()), ..complete() };
    assert!(!steps::page(&with_target, "dev")[0].to_string().contains("build-std"));
    let without = Machine { wasm_target: None, ..with_target };
    let shown = steps::page(&without, "dev")[0].to_string();
    for part in ["RUSTC=/usr/bin/rustc", "RUSTC_BOOTSTRAP=1", "LINKER=/lld", " /usr/bin/cargo build", "build-std=std,panic_abort"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
