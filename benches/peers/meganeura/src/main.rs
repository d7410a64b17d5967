//! Times meganeura (Vulkan, or Metal on a Mac): matrix products, and a training update of the dense relative of `configs/bench/twin.toml`.
//!
//! The model is RMSNorm before each part, RoPE, causal attention, SwiGLU, the embedding tied to the head, no biases. An update is
//! forward, backward and AdamW on all parameters, without clipping. meganeura has no batches of sequences, but rows `t B + b` of
//! width D are rows `t` of width B D, so sequences are heads of attention beside each other, and all else sees B T rows. Its loss takes
//! targets as rows of V numbers, which are uploaded once.
//!
//! By default meganeura uses the matrix units of a card (cooperative matrices), and may round operands of forward products to f16 where
//! those take no f32: `error` of a product tells, 3e-4 is what f16 has. Where it uses them, everything is also timed without.
//! Its environment variables work: `MEGANEURA_TUNE=1` searches tiles, `MEGANEURA_DEVICE_ID` chooses an adapter.

#[path = "../../measure.rs"]
mod measure;

use std::process::ExitCode;

use measure::{
    ADAM_EPS, B, BETAS, D, F, H, HEAD, INIT_STD, L, LEARNING_RATE, NORM_EPS, Options, PARAMETERS, Peer, Product, ROPE_BASE, Result, T, V,
    WEIGHT_DECAY, check_first_loss, check_last_loss, tokens, values,
};
use meganeura::{
    CoopPolicy, Graph, Mode, NodeId, Session, SessionConfig, TensorType, build,
    graph::Op,
    nn::{Linear, RmsNorm, SwiGluFfn},
};

/// The one that `Cargo.toml` asks for.
const VERSION: &str = "0.3.0";
/// Copies of a small product in a graph, each with operands of its own: a graph is waited for before it runs again.
const COPIES: usize = 4;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::read()?;
    for product in &options.products {
        if time_product(&options, *product, true)? {
            time_product(&options, *product, false)?;
        }
    }
    if options.update && time_update(&options, true)? {
        time_update(&options, false)?;
    }
    Ok(())
}

/// Compiles a graph. `matrices`: whether the card's matrix units may be used.
fn compile(graph: &Graph, mode: Mode, matrices: bool) -> Session {
    let mut config = SessionConfig { mode, ..SessionConfig::from_env() };
    if !matrices {
        config.runtime.coop = CoopPolicy::Disabled;
    }
    build(graph, config).0
}

/// Whether a graph uses the card's matrix units.
fn uses_matrices(session: &Session) -> bool {
    session.plan().dispatches.iter().any(|dispatch| dispatch.use_coop)
}

/// Returns whether matrix units were used.
fn time_product(options: &Options, product: Product, matrices: bool) -> Result<bool> {
    let Product { m, n, k } = product;
    let copies = if product.flops() > 1e9 { 1 } else { COPIES };
    let mut g = Graph::new();
    let results = (0..copies).map(|copy| {
        let a = g.input(&format!("a{copy}"), &[m, k]);
        let b = g.input(&format!("b{copy}"), &[k, n]);
        g.matmul(a, b)
    });
    let results = results.collect();
    g.set_outputs(results);
    let mut session = compile(&g, Mode::Inference, matrices);
    let operands: Vec<[Vec<f32>; 2]> = (0..copies).map(|copy| product.operands(copy as u64)).collect();
    for (copy, [a, b]) in operands.iter().enumerate() {
        session.set_input(&format!("a{copy}"), a);
        session.set_input(&format!("b{copy}"), b);
    }
    session.step();
    session.wait();
    let mut error = 0.0_f64;
    for (copy, operands) in operands.iter().enumerate() {
        let mut c = vec![0.0; m * n];
        session.read_output_by_index(copy, &mut c);
        error = error.max(product.check(operands, &c)?);
    }
    let ms = options.time(|repetitions| {
        for _ in 0..repetitions {
            session.step();
        }
        session.wait();
        Ok(())
    })? / copies as f64;
    peer(&session).print_product(product, ms, error)?;
    Ok(uses_matrices(&session))
}

/// Returns whether matrix units were used.
fn time_update(options: &Options, matrices: bool) -> Result<bool> {
    let mut session = compile(&model(), Mode::Training, matrices);
    initialize(&mut session)?;
    session.set_adam(LEARNING_RATE, BETAS[0], BETAS[1], ADAM_EPS);
    session.set_weight_decay(WEIGHT_DECAY);
    session.step();
    session.wait();
    let first = session.read_loss();
    check_first_loss(first)?;
    let mut last = first;
    let ms = options.time(|repetitions| {
        for _ in 0..repetitions {
            session.step();
        }
        session.wait();
        last = session.read_loss();
        Ok(())
    })?;
    check_last_loss(first, last)?;
    peer(&session).print_update(ms, [first, last])?;
    Ok(uses_matrices(&session))
}

fn peer(session: &Session) -> Peer {
    let kernels = if uses_matrices(session) { "cooperative matrices" } else { "no cooperative matrices" };
    let adapter = session.device_information().device_name.clone();
    Peer { peer: "meganeura", version: VERSION, adapter, kernels: kernels.into() }
}

/// The loss of a batch.
fn model() -> Graph {
    let mut g = Graph::new();
    let tokens = g.input_u32("tokens", &[T * B]);
    let embedding = g.parameter("embedding", &[V, D]);
    let mut x = g.embedding(tokens, embedding);
    for layer in 0..L {
        let h = RmsNorm::new(&mut g, &format!("{layer}.attention_norm"), D, NORM_EPS).forward(&mut g, x);
        let h = attention(&mut g, layer, h);
        x = g.add(x, h);
        let h = RmsNorm::new(&mut g, &format!("{layer}.ffn_norm"), D, NORM_EPS).forward(&mut g, x);
        let h = SwiGluFfn::new(&mut g, &format!("{layer}.ffn"), D, F).forward(&mut g, h);
        x = g.add(x, h);
    }
    let x = RmsNorm::new(&mut g, "norm", D, NORM_EPS).forward(&mut g, x);
    let logits = g.matmul_bt(x, embedding);
    let targets = g.input("targets", &[T * B, V]);
    let loss = g.cross_entropy_loss(logits, targets);
    g.set_outputs(vec![loss]);
    g
}

fn attention(g: &mut Graph, layer: usize, x: NodeId) -> NodeId {
    let [q, k, v] = ["q", "k", "v"].map(|name| {
        let y = Linear::no_bias(g, &format!("{layer}.{name}"), D, D).forward(g, x);
        view(g, y, [T, B * D])
    });
    let [q, k] = [q, k].map(|y| g.rope(y, ROPE_BASE, HEAD as u32));
    let heads = (B * H) as u32;
    let mixed = g.causal_attention(q, k, v, heads, heads, HEAD as u32);
    let mixed = view(g, mixed, [T * B, D]);
    Linear::no_bias(g, &format!("{layer}.out"), D, D).forward(g, mixed)
}

/// The same numbers in another shape.
fn view(g: &mut Graph, x: NodeId, shape: [usize; 2]) -> NodeId {
    g.add_raw_node(Op::Identity, vec![x], TensorType::f32(shape.to_vec()))
}

/// Sets the parameters and a batch.
fn initialize(session: &mut Session) -> Result<()> {
    // Without those that the compiler replaced: it joins matrices with the same input.
    let names: Vec<String> = session.param_names().into_iter().filter(|name| session.has_param_grad(name)).map(String::from).collect();
    let mut parameters = 0;
    for (index, name) in names.iter().enumerate() {
        let len = session.param_size(name).ok_or("a parameter without a size")?;
        // Gains are the only vectors.
        let initial = if len == D { vec![1.0; len] } else { values(100 + index as u64, len, INIT_STD) };
        session.set_parameter(name, &initial);
        parameters += len;
    }
    if parameters != PARAMETERS {
        return Err(format!("the model has {parameters} parameters instead of {PARAMETERS}").into());
    }
    session.set_input_u32("tokens", &tokens(1));
    let mut targets = vec![0.0; T * B * V];
    for (row, token) in tokens(2).into_iter().enumerate() {
        targets[row * V + token as usize] = 1.0;
    }
    session.set_input("targets", &targets);
    Ok(())
}
