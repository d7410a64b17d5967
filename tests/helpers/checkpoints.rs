//! Checkpoints as a whole, which the program reads and hashes piece by piece.

// Each test binary uses some of it.
#![allow(dead_code)]

use std::collections::HashMap;

use moelab::{
    lab::{
        run_folder::{Loaded, RunFolder},
        store::StoreError,
    },
    run::{
        checkpoint::{Expected, NamedTensor, Snapshot},
        digest::sha256_hex,
    },
};

/// The newest intact checkpoint of a run.
pub fn load_newest(run: &RunFolder, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
    let mut tensors: HashMap<String, Vec<u8>> = HashMap::new();
    let found = run.read_newest(expected, &mut |name, offset, bytes| {
        let tensor = tensors.entry(name.to_string()).or_default();
        // Those of a damaged checkpoint may have come before.
        tensor.truncate(usize::try_from(offset).expect("it fits in memory"));
        tensor.extend(bytes);
    })?;
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("an f32 has four bytes"));
    let mut named = |specs: &[(String, Vec<usize>)]| -> Vec<NamedTensor> {
        let tensor = |(name, shape): &(String, Vec<usize>)| {
            let bytes = tensors.remove(name).unwrap_or_default();
            NamedTensor { name: name.clone(), shape: shape.clone(), data: bytes.chunks(4).map(value).collect() }
        };
        specs.iter().map(tensor).collect()
    };
    Ok(found.map(|found| Loaded {
        snapshot: Snapshot { tensors: named(&expected.tensors), optimizer: named(&expected.optimizer), state: found.state },
        folder: found.folder,
        warnings: found.warnings,
    }))
}

/// SHA-256 over all tensors in the order of their names: name, shape and little-endian values, each length first.
pub fn weights_sha256(tensors: &[NamedTensor]) -> String {
    let mut sorted: Vec<&NamedTensor> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut bytes = Vec::new();
    for tensor in sorted {
        let sizes = [tensor.name.len(), tensor.shape.len()].map(|size| (size as u64).to_le_bytes());
        bytes.extend([&sizes[0], tensor.name.as_bytes(), &sizes[1]].concat());
        tensor.shape.iter().for_each(|side| bytes.extend((*side as u64).to_le_bytes()));
        tensor.data.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    sha256_hex(&bytes)
}
