//! Saving a checkpoint piece by piece, by the protocol of [`super`]: at most one piece of it is in memory, and every call is short,
//! except for a sync, whose time depends on the medium.

use super::{BEST, LATEST, RunFolder, folder_name, is_leftover};
use crate::{
    lab::{
        files::{CHECKPOINTS, DRAFT, METRICS, SERIES, verify, verify_next},
        store::StoreError,
    },
    run::{
        checkpoint::{CheckpointError, Expected, MANIFEST, PIECE_BYTES, STATE, Snapshot, Verification},
        state::TrainState,
    },
    train::{
        TrainError,
        encoder::{self, Encoder},
        trainer::Trainer,
    },
};

/// A checkpoint that is being saved.
pub struct Save {
    update: u32,
    keep_last: usize,
    draft: String,
    stage: Stage,
}

enum Stage {
    Writing(Box<Encoder>),
    /// The draft is complete and is renamed.
    Naming {
        weights_sha256: String,
    },
    /// The checkpoint is read back.
    Verifying {
        weights_sha256: String,
        verification: Verification,
    },
}

/// A checkpoint that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its folder, relative to the run's.
    pub folder: String,
    /// Its update.
    pub update: u32,
    /// Hash of its weights, see [`run::checkpoint`](crate::run::checkpoint).
    pub weights_sha256: String,
}

impl Save {
    /// Whether [`RunFolder::push`] comes next; otherwise [`RunFolder::advance_save`] does.
    pub fn wants_data(&self) -> bool {
        matches!(self.stage, Stage::Writing(_))
    }

    fn folder(&self) -> String {
        RunFolder::checkpoint_folder(self.update)
    }

    /// Saves the next piece of a trainer's checkpoint that is due.
    ///
    /// # Errors
    /// The device is lost or has failed.
    pub fn proceed(&mut self, folder: &mut RunFolder, trainer: &mut Trainer) -> Result<SaveStep, TrainError> {
        let step = if self.wants_data() {
            let Some(piece) = trainer.snapshot_piece()? else { return Ok(SaveStep::Waiting) };
            folder.push(self, &piece).map(|()| None)
        } else {
            folder.advance_save(self)
        };
        Ok(step.transpose().map_or(SaveStep::Working, SaveStep::Ended))
    }
}

/// The result of a step of a save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveStep {
    /// The next piece is being read from the device.
    Waiting,
    /// A piece was saved.
    Working,
    /// The checkpoint is saved, or saving has failed.
    Ended(Result<Saved, StoreError>),
}

impl RunFolder {
    /// Saves a checkpoint by the protocol above and then deletes all but the newest `keep_last` (at least 1) and the best.
    ///
    /// It is the best if `snapshot.state.best` is of the same update. Call it after the last line of this update. Returns the
    /// folder; after an error the checkpoints before are still there. [`RunFolder::begin_save`] does the same without a snapshot.
    pub fn save_checkpoint(&mut self, snapshot: &Snapshot, keep_last: usize) -> Result<String, StoreError> {
        self.save_in_pieces(snapshot, keep_last, PIECE_BYTES)
    }

    /// Like [`RunFolder::save_checkpoint`], with a maximum piece size in bytes.
    pub fn save_in_pieces(&mut self, snapshot: &Snapshot, keep_last: usize, piece_bytes: usize) -> Result<String, StoreError> {
        let pieces = encoder::pieces(snapshot, piece_bytes)?;
        let mut save = self.begin_save(&Expected::of(snapshot), &snapshot.state, keep_last)?;
        for piece in pieces {
            self.push(&mut save, &piece)?;
        }
        loop {
            if let Some(saved) = self.advance_save(&mut save)? {
                return Ok(saved.folder);
            }
        }
    }

    /// Starts saving a checkpoint of these tensors and this state, like [`RunFolder::save_checkpoint`]: pass the bytes of the tensors
    /// to [`RunFolder::push`], then call [`RunFolder::advance_save`] until it returns the checkpoint. An error of any of these calls
    /// ends the save.
    pub fn begin_save(&mut self, expected: &Expected, state: &TrainState, keep_last: usize) -> Result<Save, StoreError> {
        // A checkpoint that is saved again before the log is read, for a change of settings, keeps its mark.
        let log = match &self.marker {
            Some(marker) => Some(marker.mark()),
            None => self.marks(state.update)?.logs.into_iter().next(),
        };
        let encoder = Encoder::new(expected, state, log)?;
        let wanted = 2 * encoder.total_bytes();
        if let Some(free) = self.store.free_bytes().filter(|&free| free < wanted) {
            return Err(StoreError::Full { wanted, free });
        }
        // A run that starts with a checkpoint has no log yet.
        for path in [SERIES, METRICS] {
            if self.store.read_at(path, 0, 1)?.is_some() {
                self.store.sync(path)?;
            }
        }
        let draft = format!("{CHECKPOINTS}/{}{DRAFT}{}", folder_name(state.update), self.tag);
        let mut save = Save { update: state.update, keep_last, draft, stage: Stage::Writing(Box::new(encoder)) };
        let begun = self.store.remove(&save.draft).and_then(|()| self.write_what_has_no_data(&mut save));
        self.or_remove_draft(&save, begun)?;
        Ok(save)
    }

    /// Writes the next bytes of the tensors' data, in the order and with the piece boundaries of [`Encoder`].
    pub fn push(&mut self, save: &mut Save, piece: &[u8]) -> Result<(), StoreError> {
        let written = self.write_piece(save, piece).and_then(|()| self.write_what_has_no_data(save));
        self.or_remove_draft(save, written)
    }

    /// Does the next step after the tensors. Returns the checkpoint once it is renamed and was read back.
    pub fn advance_save(&mut self, save: &mut Save) -> Result<Option<Saved>, StoreError> {
        match &mut save.stage {
            Stage::Writing(_) => Err(CheckpointError::Missing { file: "the rest of the tensors".to_string() }.into()),
            Stage::Naming { weights_sha256 } => {
                let weights_sha256 = std::mem::take(weights_sha256);
                self.name_draft(save)?;
                let manifest = self.store.read(&format!("{}/{MANIFEST}", save.folder()))?;
                save.stage = Stage::Verifying { weights_sha256, verification: Verification::new(manifest.as_deref())? };
                Ok(None)
            }
            Stage::Verifying { weights_sha256, verification } => {
                let folder = RunFolder::checkpoint_folder(save.update);
                if verify_next(&*self.store, &folder, verification)?? {
                    return Ok(None);
                }
                let weights_sha256 = std::mem::take(weights_sha256);
                self.settle(save)?;
                Ok(Some(Saved { folder, update: save.update, weights_sha256 }))
            }
        }
    }

    fn write_piece(&mut self, save: &mut Save, piece: &[u8]) -> Result<(), StoreError> {
        let Stage::Writing(encoder) = &mut save.stage else { return Ok(()) };
        let encoded = encoder.push(piece)?;
        let path = format!("{}/{}", save.draft, encoded.file);
        match encoded.header {
            Some(header) => self.store.write(&path, &[&header, piece].concat())?,
            None => self.store.append(&path, piece)?,
        }
        if encoded.ends { self.store.sync(&path) } else { Ok(()) }
    }

    /// Writes files whose tensors have no data and, after the last tensor, state and manifest.
    fn write_what_has_no_data(&mut self, save: &mut Save) -> Result<(), StoreError> {
        while let Stage::Writing(encoder) = &save.stage
            && encoder.remaining() == Some(0)
        {
            self.write_piece(save, &[])?;
        }
        if !matches!(&save.stage, Stage::Writing(encoder) if encoder.remaining().is_none()) {
            return Ok(());
        }
        let naming = Stage::Naming { weights_sha256: String::new() };
        let Stage::Writing(encoder) = std::mem::replace(&mut save.stage, naming) else { return Ok(()) };
        let (weights_sha256, state, manifest) = encoder.finish();
        for (name, bytes) in [(STATE, state), (MANIFEST, manifest)] {
            let path = format!("{}/{name}", save.draft);
            self.store.write(&path, &bytes)?;
            self.store.sync(&path)?;
        }
        self.store.sync(&save.draft)?;
        save.stage = Stage::Naming { weights_sha256 };
        Ok(())
    }

    /// Removes a draft that failed, so that it does not fill the disk.
    fn or_remove_draft(&mut self, save: &Save, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        if outcome.is_err() {
            // The first error is the relevant one; the next successful save removes what cannot be removed now.
            let _ = self.store.remove(&save.draft);
        }
        outcome
    }

    /// Renames a draft, unless the folder of this name already has the same content.
    fn name_draft(&mut self, save: &Save) -> Result<(), StoreError> {
        let folder = save.folder();
        let manifest = |folder: &str| self.store.read(&format!("{folder}/{MANIFEST}")).ok().flatten();
        let holds_the_same = manifest(&folder).is_some_and(|found| Some(found) == manifest(&save.draft))
            && verify(&*self.store, &folder).is_ok_and(|found| found.is_ok());
        if holds_the_same {
            return self.store.remove(&save.draft);
        }
        if !self.store.list(&folder)?.is_empty() {
            // A damaged or outdated checkpoint of the same update: the draft replaces it as soon as its name is durable.
            self.store.sync(CHECKPOINTS)?;
            self.store.remove(&folder)?;
        }
        self.store.rename(&save.draft, &folder)?;
        self.store.sync(CHECKPOINTS)?;
        self.store.sync("")
    }

    /// Updates the pointers and prunes.
    fn settle(&mut self, save: &Save) -> Result<(), StoreError> {
        let best = self.best()?;
        self.point(LATEST, Some(&folder_name(save.update)))?;
        self.point(BEST, best.first().map(String::as_str))?;
        self.prune(save.keep_last, best.first())?;
        for name in self.store.list(CHECKPOINTS)?.into_iter().filter(|name| is_leftover(name)) {
            self.store.remove(&format!("{CHECKPOINTS}/{name}"))?;
        }
        Ok(())
    }
}
