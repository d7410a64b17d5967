//! A checkpoint comes back to the bit, or not at all.

use super::checkpoints::{load_newest, weights_sha256};
use super::runs::{START, mix, snapshot};
use moelab::lab::memory::Memory;
use moelab::lab::run_folder::RunFolder;
use moelab::lab::store::{Store, StoreError};
use moelab::run::checkpoint::*;
use moelab::run::digest::sha256_hex;
use moelab::run::state::TrainState;

/// The files of one checkpoint: name and content.
type Files = Vec<(String, Vec<u8>)>;

const FILES: [&str; 4] = [MODEL, OPTIMIZER, STATE, MANIFEST];

/// The files of a snapshot, as a run saves them.
fn encode(snapshot: &Snapshot) -> Result<Files, StoreError> {
    let disk = Memory::default();
    let mut run = RunFolder::create(Box::new(disk.clone()), "test", &START).expect("the folder is empty");
    let folder = run.save_checkpoint(snapshot, 1)?;
    let content = |name: &str| disk.read(&format!("{folder}/{name}")).expect("memory is sound").expect("it was saved");
    Ok(FILES.map(|name| (name.to_string(), content(name))).into())
}

/// What a run loads from these files, or why it refuses them.
fn decode(files: &Files, expected: &Expected) -> Result<Snapshot, String> {
    let mut disk = Memory::default();
    let run = RunFolder::create(Box::new(disk.clone()), "test", &START).expect("the folder is empty");
    let whole = files.iter().find(|(name, _)| name == STATE).and_then(|(_, bytes)| serde_json::from_slice::<TrainState>(bytes).ok());
    let folder = RunFolder::checkpoint_folder(whole.map_or(1, |state| state.update));
    for (name, bytes) in files {
        disk.write(&format!("{folder}/{name}"), bytes).expect("memory is sound");
    }
    match load_newest(&run, expected) {
        Ok(loaded) => Ok(loaded.expect("there is one").snapshot),
        Err(StoreError::Exhausted(problems)) => Err(problems.concat().replace(&format!("{folder}: "), "")),
        Err(problem) => panic!("{problem}"),
    }
}

fn files(update: u32) -> Files {
    encode(&snapshot(update)).expect("the snapshot is sound")
}

fn expected() -> Expected {
    Expected::of(&snapshot(1))
}

/// Replaces a file and makes the manifest agree, as a hostile hand would.
fn forged(file: &str, bytes: Vec<u8>) -> Files {
    let mut files = files(1);
    let old = std::mem::replace(content(&mut files, file), bytes.clone());
    let manifest = String::from_utf8(content(&mut files, MANIFEST).clone()).expect("JSON is UTF-8");
    let manifest = manifest.replace(&sha256_hex(&old), &sha256_hex(&bytes));
    let size = |bytes: &[u8]| format!("\"bytes\": {},", bytes.len());
    *content(&mut files, MANIFEST) = manifest.replace(&size(&old), &size(&bytes)).into_bytes();
    verify(&files).expect("a forged manifest agrees with its files");
    files
}

fn verify(files: &Files) -> Result<(), CheckpointError> {
    let content = |name: &str| files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice());
    let mut verification = Verification::new(content(MANIFEST))?;
    while let Some((name, offset)) = verification.next() {
        let rest = content(name).map(|bytes| &bytes[offset as usize..]);
        verification.push(rest)?;
    }
    Ok(())
}

fn content<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(file, _)| file == name).expect("every checkpoint has the file").1
}

/// A safetensors file with this header and data.
fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn returns_to_the_bit() {
    for update in 0..50 {
        assert_eq!(decode(&files(update), &expected()).expect("it is sound"), snapshot(update));
    }
    assert_eq!(files(3), files(3));
    let mut files = files(3);
    let manifest = Manifest::from_bytes(content(&mut files, MANIFEST)).expect("it is sound");
    assert_eq!(manifest.state(content(&mut files, STATE)).expect("it is sound"), snapshot(3).state);
}

/// A model is never in memory to be saved: what is written must not depend on how it comes, and is what the official crate writes.
#[test]
fn pieces_of_any_size_give_the_bytes_of_the_official_crate() {
    let snapshot = snapshot(3);
    for (name, tensors) in [(MODEL, &snapshot.tensors), (OPTIMIZER, &snapshot.optimizer)] {
        let official = safetensors::serialize(tensors.iter().map(|tensor| (&tensor.name, tensor)), None).expect("the snapshot is sound");
        assert_eq!(*content(&mut files(3), name), official, "{name}");
    }
    for piece_bytes in [0, 4, 10, 100, 416, 420, 928, usize::MAX] {
        let disk = Memory::default();
        let mut run = RunFolder::create(Box::new(disk.clone()), "test", &START).expect("the folder is empty");
        let pieces = moelab::train::encoder::pieces(&snapshot, piece_bytes).expect("the snapshot is sound");
        let mut save = run.begin_save(&expected(), &snapshot.state, 1).expect("memory is sound");
        for piece in pieces {
            assert!(save.wants_data() && piece.len() <= piece_bytes.max(4), "{} of {piece_bytes}", piece.len());
            run.push(&mut save, &piece).expect("memory is sound");
        }
        let saved = std::iter::repeat_with(|| run.advance_save(&mut save).expect("memory is sound")).find_map(|saved| saved);
        let saved = saved.expect("the iterator is endless");
        assert_eq!(saved.weights_sha256, weights_sha256(&snapshot.tensors), "{piece_bytes}");
        for (name, bytes) in files(3).into_iter().filter(|(name, _)| name != MANIFEST) {
            let found = disk.read(&format!("{}/{name}", saved.folder)).expect("memory is sound");
            assert_eq!(found, Some(bytes), "{name} in pieces of {piece_bytes}");
        }
        assert_eq!(load_newest(&run, &expected()).expect("readable").expect("saved").snapshot, snapshot);
    }
}

/// The first piece is in the folder when the second is bad; nothing of it may stay.
#[test]
fn a_value_that_is_not_finite_in_a_later_piece_leaves_no_draft() {
    let disk = Memory::default();
    let mut run = RunFolder::create(Box::new(disk.clone()), "test", &START).expect("the folder is empty");
    run.save_checkpoint(&snapshot(1), 3).expect("memory is sound");
    let mut broken = snapshot(2);
    broken.tensors[0].data[103] = f32::NAN;
    let problem = run.save_in_pieces(&broken, 3, 64).expect_err("it is not finite").to_string();
    assert!(problem.contains("`embedding.weight` is NaN at element 103"), "{problem}");
    assert_eq!(disk.list("checkpoints").expect("readable"), ["latest", "update-00000001"]);
    assert_eq!(load_newest(&run, &expected()).expect("readable").expect("saved").snapshot, snapshot(1));
}

#[test]
fn manifest_is_as_documented() {
    let mut files = files(1);
    let text = String::from_utf8(content(&mut files, MANIFEST).clone()).expect("JSON is UTF-8");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!((&json["format"], &json["version"]), (&"moelab-checkpoint".into(), &1.into()));
    let entry = &json["files"]["model.safetensors"];
    let model = content(&mut files, MODEL);
    assert_eq!(entry["bytes"], model.len());
    assert_eq!(entry["sha256"], sha256_hex(model));
}

/// Each damaged checkpoint must be refused, and a run folder must use the previous one and report the problem.
fn refused_and_replaced(damage: impl Fn(&mut Files, u64)) {
    let good = files(2);
    for case in 0..100 {
        let mut damaged = good.clone();
        damage(&mut damaged, case);
        assert_ne!(damaged, good, "case {case} damages nothing");
        let problem = decode(&damaged, &expected()).expect_err("damage must be seen");

        let mut disk = Memory::default();
        let mut run = RunFolder::create(Box::new(disk.clone()), "test", &START).expect("the folder is empty");
        run.save_checkpoint(&snapshot(1), 3).expect("memory is sound");
        let folder = run.save_checkpoint(&snapshot(2), 3).expect("memory is sound");
        for (name, bytes) in &damaged {
            disk.write(&format!("{folder}/{name}"), bytes).expect("memory is sound");
        }
        let loaded = load_newest(&run, &expected()).expect("one is good").expect("there are two");
        assert_eq!(loaded.snapshot, snapshot(1));
        assert_eq!(loaded.warnings, [format!("{folder}: {problem}")]);
    }
}

#[test]
fn flipped_bits_are_seen() {
    for round in 0..2 {
        refused_and_replaced(|files, case| {
            let bits: usize = files.iter().map(|(_, bytes)| bytes.len() * 8).sum();
            // Every second flip hits the small files, which random bits would rarely meet.
            let mut bit = mix(case + 100 * round) as usize % bits;
            if case % 2 == 0 {
                bit = bits - 1 - mix(case) as usize % (8 * (files[2].1.len() + files[3].1.len()));
            }
            for (_, bytes) in files {
                if bit < bytes.len() * 8 {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    return;
                }
                bit -= bytes.len() * 8;
            }
        });
    }
}

/// Every single bit of the manifest, which nothing else vouches for.
#[test]
fn no_bit_of_the_manifest_is_free() {
    let good = files(2);
    for bit in 0..good[3].1.len() * 8 {
        let mut damaged = good.clone();
        damaged[3].1[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged, &expected()).is_err(), "bit {bit} of the manifest");
    }
}

/// Bytes that a reader of JSON would not even notice.
#[test]
fn the_manifest_is_as_it_was_written() {
    let mut spaced = files(2);
    content(&mut spaced, MANIFEST).push(b'\n');
    let problem = decode(&spaced, &expected()).expect_err("a byte more").to_string();
    assert!(problem.contains("its bytes have changed"), "{problem}");
}

#[test]
fn cut_files_are_seen() {
    refused_and_replaced(|files, case| {
        let bytes = &mut files[case as usize % 4].1;
        bytes.truncate(mix(case) as usize % bytes.len());
    });
}

#[test]
fn swapped_and_missing_files_are_seen() {
    for name in FILES {
        let mut mixed = files(2);
        *content(&mut mixed, name) = content(&mut files(1), name).clone();
        assert!(decode(&mixed, &expected()).is_err(), "{name} of another checkpoint");
        let rest: Files = files(2).into_iter().filter(|(file, _)| file != name).collect();
        assert_eq!(decode(&rest, &expected()), Err(CheckpointError::Missing { file: name.into() }.to_string()));
    }
}

#[test]
fn the_message_names_file_wanted_and_found() {
    let mut cut = files(2);
    content(&mut cut, MODEL).truncate(1000);
    let wanted = files(2)[0].1.len();
    let message = decode(&cut, &expected()).expect_err("it is cut").to_string();
    assert_eq!(message, format!("`model.safetensors` has 1000 bytes, the manifest says {wanted}: it was truncated or changed"));
}

#[test]
fn another_model_is_refused() {
    let mut other = expected();
    other.tensors[0].1 = vec![8, 13];
    other.tensors[2].0 = "norm.weight".into();
    let problem = decode(&files(1), &other).expect_err("shapes differ").to_string();
    assert!(problem.contains("`embedding.weight` is F32 [13, 8], expected F32 [8, 13]"), "{problem}");
    assert!(problem.contains("`norm.weight` [8] is missing"), "{problem}");
    assert!(problem.contains("`final_norm.weight` is not part of it"), "{problem}");
}

#[test]
fn order_of_expected_is_the_order_returned() {
    let mut reversed = expected();
    reversed.tensors.reverse();
    let mut wanted = snapshot(1).tensors;
    wanted.reverse();
    assert_eq!(decode(&files(1), &reversed).expect("it is sound").tensors, wanted);
}

#[test]
fn unsound_snapshots_are_not_encoded() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = snapshot(1);
        broken.optimizer[0].data[7] = value;
        let problem = encode(&broken).expect_err("it is not finite").to_string();
        assert!(problem.contains("`embedding.weight.moment1`") && problem.contains("element 7"), "{problem}");
        let mut broken = snapshot(1);
        broken.tensors[1].data[3] = value;
        let problem = encode(&broken).expect_err("it is not finite").to_string();
        assert!(problem.contains("`blocks.0.moe.experts.up.weight`") && problem.contains("element 3"), "{problem}");
    }
    // Finite, but the next update would not be.
    for (name, value, wanted) in [
        ("adamw.v.embedding.weight", -1e-30, "expected 0 or more"),
        ("adamw.corrections.blocks.0.moe.experts.up.weight", 1.5, "expected 0 to 1.001"),
        ("adamw.corrections(0.9, 0.999)", -0.1, "expected 0 to 1.001"),
        ("adamw.m.embedding.weight", -1.5, ""),
        ("muon.momentum.blocks.0.attention.output.weight", -1.5, ""),
    ] {
        let mut state = snapshot(1);
        state.optimizer[0].name = name.into();
        state.optimizer[0].data[7] = value;
        match encode(&state) {
            Ok(_) => assert_eq!(wanted, "", "{name}"),
            Err(problem) => {
                let problem = problem.to_string();
                assert!(!wanted.is_empty() && problem.contains(name) && problem.contains(wanted), "{problem}");
            }
        }
    }
    let mut twice = snapshot(1);
    twice.tensors[1].name = "embedding.weight".into();
    assert!(encode(&twice).is_err());
    let mut ragged = snapshot(1);
    ragged.tensors[1].data.pop();
    assert!(encode(&ragged).is_err());
}

/// Files with a manifest that agrees: only the deeper guards can see what is wrong.
#[test]
fn hostile_files_are_refused() {
    let one = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    // Each size is sound in bits; their sum is 2^64 - 8, to which no header can be added.
    let end = |i: u64| i * ((1 << 61) - 1);
    let huge: Vec<String> =
        (0..8u64).map(|i| format!(r#""t{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}"#, end(1), end(i), end(i + 1))).collect();
    let many: Vec<String> = (0..20_001).map(|i| format!(r#""t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let no_file = "is not a safetensors file";
    let cases = [
        ("too short", vec![1, 2, 3], "fewer than 8 bytes"),
        ("header beyond the file", raw(&" ".repeat(99), &[])[..50].to_vec(), "its header is truncated"),
        ("header of 2^64 bytes", u64::MAX.to_le_bytes().to_vec(), "at most 8388608 is accepted"),
        ("header of 9 MB", raw(&format!("{one}{}", " ".repeat(9 << 20)), &[0; 8]), "at most 8388608 is accepted"),
        ("sizes that overflow", raw(&format!("{{{}}}", huge.join(",")), &[0; 8]), "do not fill the file"),
        ("20,001 tensors", raw(&format!("{{{}}}", many.join(",")), &[]), "20001, at most 20000 is accepted"),
        ("data too short", raw(one, &[0; 4]), "do not fill the file"),
        ("data too long", raw(one, &[0; 12]), "do not fill the file"),
        ("a hole", raw(&one.replace("[0,8]", "[4,12]"), &[0; 12]), no_file),
        ("not JSON", raw("{", &[]), no_file),
        ("nesting", raw(&"[".repeat(100_000), &[]), no_file),
        ("another dtype", raw(&one.replace("F32", "I32"), &[0; 8]), "`w` is I32 [2], expected F32 [2]"),
        ("not a number", raw(one, &[f32::NAN.to_le_bytes(), [0; 4]].concat()), "`w` is NaN at element 0"),
    ];
    let expected = Expected { tensors: vec![("w".into(), vec![2])], ..expected() };
    let good = decode(&forged(MODEL, raw(one, &[0; 8])), &expected).expect("the forger's art is sound");
    assert_eq!(good.tensors[0].data, [0.0, 0.0]);
    for (case, bytes, wanted) in cases {
        let problem = decode(&forged(MODEL, bytes), &expected).expect_err(case).to_string();
        assert!(problem.contains("model.safetensors") && problem.contains(wanted), "{case}: {problem}");
    }
    let mut state = String::from_utf8(files(1)[2].1.clone()).expect("JSON is UTF-8");
    state = state.replacen("\"update\"", "\"surprise\": 1,\n  \"update\"", 1);
    let problem = decode(&forged(STATE, state.into_bytes()), &self::expected()).expect_err("an unknown field");
    assert!(problem.to_string().contains("unknown field `surprise`"), "{problem}");
}

#[test]
fn another_version_is_named() {
    let mut newer = files(1);
    let text = String::from_utf8(content(&mut newer, MANIFEST).clone()).expect("JSON is UTF-8");
    *content(&mut newer, MANIFEST) = text.replace("\"version\": 1", "\"version\": 2").into_bytes();
    assert_eq!(decode(&newer, &expected()), Err(CheckpointError::Version { found: 2, wanted: 1 }.to_string()));
}

#[test]
fn weights_hash_sees_names_shapes_and_bits() {
    let tensors = snapshot(1).tensors;
    let hash = weights_sha256(&tensors);
    let mut reversed = tensors.clone();
    reversed.reverse();
    assert_eq!(weights_sha256(&reversed), hash, "the order of the list does not matter");
    let changes: [fn(&mut NamedTensor); 3] =
        [|t| t.shape = vec![8, 13], |t| t.name.push('x'), |t| t.data[5] = f32::from_bits(t.data[5].to_bits() ^ 1)];
    for change in changes {
        let mut other = tensors.clone();
        change(&mut other[0]);
        assert_ne!(weights_sha256(&other), hash);
    }
    // By hand: one tensor `w` of shape [1] holding 1.0.
    let one = NamedTensor { name: "w".into(), shape: vec![1], data: vec![1.0] };
    let bytes = [&1u64.to_le_bytes()[..], b"w", &1u64.to_le_bytes(), &1u64.to_le_bytes(), &[0, 0, 0x80, 0x3f]].concat();
    assert_eq!(weights_sha256(&[one]), sha256_hex(&bytes));
}
