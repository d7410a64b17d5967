//! The programs and drivers of a machine, as plain data, so that tests can plan set-up for any machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{browser, programs::find_program};

/// Operating systems that set-up distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Debian and derivatives: packages by apt-get.
    Debian,
    /// Ubuntu and derivatives: apt-get, but Chromium is a snap and Rust for wasm is not packaged.
    Ubuntu,
    /// Any other Linux: nothing is installed; an error lists what to install.
    Linux,
    /// macOS: the GPU driver is part of the system.
    MacOs,
    /// Windows: the GPU driver is part of the system.
    Windows,
}

/// Whether this user can install packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The user is root.
    Root,
    /// `sudo` works without asking for a password.
    Sudo,
    /// Neither: the error has the command to run.
    None,
}

/// Everything that a set-up plan depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The operating system.
    pub system: System,
    /// Whether packages can be installed.
    pub rights: Rights,
    /// Names of the Vulkan drivers whose manifest and library exist, if there is a loader.
    pub vulkan: Vec<String>,
    /// Python 3.
    pub python: Option<PathBuf>,
    /// Node.js.
    pub node: Option<PathBuf>,
    /// Chromium or Chrome.
    pub chromium: Option<PathBuf>,
    /// The standard library for `wasm32-unknown-unknown` in the toolchain that runs this.
    pub wasm_target: Option<PathBuf>,
    /// The sources of that toolchain's standard library.
    pub rust_src: Option<PathBuf>,
    /// rustup, unless it failed to download the wasm target before.
    pub rustup: Option<PathBuf>,
    /// The toolchain's own copy of the linker for wasm.
    pub rust_lld: Option<PathBuf>,
    /// Debian's second Rust toolchain, complete for wasm.
    pub debian_rust: Option<DebianRust>,
    /// npm, of Node.js.
    pub npm: Option<PathBuf>,
    /// The program that runs another against a newer Mesa, which was fetched.
    pub newer_mesa: Option<PathBuf>,
    /// Whether there is a device file of a GPU.
    pub has_gpu: bool,
}

/// Debian's `rustc-web`, `cargo-web` and `rust-web-src`, with a linker for wasm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianRust {
    /// Its compiler.
    pub rustc: PathBuf,
    /// Its cargo; another version may not build its standard library.
    pub cargo: PathBuf,
    /// `rust-lld`.
    pub linker: PathBuf,
}

impl Machine {
    /// Inspects this machine: runs a few short commands, changes nothing. `root` is the workspace.
    pub fn look(root: &Path) -> Self {
        let system = system();
        let sysroot = output("rustc", &["--print", "sysroot"]).map(|s| PathBuf::from(s.trim()));
        let in_sysroot = |path: &str| sysroot.as_ref().map(|s| s.join("lib/rustlib").join(path)).filter(|p| p.exists());
        let rust_lld = in_sysroot(&format!("{}-unknown-linux-gnu/bin/rust-lld", env::consts::ARCH));
        Self {
            system,
            rights: rights(),
            vulkan: vulkan(),
            python: find_program("python3").or_else(|| find_program("python").filter(|_| system == System::Windows)),
            node: find_program("node").or_else(|| find_program("nodejs")),
            chromium: browser::find(),
            wasm_target: in_sysroot("wasm32-unknown-unknown"),
            rust_src: in_sysroot("src/rust/library/std/Cargo.toml"),
            rustup: find_program("rustup").filter(|_| !rustup_refused(root).exists()),
            debian_rust: debian_rust(rust_lld.clone()),
            npm: find_program("npm"),
            newer_mesa: Some(newer_mesa(root))
                .filter(|run| ["run", "run-tests", "root/usr/bin/spirv-val"].iter().all(|name| run.with_file_name(name).exists())),
            has_gpu: has_gpu(),
            rust_lld,
        }
    }
}

fn has_gpu() -> bool {
    let renders = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("renderD");
    let is_there = |file: &str| Path::new(file).exists();
    is_there("/dev/nvidia0") || is_there("/dev/dxg") || fs::read_dir("/dev/dri").into_iter().flatten().flatten().any(renders)
}

/// Where the newer Mesa is fetched to: the program that runs another against it.
pub fn newer_mesa(root: &Path) -> PathBuf {
    root.join("target/xtask/mesa/run")
}

/// Its version.
pub fn mesa_version(run: &Path) -> String {
    fs::read_to_string(run.with_file_name("version")).map_or_else(|_| "unknown".into(), |version| version.trim().to_string())
}

/// A file that records that rustup could not download the wasm target, so that later runs do not try again.
pub fn rustup_refused(root: &Path) -> PathBuf {
    root.join("target/xtask/rustup-has-no-wasm-target")
}

fn system() -> System {
    match env::consts::OS {
        "macos" => System::MacOs,
        "windows" => System::Windows,
        _ if find_program("apt-get").is_none() => System::Linux,
        _ if fs::read_to_string("/etc/os-release").unwrap_or_default().to_lowercase().contains("ubuntu") => System::Ubuntu,
        _ => System::Debian,
    }
}

fn rights() -> Rights {
    if output("id", &["-u"]).is_some_and(|id| id.trim() == "0") {
        Rights::Root
    } else if output("sudo", &["-n", "true"]).is_some() {
        Rights::Sudo
    } else {
        Rights::None
    }
}

/// What a command prints, if it can be started and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A manifest alone is not enough: images of containers bring manifests whose libraries come with the host's driver.
fn vulkan() -> Vec<String> {
    let libraries = ["/sbin/ldconfig", "ldconfig"].iter().find_map(|ldconfig| output(ldconfig, &["-p"])).unwrap_or_default();
    let named: Vec<PathBuf> = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .iter()
        .filter_map(env::var_os)
        .flat_map(|list| env::split_paths(&list).collect::<Vec<_>>())
        .collect();
    let manifests = if named.is_empty() { vulkan_manifests() } else { named };
    let loader = libraries.contains("libvulkan.so.1");
    let drivers = manifests.into_iter().filter(|manifest| loader && driver_exists(manifest, &libraries));
    let mut names: Vec<_> = drivers.filter_map(|manifest| Some(manifest.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

fn vulkan_manifests() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let folders = ["/etc", "/usr/local/etc", "/usr/local/share", "/usr/share", "/run/opengl-driver/share"].map(PathBuf::from);
    let files = folders.into_iter().chain(home).filter_map(|folder| fs::read_dir(folder.join("vulkan/icd.d")).ok());
    files.flat_map(|entries| entries.flatten().map(|entry| entry.path())).collect()
}

/// Whether the library that a manifest names can be found: by path, or by name among the `libraries` of the linker's cache.
fn driver_exists(manifest: &Path, libraries: &str) -> bool {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let Some(library) = text.split("\"library_path\"").nth(1).and_then(|rest| rest.split('"').nth(1)) else {
        return false;
    };
    match manifest.parent() {
        Some(folder) if library.contains('/') => folder.join(library).exists(),
        _ => libraries.contains(library),
    }
}

fn debian_rust(rust_lld: Option<PathBuf>) -> Option<DebianRust> {
    let installed = |package: &str, ending: &str| {
        let files = output("dpkg", &["-L", package])?;
        files.lines().find(|file| file.ends_with(ending)).map(PathBuf::from).filter(|p| p.exists())
    };
    installed("rust-web-src", "/library/std/Cargo.toml")?;
    Some(DebianRust {
        rustc: installed("rustc-web", "/bin/rustc")?,
        cargo: installed("cargo-web", "/bin/cargo")?,
        linker: rust_lld.or_else(|| installed("rust-web-llvm", "/bin/rust-lld"))?,
    })
}
