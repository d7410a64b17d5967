//! What a save needs of the host's memory: some pieces, never a second copy of the model.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use moelab::{
    data::{Corpus, dataset::Batch, tokenizer::Tokenizer},
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment, Host},
        store::Store,
    },
    run::{
        Config,
        protocol::{Command, Problem, SessionEvent},
    },
};
use moelab_native::store::Directory;

/// Bytes on the heap of Rust, and the most there were.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "a global allocator is unsafe to implement; it hands every call to the system's")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two tensors of 16 MB, with moments 96 MB of checkpoint.
const RUN: &str = r#"
[model]
width = 64
context = 8
depth.layers = 1
attention.heads = 1
ffn.width = 8
vocabulary = 65536
router = { experts = 2, top_k = 1 }
[data]
sequence_length = 8
batch = 1
[train]
updates = 1
micro_batches = 1
evaluation.every = 1
checkpoint = { every = 0, best = false }
[model.head]
tied = false
[sample]
prompts = []
"#;

/// The process's memory now and its most since it was last reset, where the system tells (Linux).
fn resident() -> Option<[usize; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kilobytes| kilobytes << 10)
    };
    Some([field("VmRSS")?, field("VmHWM")?])
}

struct Folder(std::path::PathBuf);

impl Environment for Folder {
    fn device(&mut self) -> DeviceFuture {
        Box::pin(async { Device::open(&AdapterChoice::Best).await.map(Rc::new).map_err(|error| Problem::new(error.to_string())) })
    }

    fn corpus(&mut self, config: Config, _: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        let batch = Batch { tokens: (0..8).collect(), targets: (1..9).collect() };
        Ok((config, Corpus::Batches { training: vec![batch.clone()], validation: vec![batch] }))
    }

    fn store(&mut self, _: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(Box::new(Directory::open(&self.0).map_err(|error| Problem::new(error.to_string()))?))
    }

    fn clock(&self) -> Clock {
        Rc::new(|| 0.0)
    }

    fn tag(&self) -> String {
        "test".into()
    }
}

/// What was held on the heap and resident when a measurement began.
struct Before {
    held: usize,
    resident: Option<usize>,
}

impl Before {
    fn now() -> Before {
        let held = HELD.load(Ordering::Relaxed);
        MOST.store(held, Ordering::Relaxed);
        let is_reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        Before { held, resident: resident().filter(|_| is_reset).map(|[now, _]| now) }
    }

    /// The most bytes more, on the heap and resident; the latter is 0 where the system does not tell.
    fn most(&self) -> [usize; 2] {
        let most = MOST.load(Ordering::Relaxed).saturating_sub(self.held);
        [most, self.resident.zip(resident()).map_or(0, |(before, [_, most])| most.saturating_sub(before))]
    }
}

/// Drives a host until `wanted` picks something of what it tells.
fn until<T>(host: &mut Host<Folder>, mut wanted: impl FnMut(SessionEvent) -> Option<T>) -> T {
    loop {
        let (events, activity) = host.advance(0.0);
        for event in events {
            if let SessionEvent::Failed(problem) = event {
                panic!("{problem}");
            }
            if let Some(found) = wanted(event) {
                return found;
            }
        }
        match activity {
            Activity::Busy => {}
            Activity::Waiting => host.wait(),
            Activity::Idle => panic!("the host waits for a command"),
        }
    }
}

#[test]
fn a_save_needs_the_memory_of_a_few_pieces_and_resuming_that_of_a_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut host = Host::new(Folder(run.clone()));
    host.send(Command::Start { run: "run".into(), config: RUN.into(), sets: Vec::new() });
    // A save comes next.
    until(&mut host, |event| matches!(event, SessionEvent::Evaluated { .. }).then_some(()));
    let before = Before::now();
    until(&mut host, |event| matches!(event, SessionEvent::Saved { .. }).then_some(()));
    let [heap, resident] = before.most();
    until(&mut host, |event| matches!(event, SessionEvent::Ended(_)).then_some(()));
    drop(host);

    let saved = run.join("checkpoints/update-00000001");
    let [model, moments] = ["model.safetensors", "optim.safetensors"].map(|name| saved.join(name).metadata().unwrap().len() as usize);
    println!("a save of {} MB: {} KB more heap, {} KB more resident", (model + moments) >> 20, heap >> 10, resident >> 10);
    assert!(model + moments > 90 << 20, "{model} and {moments} bytes");
    // A piece has 256 KB; some are on their way, one is hashed and written.
    assert!(heap < 4 << 20, "{heap} bytes more on the heap");
    assert!(resident < 16 << 20, "{resident} bytes more resident");

    let mut host = Host::new(Folder(run.clone()));
    host.send(Command::Resume { run: "run".into(), sets: Vec::new(), allow: Vec::new() });
    let before = Before::now();
    until(&mut host, |event| matches!(event, SessionEvent::Opened(_)).then_some(()));
    let [heap, _] = before.most();
    println!("resuming: {} KB more heap", heap >> 10);
    // The initial values are made tensor by tensor; kernels are compiled, too.
    let largest = 65_536 * 64 * size_of::<f32>();
    assert!(heap < 2 * largest + (16 << 20), "{heap} bytes more on the heap");
}
