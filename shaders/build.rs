//! Build script of the core: generates its kernels, where there is an engine that calls them.

#[cfg(feature = "engine")]
#[path = "build/kernels.rs"]
mod kernels;

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    #[cfg(feature = "engine")]
    if let Err(message) = kernels::generate() {
        eprintln!("{message}");
        std::process::exit(1);
    }
}
