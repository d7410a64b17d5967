//! What an adapter can do at best, measured in the same run: no kernel can be faster than its arithmetic at the rate of a large product,
//! nor than its bytes at the rate of a copy.

use serde::Serialize;

use super::median;
use crate::{
    gpu::{Capabilities, DType, Device, GpuError, Memory, Plan, PlanOptions, Segment, Step, Tensor},
    ops::{Form, Graph},
};

/// Sides of the square products: the best rate counts. A larger one is tried if the last took less than [`PATIENCE_SECONDS`].
const SIDES: [u32; 4] = [512, 1024, 2048, 4096];
/// Elements that are copied: more than caches hold, and as many as every adapter can bind.
const COPIED: u32 = 24 << 20;
const PATIENCE_SECONDS: f64 = 0.1;
const ROUNDS: usize = 5;

/// The best rates of an adapter.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceilings {
    /// `ceilings`.
    pub kernel: &'static str,
    /// Of a large matrix product, with operands of the config's precision.
    pub gflops: f64,
    /// Of a copy, read and written.
    pub gbytes_per_second: f64,
}

impl Ceilings {
    /// Measures both by `now` (seconds).
    ///
    /// # Errors
    /// An error of the device.
    pub(super) fn measure(device: &Device, set: Capabilities, now: &dyn Fn() -> f64) -> Result<Ceilings, GpuError> {
        let mut gflops = 0.0_f64;
        for side in SIDES {
            let seconds = seconds(device, set, [side; 2], now, |g, a, b| g.matmul(a, b, Form::Nt))?;
            gflops = gflops.max(2.0 * f64::from(side).powi(3) / seconds * 1e-9);
            if seconds > PATIENCE_SECONDS {
                break;
            }
        }
        let seconds = seconds(device, set, [COPIED / 1024, 1024], now, |g, a, _| g.scale(a, 2.0))?;
        Ok(Ceilings { kernel: "ceilings", gflops, gbytes_per_second: 8.0 * f64::from(COPIED) / seconds * 1e-9 })
    }

    /// Milliseconds that work takes at least.
    pub(super) fn floor_ms(&self, flops: f64, bytes: f64) -> f64 {
        1e3 * (flops / (1e9 * self.gflops)).max(bytes / (1e9 * self.gbytes_per_second))
    }
}

/// The median time of an op over two operands of zeros.
fn seconds(
    device: &Device,
    set: Capabilities,
    shape: [u32; 2],
    now: &dyn Fn() -> f64,
    record: impl Fn(&mut Graph, Tensor, Tensor) -> Tensor,
) -> Result<f64, GpuError> {
    let mut g = Graph::new(set);
    let (a, b) = (g.input("a", shape, DType::F32), g.input("b", shape, DType::F32));
    let y = record(&mut g, a, b);
    g.output("y", y);
    let (program, mut memory) = (g.finish(), Memory::default());
    let plan = Plan::compile(device, &program, &mut memory, PlanOptions::default())?;
    let mut times = Vec::new();
    // Drivers compile at first use.
    for _ in 0..=ROUNDS {
        let start = now();
        plan.submit(device, &mut memory, &Step::default(), &[Segment::Micro])?;
        device.wait_idle()?;
        times.push(now() - start);
    }
    Ok(median(times.split_off(1)).max(1e-9))
}
