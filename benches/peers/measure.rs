//! What the programs for the peers share: options, sizes, operands, checks, the clock and the lines of JSON.
//!
//! A time is the median of rounds that take a second together. A round repeats the work and waits for the device once; rounds of growing
//! length before them leave compiling and autotuning out.

use std::{error::Error, time::Instant};

use serde::Serialize;

pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// m, n, k of the products `a b`, `a` being m x k and `b` k x n: those of `moelab bench kernels`, then one at the limit of a card and one
/// of an update of exp8: the gradient of what queries, keys and values are made of.
const PRODUCTS: [Product; 4] = [
    Product { m: 512, n: 512, k: 512 },
    Product { m: 512, n: 128, k: 64 },
    Product { m: 4096, n: 4096, k: 4096 },
    Product { m: 12288, n: 384, k: 1152 },
];

/// Width.
pub const D: usize = 128;
/// Layers.
pub const L: usize = 2;
/// Heads.
pub const H: usize = 4;
/// Width of a head.
pub const HEAD: usize = D / H;
/// Inner width of the feed-forward network.
pub const F: usize = 512;
/// Vocabulary.
pub const V: usize = 4096;
/// Tokens of a sequence.
pub const T: usize = 128;
/// Sequences.
pub const B: usize = 4;

/// Gains of the norms, the tied embedding, and for each layer the attention and the three matrices of SwiGLU.
pub const PARAMETERS: usize = (2 * L + 1) * D + V * D + L * (4 * D * D + 3 * D * F);
/// Standard deviation of initial matrices.
pub const INIT_STD: f32 = 0.02;
pub const NORM_EPS: f32 = 1.192_092_9e-7;
pub const ROPE_BASE: f32 = 10_000.0;
pub const LEARNING_RATE: f32 = 1e-3;
pub const WEIGHT_DECAY: f32 = 0.1;
pub const BETAS: [f32; 2] = [0.9, 0.999];
pub const ADAM_EPS: f32 = 1e-8;

/// Elements of a product that are compared with the processor.
const SAMPLES: usize = 64;
/// Largest relative L2 error over them. Operands rounded to f16 have about 3e-4, f32 less than 1e-5.
const PRODUCT_TOLERANCE: f64 = 1e-3;
/// Maximum relative difference of the first loss from ln V: random tokens cannot be predicted.
const LOSS_TOLERANCE: f64 = 0.1;
/// All rounds of a measurement together take at least this long.
const SECONDS: f64 = 1.0;
/// There are fewer rounds where they took this long.
const PATIENCE_SECONDS: f64 = 20.0;

/// What to measure.
pub struct Options {
    pub products: Vec<Product>,
    pub update: bool,
    rounds: usize,
}

impl Options {
    /// Reads the command line: `--only matmul|update`, `--rounds N` and `--small`, which leaves out the large products.
    pub fn read() -> Result<Options> {
        let (mut only, mut rounds, mut small) = (None, 7, false);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--small" => small = true,
                "--only" => only = Some(args.next().filter(|w| w == "matmul" || w == "update").ok_or("--only takes matmul or update")?),
                "--rounds" => rounds = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or("--rounds takes a number")?,
                _ => return Err(format!("unknown argument {arg}: there are --only matmul|update, --rounds N and --small").into()),
            }
        }
        let products = if only.as_deref() == Some("update") { &[] } else { &PRODUCTS[..if small { 2 } else { PRODUCTS.len() }] };
        Ok(Options { products: products.to_vec(), update: only.as_deref() != Some("matmul"), rounds })
    }

    /// Milliseconds of one repetition. `run` does the work so many times and waits for the device.
    pub fn time(&self, mut run: impl FnMut(usize) -> Result<()>) -> Result<f64> {
        let mut seconds = |repetitions: usize| -> Result<f64> {
            let start = Instant::now();
            run(repetitions)?;
            Ok(start.elapsed().as_secs_f64())
        };
        seconds(1)?;
        let mut repetitions = 1;
        while seconds(repetitions)? < SECONDS / self.rounds as f64 {
            repetitions *= 2;
        }
        let (start, mut rounds) = (Instant::now(), Vec::new());
        while rounds.len() < self.rounds && (rounds.is_empty() || start.elapsed().as_secs_f64() < PATIENCE_SECONDS) {
            rounds.push(seconds(repetitions)?);
        }
        rounds.sort_by(f64::total_cmp);
        Ok(1e3 * rounds[rounds.len() / 2] / repetitions as f64)
    }
}

/// A matrix product.
#[derive(Clone, Copy)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Product {
    /// Operands, the same for the same seed.
    pub fn operands(self, seed: u64) -> [Vec<f32>; 2] {
        [values(2 * seed, self.m * self.k, 1.0), values(2 * seed + 1, self.k * self.n, 1.0)]
    }

    /// The relative error of a product of these operands at a few elements, if it is small.
    pub fn check(self, [a, b]: &[Vec<f32>; 2], c: &[f32]) -> Result<f64> {
        if c.len() != self.m * self.n {
            return Err(format!("{self}: {} elements", c.len()).into());
        }
        let (mut difference, mut norm) = (0.0, 0.0);
        for at in (0..SAMPLES).map(|sample| random(3, sample as u64) as usize % c.len()) {
            let (row, column) = (at / self.n, at % self.n);
            let exact: f64 = (0..self.k).map(|i| f64::from(a[row * self.k + i]) * f64::from(b[i * self.n + column])).sum();
            difference += (f64::from(c[at]) - exact).powi(2);
            norm += exact.powi(2);
        }
        let error = (difference / norm).sqrt();
        // False for NaN too.
        if error <= PRODUCT_TOLERANCE { Ok(error) } else { Err(format!("{self}: relative error {error:.1e}, so it was not timed").into()) }
    }

    pub fn flops(self) -> f64 {
        2.0 * (self.m * self.n * self.k) as f64
    }
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

/// The tokens of a batch, or what is to be predicted: all random.
pub fn tokens(seed: u64) -> Vec<u32> {
    (0..B * T).map(|i| (random(seed, i as u64) % V as u64) as u32).collect()
}

/// Checks the loss before the first update.
pub fn check_first_loss(loss: f32) -> Result<()> {
    let uniform = (V as f64).ln();
    if (f64::from(loss) / uniform - 1.0).abs() <= LOSS_TOLERANCE {
        return Ok(());
    }
    Err(format!("the first loss is {loss} instead of about {uniform:.3}, so the update was not timed").into())
}

/// Checks that updates on one batch made its loss smaller.
pub fn check_last_loss(first: f32, last: f32) -> Result<()> {
    if last < first { Ok(()) } else { Err(format!("the loss was {first} and is {last} after the updates: the time means nothing").into()) }
}

/// Useful arithmetic of an update, counted as `moelab bench step` does: a multiply-add is two, and the backward pass twice the forward,
/// but 2.5 times for the causal half of the scores.
fn update_flops() -> f64 {
    let matrices = 2 * (L * (4 * D * D + 3 * D * F) + V * D);
    let scores = 2 * (T + 1) * D * L;
    (B * T) as f64 * (3.0 * matrices as f64 + 3.5 * scores as f64)
}

/// What was timed.
#[derive(Serialize)]
pub struct Peer {
    pub peer: &'static str,
    pub version: &'static str,
    pub adapter: String,
    /// Which kind of kernels it used, in its own words.
    pub kernels: String,
}

impl Peer {
    /// Prints the time of a product and its error.
    pub fn print_product(&self, product: Product, ms: f64, error: f64) -> Result<()> {
        self.print("matmul", product.to_string(), ms, product.flops(), Checked::Product { error })
    }

    /// Prints the time of an update, and the losses before the first and the last.
    pub fn print_update(&self, ms: f64, [first_loss, last_loss]: [f32; 2]) -> Result<()> {
        let shape = format!("D {D}, L {L}, H {H}, F {F}, V {V}, T {T}, B {B}");
        self.print("update", shape, ms, update_flops(), Checked::Update { first_loss, last_loss })
    }

    fn print(&self, what: &'static str, shape: String, ms: f64, flops: f64, checked: Checked) -> Result<()> {
        println!("{}", serde_json::to_string(&Record { peer: self, what, shape, ms, gflops: flops / ms * 1e-6, checked })?);
        Ok(())
    }
}

/// A line of JSON.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    peer: &'a Peer,
    what: &'static str,
    shape: String,
    ms: f64,
    gflops: f64,
    #[serde(flatten)]
    checked: Checked,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Checked {
    Product { error: f64 },
    Update { first_loss: f32, last_loss: f32 },
}

/// Uniform values of a standard deviation.
pub fn values(seed: u64, count: usize, std: f32) -> Vec<f32> {
    let unit = |i| (random(seed, i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..count as u64).map(|i| 3.0_f32.sqrt() * std * unit(i)).collect()
}

/// splitmix64 of a seed and a counter.
fn random(seed: u64, counter: u64) -> u64 {
    let mut z = (seed << 40).wrapping_add(counter + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
