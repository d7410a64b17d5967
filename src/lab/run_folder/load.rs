//! Reading a checkpoint piece by piece, by the protocol of [`super`]: it is verified first, then its tensors are passed on.

use super::{LOOKS, RunFolder, states};
use crate::{
    lab::{
        files::{CHECKPOINTS, DRAFT, update_of, verify},
        store::StoreError,
    },
    run::{
        checkpoint::{CheckpointError, Expected, MANIFEST, Manifest, PIECE_BYTES, STATE, Snapshot},
        state::TrainState,
    },
    train::checkpoint::{self, Collected, Take},
};

/// An intact checkpoint, with its tensors in memory.
#[derive(Debug, PartialEq)]
pub struct Loaded {
    /// Its content.
    pub snapshot: Snapshot,
    /// Its folder, relative to the run's.
    pub folder: String,
    /// One line for each newer checkpoint that could not be used: folder and reason.
    pub warnings: Vec<String>,
}

/// An intact checkpoint whose tensors were passed on.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// Its state.
    pub state: TrainState,
    /// Hash of its weights, see [`run::checkpoint`](crate::run::checkpoint).
    pub weights_sha256: String,
    /// See [`Loaded`].
    pub folder: String,
    /// See [`Loaded`].
    pub warnings: Vec<String>,
}

impl RunFolder {
    /// The checkpoint with the best evaluation, or else the best intact one, with a warning.
    pub fn load_best(&self, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
        let mut collected = Collected::new(expected);
        let found = self.read_best(expected, &mut |name, offset, bytes| collected.take(name, offset, bytes))?;
        let loaded = |Found { state, folder, warnings, .. }| Loaded { snapshot: collected.finish(expected, state), folder, warnings };
        Ok(found.map(loaded))
    }

    /// The newest intact checkpoint; `None` if none was ever finished, an error if none is intact. At most one piece of the tensors is in
    /// memory: each is passed to `take`. The pieces are valid only if a checkpoint is returned; some pieces of a damaged checkpoint may
    /// be passed as well.
    pub fn read_newest(&self, expected: &Expected, take: Take) -> Result<Option<Found>, StoreError> {
        self.look(|| self.read_first(self.candidates()?, expected, &mut *take))
    }

    /// Like [`RunFolder::load_best`], piece by piece as [`RunFolder::read_newest`].
    pub fn read_best(&self, expected: &Expected, take: Take) -> Result<Option<Found>, StoreError> {
        self.look(|| {
            let mut candidates = self.best()?;
            let others: Vec<String> = self.candidates()?.into_iter().filter(|folder| !candidates.contains(folder)).collect();
            candidates.extend(others);
            let mut found = self.read_first(candidates, expected, &mut *take)?;
            if let Some(found) = &mut found
                && let Some(best) = states(&*self.store)?.first().and_then(|(_, state)| state.best)
                && best.update != found.state.update
            {
                let (at, used) = (best.update, found.state.update);
                found
                    .warnings
                    .push(format!("the best evaluation was after update {at}, which has no intact checkpoint: update {used} is used"));
            }
            Ok(found)
        })
    }

    /// Tries again if there was a problem and checkpoints were added or removed meanwhile, because the writer prunes.
    fn look(&self, mut look: impl FnMut() -> Result<Option<Found>, StoreError>) -> Result<Option<Found>, StoreError> {
        let mut before = self.candidates()?;
        for _ in 1..LOOKS {
            let found = look();
            let is_sound = matches!(&found, Ok(Some(found)) if found.warnings.is_empty());
            let now = self.candidates()?;
            if is_sound || now == before {
                return found;
            }
            before = now;
        }
        look()
    }

    fn read_first(&self, folders: Vec<String>, expected: &Expected, take: Take) -> Result<Option<Found>, StoreError> {
        let mut warnings = Vec::new();
        for name in folders {
            let folder = format!("{CHECKPOINTS}/{name}");
            match self.read_one(&name, expected, &mut *take) {
                Ok((state, weights_sha256)) => return Ok(Some(Found { state, weights_sha256, folder, warnings })),
                // A crash may leave an incomplete draft; it is not reported.
                Err(_) if name.contains(DRAFT) => {}
                Err(StoreError::Checkpoint(problem)) => warnings.push(format!("{folder}: {problem}")),
                Err(problem) => warnings.push(format!("{folder}: {problem}")),
            }
        }
        match warnings.is_empty() {
            true => Ok(None),
            false => Err(StoreError::Exhausted(warnings)),
        }
    }

    /// State, and hash of the weights.
    fn read_one(&self, name: &str, expected: &Expected, take: Take) -> Result<(TrainState, String), StoreError> {
        let folder = format!("{CHECKPOINTS}/{name}");
        verify(&*self.store, &folder)??;
        let small = |file: &str| -> Result<Vec<u8>, StoreError> {
            let missing = || CheckpointError::Missing { file: file.to_string() };
            Ok(self.store.read(&format!("{folder}/{file}"))?.ok_or_else(missing)?)
        };
        let manifest = Manifest::from_bytes(&small(MANIFEST)?)?;
        let state = manifest.state(&small(STATE)?)?;
        if update_of(name) != Some(state.update) {
            return Err(StoreError::Unreadable(format!("it holds update {}: the folder was renamed", state.update)));
        }
        let weights_sha256 = self.read_tensors(&folder, &manifest, expected, take)?;
        Ok((state, weights_sha256))
    }

    /// Passes on the tensors of a verified checkpoint; returns the hash of the weights.
    fn read_tensors(&self, folder: &str, manifest: &Manifest, expected: &Expected, take: Take) -> Result<String, StoreError> {
        let mut read = |file: &str, offset: u64, bytes: usize| self.store.read_at(&format!("{folder}/{file}"), offset, bytes);
        checkpoint::read_tensors(manifest.tensor_file_bytes(), expected, PIECE_BYTES, &mut read, take)
    }

    /// Saves the checkpoint of an update again, with another state of the same update.
    pub(in crate::lab) fn save_again(&mut self, expected: &Expected, state: &TrainState, keep_last: usize) -> Result<(), StoreError> {
        // A complete draft may have the name of the new one.
        self.settle_draft(state.update)?;
        let folder = Self::checkpoint_folder(state.update);
        let manifest = self.store.read(&format!("{folder}/{MANIFEST}"))?;
        let missing = || CheckpointError::Missing { file: MANIFEST.to_string() };
        let manifest = Manifest::from_bytes(&manifest.ok_or_else(missing)?)?;
        let mut save = self.begin_save(expected, state, keep_last)?;
        let parts = checkpoint::tensor_parts(manifest.tensor_file_bytes(), expected, PIECE_BYTES, &mut |file, offset, bytes| {
            self.store.read_at(&format!("{folder}/{file}"), offset, bytes)
        })?;
        for part in parts {
            let piece = self.store.read_at(&format!("{folder}/{}", part.file), part.at, part.bytes)?;
            self.push(&mut save, &piece.unwrap_or_default())?;
        }
        while self.advance_save(&mut save)?.is_none() {}
        Ok(())
    }
}
