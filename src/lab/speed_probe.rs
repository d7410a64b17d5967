//! What a config costs on a machine, found by making a few updates of it that leave no trace.

use std::{cell::RefCell, rc::Rc};

use super::{
    bench::step,
    footprint::Footprint,
    host::{Activity, Clock, DeviceFuture, Environment, Host},
    memory::Memory,
    store::Store,
    workspace::{self, KernelTime, Probed},
};
use crate::{
    data::{Corpus, tokenizer::Tokenizer},
    gpu::{Device, Role},
    run::{
        Config,
        protocol::{Command, Problem, SessionEvent, Subscription},
        suite::flop_per_update,
    },
    train::recording,
};

/// Updates after the first one that are timed at most, and seconds after which fewer will do.
const TIMED: usize = 8;
const ENOUGH_SECONDS: f64 = 1.0;
/// Tensors that are listed.
const LISTED: usize = 24;

/// An environment whose runs are kept in memory, and which remembers what they are opened with.
struct Apart<E> {
    environment: E,
    seen: Rc<RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    device: Option<Rc<Device>>,
    config: Option<Config>,
}

impl<E: Environment> Environment for Apart<E> {
    fn device(&mut self) -> DeviceFuture {
        let (device, seen) = (self.environment.device(), self.seen.clone());
        Box::pin(async move {
            let device = device.await?;
            seen.borrow_mut().device = Some(device.clone());
            Ok(device)
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        let (config, corpus) = self.environment.corpus(config, own)?;
        self.seen.borrow_mut().config = Some(config.clone());
        Ok((config, corpus))
    }

    fn store(&mut self, _: &str) -> Result<Box<dyn Store>, Problem> {
        Ok(Box::new(Memory::default()))
    }

    fn clock(&self) -> Clock {
        self.environment.clock()
    }

    fn tag(&self) -> String {
        self.environment.tag()
    }
}

/// The time of each kernel.
fn kernel_times(device: &Device, config: &Config, clock: &Clock) -> Result<Vec<KernelTime>, Problem> {
    let measured =
        step::measure(device, config, 1, &**clock).map_err(|error| Problem::new(format!("the kernels cannot be timed: {error}")))?;
    let time = |share: step::KernelShare| KernelTime {
        part: share.part.into(),
        kernel: share.kernel,
        launches: share.launches,
        ms: share.ms,
        share: share.share,
        gflops: share.gflops,
    };
    Ok(measured.kernels.into_iter().map(time).collect())
}

/// A probe under way; dropping it ends it.
pub struct SpeedProbe<E> {
    host: Host<Apart<E>>,
    seen: Rc<RefCell<Seen>>,
    clock: Clock,
    started: f64,
    config: String,
    times_kernels: bool,
    /// When the updates were completed.
    ends: Vec<f64>,
}

impl<E: Environment> SpeedProbe<E> {
    /// A probe of a config, and of each of its kernels if the environment [may wait](Environment::may_wait).
    pub fn new(environment: E, config: String, kernels: bool) -> SpeedProbe<E> {
        let times_kernels = kernels && environment.may_wait();
        let (clock, seen) = (environment.clock(), Rc::<RefCell<Seen>>::default());
        let mut host = Host::new(Apart { environment, seen: seen.clone() });
        host.send(Command::Subscribe(Subscription { series: vec!["train_ce".into()], ..Subscription::default() }));
        host.send(Command::Start { run: "probe".into(), config: config.clone(), sets: Vec::new() });
        SpeedProbe { started: clock(), host, seen, clock, config, times_kernels, ends: Vec::new() }
    }

    /// Works for `budget` seconds at most, as [`Host::advance`]. Tells the outcome, once there is one.
    pub fn advance(&mut self, budget: f64) -> (Option<Result<Probed, Problem>>, Activity) {
        let (events, activity) = self.host.advance(budget);
        let mut is_over = false;
        for event in events {
            match event {
                SessionEvent::Series(block) => {
                    self.ends.extend(block.times.iter().map(|time| time.seconds));
                }
                SessionEvent::Failed(problem) => return (Some(Err(*problem)), Activity::Idle),
                SessionEvent::Ended(_) => is_over = true,
                _ => {}
            }
        }
        let timed = self.ends.len().saturating_sub(1);
        let seconds = self.ends.last().zip(self.ends.first()).map_or(0.0, |(last, first)| last - first);
        let is_enough = timed >= TIMED || timed >= 2 && seconds >= ENOUGH_SECONDS || is_over;
        (if is_enough { Some(self.probed()) } else { None }, activity)
    }

    /// Blocks until the device has completed work. Only works natively.
    pub fn wait(&mut self) {
        self.host.wait();
    }

    fn probed(&self) -> Result<Probed, Problem> {
        let seen = self.seen.borrow();
        let (Some(device), Some(config)) = (&seen.device, &seen.config) else {
            return Err(Problem::new("the run ended before it was open"));
        };
        let mut steps: Vec<f64> = self.ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_by(f64::total_cmp);
        let seconds_per_update =
            *steps.get(steps.len() / 2).ok_or_else(|| Problem::new("the run is too short to time: it has one update"))?;
        let summed: f64 = self.ends.last().unwrap_or(&0.0) - self.ends.first().unwrap_or(&0.0);
        let kernels = recording::kernels_for(config, device).unwrap_or(device.capabilities);
        let footprint = Footprint::of(config, kernels);
        let program = recording::training(config, kernels).program;
        let mut tensors: Vec<(String, u64)> = program
            .tensors
            .iter()
            .filter(|tensor| tensor.role != Role::Stack) // Their parts are listed.
            .map(|tensor| (tensor.name.clone(), tensor.bytes()))
            .collect();
        tensors.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        tensors.truncate(LISTED);
        let (micro, update) = program.dispatches();
        let (summary, capabilities) = (&device.adapter, device.capabilities);
        Ok(Probed {
            config: self.config.clone(),
            adapter: workspace::Adapter {
                name: summary.name.clone(),
                backend: summary.backend.clone(),
                driver: summary.driver.clone(),
                kind: summary.kind.clone(),
                kernels: capabilities.name().into(),
                f16: capabilities.f16,
                subgroup_sizes: capabilities.subgroup_sizes,
                invocations: capabilities.invocations,
                workgroup_bytes: capabilities.workgroup_bytes,
                max_binding_bytes: summary.max_binding_bytes,
            },
            seconds_per_update,
            tokens_per_update: config.tokens_per_update(),
            flop_per_update: flop_per_update(config),
            seconds_to_open: (self.clock)() - self.started - summed,
            buffers: workspace::Buffers { parts: footprint.parts().map(|(name, bytes)| (name.to_string(), bytes)).to_vec(), tensors },
            dispatches: [micro, update],
            listing: program.to_string(),
            kernels: if self.times_kernels { kernel_times(device, config, &self.clock)? } else { Vec::new() },
        })
    }
}
