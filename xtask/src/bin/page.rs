//! Assembles the page: `xtask-page OUTPUT-FOLDER INPUT.wasm...`, in the workspace folder.
//!
//! The JavaScript glue and the modules are generated from the compiled inputs, those of the window and of the trainer; the rest comes from `web/`
//! and `configs/`.
//! wasm-bindgen is used as a library rather than through its CLI, so that `Cargo.lock` pins it to the version of the crate.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

const FILES: &[&str] = &[
    "web/app.js",
    "web/index.html",
    "web/page.js",
    "web/remedy.js",
    "web/remote.js",
    "web/study.js",
    "web/text.html",
    "web/trainer.js",
    "web/texts/shakespeare.txt",
    "web/worker.js",
    "configs/quickstart.toml",
    "configs/example/base.toml",
    "configs/example/suite.toml",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [out, modules @ ..] = arguments.as_slice() else {
        eprintln!("usage: xtask-page OUTPUT-FOLDER INPUT.wasm...");
        return ExitCode::FAILURE;
    };
    match assemble(modules, Path::new(out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn assemble(modules: &[String], out: &Path) -> Result<()> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    for wasm in modules {
        Bindgen::new()
            .input_path(wasm)
            .web(true)?
            .typescript(false)
            .omit_default_module_path(false)
            .generate(out)
            .with_context(|| format!("wasm-bindgen on {wasm}"))?;
    }
    for file in FILES.iter().map(Path::new) {
        let name = file.file_name().context("a file of the page has a name")?;
        fs::copy(file, out.join(name)).with_context(|| file.display().to_string())?;
    }
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        println!("{:>10} bytes  {}", entry.metadata()?.len(), entry.path().display());
    }
    Ok(())
}
