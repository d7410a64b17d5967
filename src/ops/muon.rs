//! Muon (Jordan et al. 2024): momentum in lerp form, Nesterov, orthogonalisation by five Newton-Schulz steps.
//!
//! Matrices whose short side is equal after padding to 64 are orthogonalised together, each slice of a parameter
//! [.., rows, columns] (each expert) separately. A gather launch per parameter updates its momentum and stacks the matrices
//! to orthogonalise, short side first; batched products orthogonalise the stack; a scatter launch per parameter
//! applies it. Padding is with zeros, which stay zeros.
//!
//! A step X <- Q X with Q = a I + b G + c G^2 changes the Gram matrix G = X X^T to Q G Q, so steps are taken on the
//! small matrices and X is multiplied once by their product P. In f32 that loses accuracy after a few steps: after
//! three, X is formed and G recomputed. Compared with the direct form this needs two thirds of the arithmetic if the
//! long side is four times the short one, and agrees with it up to rounding (github.com/Dao-AILab/gram-newton-schulz).

use std::collections::BTreeMap;

use super::{
    Addend, Form, Graph, Trained,
    kernels::muon::{A, B, C, Gather, Normalize, Params, SMALL_SIDE, Scatter, UpdateSmall},
};
use crate::choices::MuonScale;
use crate::gpu::{MAX_IMAGE_SIDE, Tensor};

/// Sides of a stack are multiples of this, as required by images and tiles.
const PADDING: u32 = 64;
/// Maximum elements of a stack (64 MiB): fits a browser's binding, and stacks share their storage.
const STACK_ELEMENTS: u32 = 1 << 24;

/// Constants of Muon. The learning rate is a per-step scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Decay rate of the momentum, also its weight in the Nesterov step.
    pub momentum: f32,
    /// How the update is scaled.
    pub scale: MuonScale,
    /// Decoupled: multiplies the learning rate and the weight.
    pub weight_decay: f32,
}

/// Matrices `first..first + slices` of a parameter.
#[derive(Clone, Copy)]
struct Part {
    w: Tensor,
    d_w: Tensor,
    momentum: Tensor,
    /// Assignments, one per matrix of the parameter, if matrices without assignments are left unchanged.
    counts: Option<Tensor>,
    rows: u32,
    columns: u32,
    first: u32,
    slices: u32,
}

impl Part {
    fn side(&self) -> u32 {
        self.rows.min(self.columns)
    }

    fn length(&self) -> u32 {
        self.rows.max(self.columns)
    }

    /// The counts, or a placeholder that kernels without counts do not read.
    fn counts_or(&self, other: Tensor) -> Tensor {
        self.counts.unwrap_or(other)
    }

    fn params(&self, constants: Muon) -> Params {
        let (rows, columns) = (self.rows as f32, self.columns as f32);
        let scale = match constants.scale {
            MuonScale::MaxOneRowsOverCols => (rows / columns).max(1.0).sqrt(),
            MuonScale::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
        };
        Params {
            rows: self.rows,
            columns: self.columns,
            slices: self.slices,
            first: self.first,
            place: 0,
            side: self.side(),
            length: self.length(),
            beta: constants.momentum,
            scale,
            weight_decay: constants.weight_decay,
            follows_counts: u32::from(self.counts.is_some()),
        }
    }
}

impl Graph {
    /// Updates matrices [rows, columns] or several of them [.., rows, columns], such as a [stack](Graph::stack_matrices), from their accumulated gradients, times
    /// the factor in `clip` (see [`Graph::grad_norm`]). Momenta are the states `muon.momentum.<name>`. Writes nothing
    /// if a gradient was not finite.
    ///
    /// # Panics
    /// If a parameter has fewer than two dimensions, or its number of assignments differs from its matrices.
    pub fn muon(&mut self, parameters: &[Trained], clip: Tensor, constants: Muon) {
        let mut classes: BTreeMap<u32, Vec<Part>> = BTreeMap::new();
        for &trained in parameters {
            let Trained { w, assignments: counts } = trained;
            let name = self.program().tensor(w.id).name.clone();
            let &[.., rows, columns] = w.shape.as_slice() else { panic!("muon: {name} {:?} is not a matrix", w.shape) };
            let d_w = self.param_grad(w);
            let momentum = self.state_of("muon.momentum.", w);
            let slices = w.shape.len() / (rows * columns);
            assert!(counts.is_none_or(|c| c.shape.len() == slices), "muon: {name} {:?} and counts {counts:?}", w.shape);
            let part = Part { w, d_w, momentum, counts, rows, columns, first: 0, slices };
            if part.side() <= SMALL_SIDE {
                self.muon_small(part, clip, constants);
            } else {
                classes.entry(part.side().next_multiple_of(PADDING)).or_default().push(part);
            }
        }
        for (side, mut parts) in classes {
            parts.sort_by_key(|p| std::cmp::Reverse(p.length())); // Stable; equal lengths need no padding.
            for batch in batches(side, parts) {
                self.muon_batch(side, &batch, clip, constants);
            }
        }
    }

    fn muon_small(&mut self, part: Part, clip: Tensor, constants: Muon) {
        let (Part { w, d_w, momentum, .. }, counts) = (part, part.counts_or(clip));
        let (x, damage) = (self.like("muon.x", w), self.update_damage());
        self.clear(x);
        self.dispatch(UpdateSmall { params: part.params(constants), clip, counts, d_w, momentum, w, x, damage });
    }

    fn muon_batch(&mut self, side: u32, parts: &[Part], clip: Tensor, constants: Muon) {
        let length = padded_length(parts);
        let slices = parts.iter().map(|p| p.slices).sum::<u32>();
        let stack = self.tensor_in_parts("muon.stack", [slices, side, length], parts.len() as u32);
        let mut place = 0;
        let placed: Vec<_> = parts
            .iter()
            .map(|part| {
                let params = Params { side, length, place, ..part.params(constants) };
                place += part.slices;
                (part, params)
            })
            .collect();
        for (part, params) in &placed {
            self.gather(part, *params, clip, stack);
        }
        let orthogonal = self.orthogonalize(stack); // [slices, side, length]
        for (part, params) in &placed {
            self.scatter(part, *params, clip, orthogonal);
        }
    }

    fn gather(&mut self, part: &Part, params: Params, clip: Tensor, stack: Tensor) {
        let (Part { d_w, momentum, .. }, counts) = (*part, part.counts_or(clip));
        self.dispatch(Gather { params, clip, counts, d_w, momentum, stack });
    }

    fn scatter(&mut self, part: &Part, params: Params, clip: Tensor, orthogonal: Tensor) {
        let (w, counts, damage) = (part.w, part.counts_or(clip), self.update_damage());
        self.dispatch(Scatter { params, clip, counts, orthogonal, w, damage });
    }

    /// Five Newton-Schulz steps from `x` / (|x|_F + 1e-7), for each slice of x [S, side, length].
    fn orthogonalize(&mut self, x: Tensor) -> Tensor {
        let [_, side, _] = x.shape.dims("orthogonalize x");
        let gram = self.matmul(x, x, Form::Nt); // [S, side, side]
        let factor = self.like("muon.factor", gram);
        let addend = self.like("muon.addend", gram);
        let params = Params { side, ..Default::default() };
        self.dispatch(Normalize { params, gram, factor, addend });
        let addition = Addend { alpha: C, beta: 1.0, residual: addend, diagonal: 0.0 };
        let first = self.matmul_add(gram, factor, Form::Nn, addition); // [S, side, side]
        let gram = self.sandwich(first, gram);
        let x = self.newton_schulz(x, gram, first, 2);
        let gram = self.matmul(x, x, Form::Nt); // [S, side, side]
        let first = self.polynomial(gram);
        let gram = self.sandwich(first, gram);
        self.newton_schulz(x, gram, first, 1)
    }

    /// The product of `steps` polynomials with `first`, applied to `x`; `gram` is that of `first x`.
    fn newton_schulz(&mut self, x: Tensor, gram: Tensor, first: Tensor, steps: u32) -> Tensor {
        let (mut gram, mut product) = (gram, first);
        for step in 0..steps {
            let q = self.polynomial(gram);
            product = self.matmul(q, product, Form::Nn); // [S, side, side]
            if step + 1 < steps {
                gram = self.sandwich(q, gram);
            }
        }
        self.matmul(product, x, Form::Nn) // [S, side, length]
    }

    /// a I + b G + c G^2.
    fn polynomial(&mut self, gram: Tensor) -> Tensor {
        let addend = Addend { alpha: C, beta: B, residual: gram, diagonal: A };
        self.matmul_add(gram, gram, Form::Nn, addend)
    }

    /// Q G Q, the Gram matrix after a step.
    fn sandwich(&mut self, q: Tensor, gram: Tensor) -> Tensor {
        let half = self.matmul(q, gram, Form::Nn);
        self.matmul(half, q, Form::Nn)
    }
}

fn padded_length(parts: &[Part]) -> u32 {
    parts.iter().map(|p| p.length().next_multiple_of(PADDING)).max().unwrap_or(PADDING)
}

/// Splits a class into stacks that fit a binding and an image.
fn batches(side: u32, parts: Vec<Part>) -> Vec<Vec<Part>> {
    let mut batches: Vec<Vec<Part>> = Vec::new();
    let mut room = 0;
    for mut part in parts {
        while part.slices > 0 {
            if room == 0 {
                let slice = side * padded_length(&[part]);
                room = (STACK_ELEMENTS / slice).min(MAX_IMAGE_SIDE / side).max(1);
                batches.push(Vec::new());
            }
            let taken = part.slices.min(room);
            let piece = Part { slices: taken, ..part };
            if let Some(batch) = batches.last_mut() {
                batch.push(piece);
            }
            part.first += taken;
            part.slices -= taken;
            room -= taken;
        }
    }
    batches
}
