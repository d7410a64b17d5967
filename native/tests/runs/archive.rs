//! Run folders as one file: what comes back, what other programs make of it, and what is refused.

use std::{fs, process::Command};

use moelab::lab::{
    archive::{pack, unpack},
    memory::Memory,
    store::Store,
};

const BLOCK: usize = 512;

fn run() -> Memory {
    let mut run = Memory::default();
    for (path, bytes) in [
        ("config.effective.toml", b"seed = 1\n".to_vec()),
        ("metrics.jsonl", vec![b'x'; 1025]),
        ("checkpoints/latest", b"update-00000004\n".to_vec()),
        ("checkpoints/update-00000004/model.safetensors", (0..=255).collect()),
        ("checkpoints/update-00000008.tmp-tab/model.safetensors", vec![1]),
        ("empty", Vec::new()),
    ] {
        run.write(path, &bytes).unwrap();
    }
    run
}

/// The files of a run without drafts of saves that were cut short.
fn whole() -> Vec<String> {
    run().paths().into_iter().filter(|path| !path.contains(".tmp-")).collect()
}

fn packed() -> Vec<u8> {
    pack(&run(), "a-run").unwrap()
}

#[test]
fn a_run_comes_back_and_tar_reads_and_writes_the_same_files() {
    let assert_same = |archive: &[u8], what: &str| {
        let mut found = Memory::default();
        unpack(archive).unwrap_or_else(|error| panic!("{what}: {error}")).write(&mut found).unwrap();
        assert_eq!(found.paths(), whole(), "{what}");
        for path in whole() {
            assert_eq!(found.read(&path).unwrap(), run().read(&path).unwrap(), "{what}: {path}");
        }
    };
    assert_same(&packed(), "as it is");
    // A long name is split between two fields.
    assert_same(&pack(&run(), &"n".repeat(100)).unwrap(), "long");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.tar"), packed()).unwrap();
    let tar = |arguments: &[&str]| {
        Command::new("tar").current_dir(folder.path()).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !tar(&["xf", "a.tar"]) {
        println!("skipped the rest: there is no `tar` here");
        return;
    }
    for path in whole() {
        assert_eq!(fs::read(folder.path().join("a-run").join(&path)).unwrap(), run().read(&path).unwrap().unwrap(), "{path}");
    }
    for format in ["gnu", "ustar", "pax"] {
        assert!(tar(&["cf", "b.tar", &format!("--format={format}"), "a-run"]) && tar(&["cf", "c.tar", "./a-run"]));
        for name in ["b.tar", "c.tar"] {
            assert_same(&fs::read(folder.path().join(name)).unwrap(), format);
        }
    }
}

/// The archive with changes in its first header, whose sum is right again.
fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut archive = packed();
    change(&mut archive[..BLOCK]);
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

/// With one more entry of this path and kind, which has no content.
fn with(path: &str, kind: u8) -> Vec<u8> {
    let entry = changed(|header| {
        header[..100].fill(0);
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[124..136].copy_from_slice(b"00000000000\0");
        header[156] = kind;
    });
    [&entry[..BLOCK], &packed()].concat()
}

#[test]
fn hostile_archives_are_refused() {
    let mut damaged = packed();
    damaged[0] ^= 1;
    let mut no_config = run();
    no_config.remove("config.effective.toml").unwrap();
    let cases = [
        ("up", with("a-run/../../x", b'0')),
        ("absolute", with("/etc/passwd", b'0')),
        ("backslash", with("a-run/..\\x", b'0')),
        ("no folder", with("x", b'0')),
        ("second folder", with("other/x", b'0')),
        ("link", with("a-run/x", b'2')),
        ("device", with("a-run/x", b'3')),
        ("twice", with("a-run/metrics.jsonl", b'0')),
        ("deep", with("a-run/a/b/c/d/e", b'0')),
        ("name of a device", with("a-run/NUL", b'0')),
        ("cut off", packed()[..600].to_vec()),
        ("damaged", damaged),
        ("huge", changed(|header| header[124..136].copy_from_slice(b"77777777777\0"))),
        ("no config", pack(&no_config, "a-run").unwrap()),
        ("empty", Vec::new()),
        ("text", b"seed = 1\n".repeat(200)),
    ];
    for (name, archive) in cases {
        let Err(error) = unpack(&archive) else { panic!("{name}") };
        println!("{name}: {error}");
    }
    // Folders and attributes of files, as other programs write them, do no harm.
    for kind in [b'5', b'x', b'g'] {
        assert!(unpack(&with("a-run/", kind)).is_ok(), "{kind}");
    }
}
