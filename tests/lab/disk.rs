//! A disk that can lose power: what was not synced may be there afterwards, or not, or in part.
//!
//! The model is as weak as POSIX allows. Content survives only if its file was synced, a name only if its folder was; names
//! that were not synced survive or not, each by chance; unsynced content may be old, new, cut or zero. A rename is
//! atomic. Operations can be made to fail: once with an error, or once and for all, as when the process dies.

use super::runs::mix;
use moelab::lab::store::{Store, StoreError, check_path};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

type NodeId = usize;

#[derive(Clone, Default)]
struct Node {
    folder: bool,
    live: Vec<u8>,
    durable: Vec<u8>,
    live_names: BTreeMap<String, NodeId>,
    durable_names: BTreeMap<String, NodeId>,
}

/// Entries that change together: folder, name, what it now is.
type Change = Vec<(NodeId, String, Option<NodeId>)>;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The process dies before it.
    Crash,
    /// The process dies when half of it is done.
    Torn,
    /// It fails and does nothing.
    Error,
    /// It writes half of its bytes, then fails.
    Short,
    /// It fails and does nothing, and so does every write after it: the disk is full.
    Full,
}

#[derive(Clone, Default)]
struct State {
    nodes: Vec<Node>,
    pending: Vec<Change>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    dead: bool,
    syncs: bool,
    free: Option<u64>,
}

/// The disk; clones share it.
#[derive(Clone)]
pub struct Disk(Rc<RefCell<State>>);

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        let root = Node { folder: true, ..Node::default() };
        Self(Rc::new(RefCell::new(State { nodes: vec![root], syncs: true, ..State::default() })))
    }

    /// A disk whose `sync` does nothing.
    pub fn without_sync() -> Self {
        let disk = Self::new();
        disk.0.borrow_mut().syncs = false;
        disk
    }

    /// Lets the operation with this number (counted from 0) fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.0.borrow_mut().fault = Some((operation, fault));
    }

    /// States the free bytes.
    pub fn set_free(&self, bytes: u64) {
        self.0.borrow_mut().free = Some(bytes);
    }

    /// Operations so far that change something.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// The process that died starts again; what was written is there.
    pub fn restart(&self) {
        let mut state = self.0.borrow_mut();
        (state.dead, state.fault) = (false, None);
    }

    /// The content of every file by its path.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.borrow();
        let (mut files, mut open) = (BTreeMap::new(), vec![(String::new(), 0)]);
        while let Some((path, node)) = open.pop() {
            let node = &state.nodes[node];
            match node.folder {
                true => open.extend(
                    node.live_names.iter().map(|(name, node)| (format!("{path}/{name}").trim_start_matches('/').to_string(), *node)),
                ),
                false => drop(files.insert(path, node.live.clone())),
            }
        }
        files
    }

    /// The machine loses power and starts again; `seed` decides what of the unsynced survives.
    pub fn power_cut(&self, seed: u64) {
        let mut state = self.0.borrow_mut();
        let mut chance = Chance(seed);
        for change in std::mem::take(&mut state.pending) {
            if chance.next().is_multiple_of(2) {
                state.make_durable(change);
            }
        }
        for node in &mut state.nodes {
            if node.live != node.durable {
                // What was synced before something was added to it is safe.
                let safe = if node.live.starts_with(&node.durable) { node.durable.len() } else { 0 };
                // Of a file that was cut, the old length is there or the new.
                if node.durable.starts_with(&node.live) {
                    if chance.next().is_multiple_of(2) {
                        node.durable = node.live.clone();
                    }
                    node.live = node.durable.clone();
                    node.live_names = node.durable_names.clone();
                    continue;
                }
                let cut = safe + chance.next() as usize % (node.live.len() - safe + 1);
                node.durable = match chance.next() % 4 {
                    0 => std::mem::take(&mut node.durable),
                    1 => node.live.clone(),
                    2 => node.live[..cut].to_vec(),
                    _ => [&node.live[..cut], &vec![0; node.live.len() - cut]].concat(),
                };
            }
            node.live = node.durable.clone();
            node.live_names = node.durable_names.clone();
        }
        (state.dead, state.fault) = (false, None);
    }
}

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }
}

impl State {
    fn find(&self, path: &str) -> Option<NodeId> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(0, |at, name| self.nodes[at].live_names.get(name).copied())
    }

    fn change(&mut self, change: Change) {
        for (folder, name, node) in &change {
            match node {
                Some(node) => self.nodes[*folder].live_names.insert(name.clone(), *node),
                None => self.nodes[*folder].live_names.remove(name),
            };
        }
        self.pending.push(change);
    }

    fn make_durable(&mut self, change: Change) {
        for (folder, name, node) in change {
            match node {
                Some(node) => self.nodes[folder].durable_names.insert(name, node),
                None => self.nodes[folder].durable_names.remove(&name),
            };
        }
    }

    fn add(&mut self, folder: NodeId, name: &str, node: Node) -> NodeId {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change(vec![(folder, name.to_string(), Some(id))]);
        id
    }

    /// The folder above a path, made if it is not there, and the last name.
    fn parent<'a>(&mut self, path: &'a str) -> (NodeId, &'a str) {
        let mut names: Vec<&str> = path.split('/').collect();
        let last = names.pop().expect("split gives at least one");
        let mut at = 0;
        for name in names {
            at = match self.nodes[at].live_names.get(name) {
                Some(node) => *node,
                None => self.add(at, name, Node { folder: true, ..Node::default() }),
            };
        }
        (at, last)
    }

    fn file(&mut self, path: &str) -> NodeId {
        let (folder, name) = self.parent(path);
        match self.nodes[folder].live_names.get(name) {
            Some(node) => *node,
            None => self.add(folder, name, Node::default()),
        }
    }

    /// Counts an operation; `Err` if it fails, `Ok(Some)` if it is to fail after half of its work.
    fn begin(&mut self, action: &'static str, path: &str) -> Result<Option<StoreError>, StoreError> {
        check_path(path)?;
        let failed = StoreError::Medium { action, path: path.to_string(), problem: "injected".to_string() };
        if self.dead {
            return Err(failed);
        }
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Short)) if at == now => Ok(Some(failed)),
            Some((at, Fault::Torn)) if at == now => {
                self.dead = true;
                Ok(Some(failed))
            }
            Some((at, Fault::Full)) if at < now && ["write", "append"].contains(&action) => Err(failed),
            Some((at, fault)) if at == now => {
                self.dead = fault == Fault::Crash;
                Err(failed)
            }
            _ => Ok(None),
        }
    }
}

impl Store for Disk {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.0.borrow();
        Ok(state.find(path).map(|node| state.nodes[node].live.clone()))
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        let short = state.begin("write", path)?;
        let node = state.file(path);
        state.nodes[node].live = bytes[..if short.is_some() { bytes.len() / 2 } else { bytes.len() }].to_vec();
        short.map_or(Ok(()), Err)
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        let short = state.begin("append", path)?;
        let node = state.find(path).expect("only what is there is added to");
        state.nodes[node].live.extend_from_slice(&bytes[..if short.is_some() { bytes.len() / 2 } else { bytes.len() }]);
        short.map_or(Ok(()), Err)
    }

    fn truncate(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        let torn = state.begin("truncate", path)?;
        let node = state.find(path).expect("only what is there is cut");
        if torn.is_none() {
            state.nodes[node].live.truncate(length as usize);
        }
        torn.map_or(Ok(()), Err)
    }

    fn sync(&mut self, path: &str) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        if let Some(error) = state.begin("sync", path)? {
            return Err(error);
        }
        let node = state.find(path).expect("only what is there is synced");
        if !state.syncs {
            return Ok(());
        }
        state.nodes[node].durable = state.nodes[node].live.clone();
        let (done, pending) =
            std::mem::take(&mut state.pending).into_iter().partition(|change: &Change| change.iter().any(|c| c.0 == node));
        state.pending = pending;
        let done: Vec<Change> = done;
        done.into_iter().for_each(|change| state.make_durable(change));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        if let Some(error) = state.begin("rename", from)? {
            return Err(error);
        }
        let node = state.find(from).expect("only what is there is renamed");
        if let Some(target) = state.find(to) {
            assert!(!state.nodes[target].folder, "a folder must not replace another");
        }
        let ((old, old_name), (new, new_name)) = (state.parent(from), state.parent(to));
        state.change(vec![(old, old_name.to_string(), None), (new, new_name.to_string(), Some(node))]);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        let short = state.begin("remove", path)?;
        let Some(node) = state.find(path) else { return short.map_or(Ok(()), Err) };
        // A folder goes name by name, and may go in part.
        let names: Vec<String> = state.nodes[node].live_names.keys().cloned().collect();
        let count = if short.is_some() { names.len() / 2 } else { names.len() };
        for name in &names[..count] {
            state.change(vec![(node, name.clone(), None)]);
        }
        if let Some(error) = short {
            return Err(error);
        }
        let (folder, name) = state.parent(path);
        state.change(vec![(folder, name.to_string(), None)]);
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let state = self.0.borrow();
        Ok(state.find(folder).map(|node| state.nodes[node].live_names.keys().cloned().collect()).unwrap_or_default())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.0.borrow().free
    }
}
