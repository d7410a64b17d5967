//! Times burn on its wgpu backend (Vulkan where there is Vulkan, with autotune and fusion, its defaults): matrix products, and a training
//! update of the dense relative of `configs/bench/twin.toml`.
//!
//! The model is made of burn's own modules: RMSNorm before each part, RoPE, causal attention, SwiGLU, the embedding tied to the head, no
//! biases. An update is forward, backward and AdamW on all parameters, without clipping. Every result is checked before it is timed;
//! `error` of a product tells whether operands were rounded: 3e-4 is what f16 has.
//! The software driver of Mesa 22 crashes on burn's SPIR-V, that of Mesa 26 does not.

#[path = "../../measure.rs"]
mod measure;

use std::process::ExitCode;

use burn::{
    module::{Initializer, Module},
    nn::{
        Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig, RotaryEncoding, RotaryEncodingConfig, SwiGlu,
        SwiGluConfig,
        loss::{CrossEntropyLoss, CrossEntropyLossConfig},
    },
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, DeviceKind, Int, Tensor, TensorData, module::attention, ops::AttentionModuleOptions},
};
use measure::{
    ADAM_EPS, B, BETAS, D, F, H, HEAD, INIT_STD, L, LEARNING_RATE, NORM_EPS, Options, PARAMETERS, Peer, Product, ROPE_BASE, Result, T, V,
    WEIGHT_DECAY, check_first_loss, check_last_loss, tokens,
};

/// The one that `Cargo.toml` asks for.
const VERSION: &str = "0.22.1";

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
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    for product in &options.products {
        time_product(&options, &device, *product)?;
    }
    if options.update {
        time_update(&options, &device.autodiff())?;
    }
    Ok(())
}

fn peer(device: &Device) -> Peer {
    let (adapter, kernels) = device.identity().map_or_else(Default::default, |identity| (identity.name, identity.fingerprint));
    Peer { peer: "burn", version: VERSION, adapter, kernels }
}

fn time_product(options: &Options, device: &Device, product: Product) -> Result<()> {
    let operands = product.operands(0);
    let [a, b] = [(&operands[0], [product.m, product.k]), (&operands[1], [product.k, product.n])]
        .map(|(values, shape)| Tensor::<2>::from_data(TensorData::new(values.clone(), shape), device));
    let error = product.check(&operands, &a.clone().matmul(b.clone()).into_data().try_to_vec::<f32>()?)?;
    let ms = options.time(|repetitions| {
        for _ in 0..repetitions {
            let _ = a.clone().matmul(b.clone());
        }
        Ok(device.sync()?)
    })?;
    peer(device).print_product(product, ms, error)
}

fn time_update(options: &Options, device: &Device) -> Result<()> {
    let mut trainer = Trainer::new(device)?;
    let first = trainer.update()?.into_scalar::<f32>();
    check_first_loss(first)?;
    let mut last = first;
    let ms = options.time(|repetitions| {
        for _ in 1..repetitions {
            trainer.update()?;
        }
        last = trainer.update()?.into_scalar::<f32>();
        Ok(device.sync()?)
    })?;
    check_last_loss(first, last)?;
    peer(device).print_update(ms, [first, last])
}

/// A model with its optimizer and a batch of random tokens, the same for all updates.
struct Trainer {
    /// None while it is updated: the optimizer takes it, so that it is its only owner.
    model: Option<Model>,
    optimizer: ModuleOptimizer,
    loss: CrossEntropyLoss,
    tokens: Tensor<2, Int>,
    targets: Tensor<1, Int>,
}

impl Trainer {
    fn new(device: &Device) -> Result<Trainer> {
        let model = Model::new(device);
        if model.num_params() != PARAMETERS {
            return Err(format!("the model has {} parameters instead of {PARAMETERS}", model.num_params()).into());
        }
        let optimizer =
            AdamWConfig::new().with_beta_1(BETAS[0]).with_beta_2(BETAS[1]).with_epsilon(ADAM_EPS).with_weight_decay(WEIGHT_DECAY);
        let integers = |seed| tokens(seed).into_iter().map(|token| token as i32).collect::<Vec<i32>>();
        Ok(Trainer {
            model: Some(model),
            optimizer: optimizer.init(),
            loss: CrossEntropyLossConfig::new().init(device),
            tokens: Tensor::from_data(TensorData::new(integers(1), [B, T]), device),
            targets: Tensor::from_data(TensorData::new(integers(2), [B * T]), device),
        })
    }

    /// Makes an update; returns the loss before it.
    fn update(&mut self) -> Result<Tensor<1>> {
        let model = self.model.take().ok_or("no model")?;
        let loss = self.loss.forward(model.forward(self.tokens.clone()), self.targets.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(f64::from(LEARNING_RATE), model, gradients));
        Ok(loss.detach())
    }
}

#[derive(Module, Debug)]
struct Model {
    embedding: Embedding,
    rope: RotaryEncoding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    ffn_norm: RmsNorm,
    ffn: SwiGlu,
    down: Linear,
}

impl Model {
    fn new(device: &Device) -> Model {
        Model {
            embedding: EmbeddingConfig::new(V, D).with_initializer(normal()).init(device),
            rope: RotaryEncodingConfig::new(T, HEAD).with_theta(ROPE_BASE).init(device),
            layers: (0..L).map(|_| Layer::new(device)).collect(),
            norm: norm(device),
        }
    }

    /// The logits of all tokens.
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let embedded = self.embedding.forward(tokens);
        let x = self.layers.iter().fold(embedded, |x, layer| layer.forward(x, &self.rope));
        self.norm.forward(x).reshape([B * T, D]).matmul(self.embedding.weight.val().transpose())
    }
}

impl Layer {
    fn new(device: &Device) -> Layer {
        Layer {
            attention_norm: norm(device),
            qkv: linear(D, 3 * D, device),
            out: linear(D, D, device),
            ffn_norm: norm(device),
            ffn: SwiGluConfig::new(D, F).with_initializer(normal()).init(device),
            down: linear(F, D, device),
        }
    }

    fn forward(&self, x: Tensor<3>, rope: &RotaryEncoding) -> Tensor<3> {
        let qkv = self.qkv.forward(self.attention_norm.forward(x.clone()));
        let heads = |part: usize| qkv.clone().narrow(2, part * D, D).reshape([B, T, H, HEAD]).swap_dims(1, 2);
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let mixed = attention(rope.forward(heads(0)), rope.forward(heads(1)), heads(2), None, None, options);
        let x = x + self.out.forward(mixed.swap_dims(1, 2).reshape([B, T, D]));
        x.clone() + self.down.forward(self.ffn.forward(self.ffn_norm.forward(x)))
    }
}

fn norm(device: &Device) -> RmsNorm {
    RmsNormConfig::new(D).with_epsilon(f64::from(NORM_EPS)).init(device)
}

fn linear(from: usize, to: usize, device: &Device) -> Linear {
    LinearConfig::new(from, to).with_bias(false).with_initializer(normal()).init(device)
}

fn normal() -> Initializer {
    Initializer::Normal { mean: 0.0, std: f64::from(INIT_STD) }
}
