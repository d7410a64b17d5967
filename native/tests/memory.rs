//! What a run needs of the host's memory: a save some pieces, never a second copy of the model; an update the record of its measurements.

#[path = "../../tests/helpers/skipped.rs"]
mod skipped;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    collections::BTreeMap,
    env, process,
    rc::Rc,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use moelab::{
    data::{
        Corpus,
        dataset::Batch,
        prepare::{NoFiles, Purpose, corpus},
        tokenizer::Tokenizer,
    },
    gpu::{AdapterChoice, Device, PlanOptions},
    lab::{
        host::{Activity, Clock, DeviceFuture, Environment, Host},
        store::Store,
    },
    run::{
        Config,
        config::load,
        protocol::{Command, Problem, SessionEvent},
        records::UpdateRecord,
        series::Record,
    },
    train::trainer::{Progress, Trainer},
};
use moelab_native::store::Directory;
use skipped::skipped;

/// Bytes on the heap of Rust, and the most there were; and where the allocations of a thread that looks are made.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static PLACES: Mutex<Vec<Backtrace>> = Mutex::new(Vec::new());
/// One test at a time, as they share the heap.
static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    static LOOKS: Cell<bool> = const { Cell::new(false) };
}

fn note_place() {
    if LOOKS.try_with(Cell::get) == Ok(true) {
        LOOKS.set(false);
        PLACES.lock().unwrap().push(Backtrace::force_capture());
        LOOKS.set(true);
    }
}

#[expect(unsafe_code, reason = "a global allocator is unsafe to implement; it hands every call to the system's")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        note_place();
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
    let _alone = ALONE.lock().unwrap();
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

const UPDATES: &str = r#"
[model]
width = 32
context = 8
depth.layers = 1
attention.heads = 2
ffn.width = 16
vocabulary = 256
router = { experts = 4, top_k = 2 }
[data]
sequence_length = 8
batch = 2
[train]
updates = 100
evaluation.every = 100
checkpoint = { every = 0, best = false }
[sample]
prompts = []
"#;

/// The place that allocates, if it is moelab's: the first of the stack that is neither the standard library's nor this test's.
fn own_place(stack: &Backtrace) -> Option<String> {
    let text = stack.to_string();
    // Frames as `4: name`, most with a line `at file:line:column` below.
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let place = lines.next_if(|line| line.starts_with("at ")).unwrap_or_default();
        let name = line.split_once(": ").map_or(line, |(_, name)| name);
        let root = name.trim_start_matches(['<', '&', '[']).trim_start_matches("mut ").trim_start_matches("dyn ");
        let root = root.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
        let is_passed = ["std", "core", "alloc", "hashbrown", "memory"].contains(&root) || root.starts_with("__");
        // Where its sources are installed, the standard library's places are theirs.
        let is_std = ["/rustc/", "/rustlib/src/"].iter().any(|folder| place.contains(folder));
        if !is_passed && !is_std && !place.contains("tests/memory.rs") {
            // The libraries of others have no places, or those of a registry.
            let is_own = root == "moelab" || place.contains("src/") && !place.contains("/registry/");
            return is_own.then(|| format!("{name} {place}"));
        }
    }
    None
}

/// The allocations of moelab's own code in some updates of so many micro-batches after the first ones, by place; and the last record.
fn own_allocations(device: &Rc<Device>, micro_batches: u32, updates: usize) -> (BTreeMap<String, usize>, UpdateRecord) {
    let set = format!("train.micro_batches={micro_batches}");
    let config = load(&|_| Ok(UPDATES.to_string()), "updates.toml", &[set]).unwrap_or_else(|problems| panic!("{problems}"));
    let batch = Batch { tokens: (0..16).collect(), targets: (1..17).collect() };
    let corpus = Corpus::Batches { training: vec![batch.clone()], validation: vec![batch] };
    let mut trainer = Trainer::new(config, device.clone(), corpus, PlanOptions::default()).unwrap();
    let mut record = UpdateRecord::default();
    let mut advance = |trainer: &mut Trainer, wanted: usize, looks: bool| {
        let mut made = 0;
        while made < wanted {
            LOOKS.set(looks);
            let progress = trainer.advance();
            LOOKS.set(false);
            for progress in progress.unwrap() {
                if let Progress::Update(update) = progress {
                    (record, made) = (update, made + 1);
                }
            }
            trainer.wait().unwrap();
        }
    };
    advance(&mut trainer, 6, false);
    PLACES.lock().unwrap().clear();
    advance(&mut trainer, updates, true);
    let mut places = BTreeMap::new();
    let stacks = std::mem::take(&mut *PLACES.lock().unwrap());
    println!(
        "{micro_batches} micro-batches: {} allocations an update, of the driver's and the GPU library's as well",
        stacks.len() / updates
    );
    assert!(stacks.len() > updates, "the GPU library allocates in every submission");
    for place in stacks.iter().filter_map(own_place) {
        *places.entry(place).or_insert(0) += 1;
    }
    (places, record)
}

#[test]
fn an_update_allocates_its_record_and_nothing_for_a_micro_batch() {
    const MADE: usize = 2;
    // Where these ask for it, the GPU library takes traces too, and traces do not nest.
    let asks = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];
    if asks.iter().any(|name| env::var_os(name).is_some()) {
        let mut again = process::Command::new(env::current_exe().unwrap());
        asks.iter().for_each(|name| _ = again.env_remove(name));
        let outcome =
            again.args(["--exact", "an_update_allocates_its_record_and_nothing_for_a_micro_batch", "--nocapture"]).output().unwrap();
        assert!(outcome.status.success(), "{}{}", String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
        return print!("{}", String::from_utf8_lossy(&outcome.stdout));
    }
    let _alone = ALONE.lock().unwrap();
    let device = Rc::new(pollster::block_on(Device::open(&AdapterChoice::default())).unwrap());
    let (one, record) = own_allocations(&device, 1, MADE);
    let (two, _) = own_allocations(&device, 2, MADE);
    println!("{one:#?}");
    assert_eq!(one, two, "a micro-batch allocates");
    // The vectors of the record and of their rows; the list of what happened; the shares of a layer, for the alarms.
    let vectors = |shape: Vec<usize>| match shape[..] {
        [] => 0,
        [_] => 1,
        [rows, ..] => 1 + rows,
    };
    let of_record: usize = UpdateRecord::COLUMNS.iter().map(|column| vectors((column.shape)(&record))).sum();
    let total: usize = one.values().sum();
    println!("{total} allocations in {MADE} updates, {of_record} vectors in a record");
    assert!(total >= MADE && total <= MADE * (of_record + 2), "{total} in {MADE} updates: {one:#?}");
}

/// A driver may compile a kernel again at every dispatch, and keep each copy, see shaders/attention.cpu.wgsl.
#[test]
fn the_process_does_not_grow_with_the_updates() {
    let _alone = ALONE.lock().unwrap();
    let Some(_) = resident() else { return skipped("this system does not tell how much memory a process holds") };
    let device = Rc::new(pollster::block_on(Device::open(&AdapterChoice::default())).unwrap());
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string().into());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/rnn/shared_moe.toml");
    let sets = ["data.embedded=true".to_string()];
    let mut config = load(&read, path, &sets).unwrap_or_else(|problems| panic!("{problems}")).reduced();
    (config.train.updates, config.train.evaluation.every) = (1000, 1000);
    let (config, corpus) = corpus(config, None, Purpose::Train, &NoFiles).unwrap();
    let mut trainer = Trainer::new(config, device, corpus, PlanOptions::default()).unwrap();
    let mut advance = |wanted: usize| {
        let mut made = 0;
        while made < wanted {
            made += trainer.advance().unwrap().iter().filter(|progress| matches!(progress, Progress::Update(_))).count();
            trainer.wait().unwrap();
        }
        resident().map_or(0, |[now, _]| now)
    };
    let before = advance(15);
    let grown = advance(75).saturating_sub(before);
    println!("75 updates: {} KB more resident", grown >> 10);
    assert!(grown < 8 << 20, "{grown} bytes more");
}
