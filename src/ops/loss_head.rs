//! The loss head: logits, cross-entropy, accuracy and gradient, chunk by chunk, so that the logits of a large
//! vocabulary are never materialised (Liger Kernel, arXiv 2410.10989).
//!
//! d(total) / d(loss) is known before a step starts ([`Graph::loss_seed`]), so training computes the gradient while a
//! chunk's logits exist; backward only adds it. A loss that is scaled between here and the seed is not supported.

use super::{
    Graph,
    kernels::{
        loss_head::{Evaluate, Gradient, GradientHalves, Params, Reduce},
        matmul::TILE,
    },
    matmul::Form,
};
use crate::{
    gpu::{DType, Tensor},
    limits::rows_per_chunk,
};

// Chunks are whole tiles of the matrix products.
const _: () = assert!(crate::limits::TILE_ROWS == TILE as u64);

/// The outputs of the loss head.
#[derive(Clone, Copy, Debug)]
pub struct LossHead {
    /// Mean cross-entropy in nats over the micro-batch's targets (by the step's `inverse_targets`), `[1]`.
    pub loss: Tensor,
    /// Sums over the micro-batch: cross-entropy in nats, targets, correct predictions, rows with a non-finite logit, `[4]`.
    pub statistics: Tensor,
}

/// One chunk of rows and its operands.
#[derive(Clone, Copy)]
struct Chunk {
    first_row: u32,
    x: Tensor, // [rows, D]
    targets: Tensor,
    row_totals: Tensor,
}

impl LossHead {
    /// The index of a sum over the targets in the statistics; `None` if there is no such sum.
    pub fn slot(name: &str) -> Option<usize> {
        ["cross_entropy", "targets", "correct"].iter().position(|slot| *slot == name)
    }
}

impl Graph {
    /// Cross-entropy of the logits `x` [.., D] times `w` [V, D] transposed against `targets` `[N]`; targets of 2^32 - 1
    /// are ignored. With `train`, gradients for `x` and the parameter `w` are recorded as well.
    pub fn loss_head(&mut self, x: Tensor, w: Tensor, targets: Tensor, train: bool) -> LossHead {
        let [vocabulary, _] = w.shape.matrix("loss_head w"); // V, D
        let rows = match self.capabilities.logit_rows {
            0 => rows_per_chunk(vocabulary),
            rows => rows,
        };
        self.loss_head_in_chunks(x, w, targets, train, rows)
    }

    /// Like [`Graph::loss_head`], with at most `rows_per_chunk` rows of logits at a time.
    pub fn loss_head_in_chunks(&mut self, x: Tensor, w: Tensor, targets: Tensor, train: bool, rows_per_chunk: u32) -> LossHead {
        let [rows, width] = x.shape.matrix("loss_head x"); // N, D
        assert_eq!(targets.shape.len(), rows, "loss_head: targets {:?} against x {:?}", targets.shape, x.shape);
        let chunks = rows.div_ceil(rows_per_chunk);
        let row_totals = self.tensor_in_parts("loss_head.row_totals", [rows, 4], chunks); // [N, 4]
        let mut d_x = None;
        for first_row in (0..rows).step_by(rows_per_chunk as usize) {
            let chunk_rows = rows_per_chunk.min(rows - first_row);
            let chunk = Chunk { first_row, x: self.take_rows(x, first_row, chunk_rows), targets, row_totals };
            let logits = self.matmul(chunk.x, w, Form::Nt); // [chunk, V]
            if !train {
                self.evaluate(chunk, logits);
                continue;
            }
            let d_logits = self.logits_gradient(chunk, logits, w); // [chunk, V]
            let d_w = self.param_grad(w); // [V, D]
            self.matmul_accumulate(d_logits, chunk.x, d_w);
            if self.wants_grad(x) {
                let d_chunk = self.matmul(d_logits, w, Form::Nn); // [chunk, D]
                d_x = Some(match chunks {
                    1 => d_chunk,
                    _ => {
                        let d_x = d_x.unwrap_or_else(|| self.tensor_in_parts("d_loss_head", [rows, width], chunks));
                        self.put_rows(d_chunk, d_x, first_row);
                        d_x
                    }
                });
            }
        }
        let head = self.reduce(row_totals);
        if train {
            let seed = self.loss_seed();
            self.on_backward(head.loss, move |g, d_loss| {
                assert_eq!(d_loss.id, seed.id, "loss_head: its gradient was recorded for the loss seed");
                if let Some(d_x) = d_x {
                    g.add_grad(x, d_x);
                }
            });
        }
        head
    }

    /// Loss of a chunk.
    fn evaluate(&mut self, chunk: Chunk, logits: Tensor) {
        let Chunk { first_row, targets, row_totals, .. } = chunk;
        let [rows, vocabulary] = logits.shape.dims("loss_head logits");
        let params = Params { rows, vocabulary, first_row };
        self.dispatch(Evaluate { params, targets, logits, row_totals });
    }

    /// Loss of a chunk, and its d_logits [chunk, V]: as f16 if the products with `w` and with the chunk's rows read that, else in place of
    /// the logits.
    fn logits_gradient(&mut self, chunk: Chunk, logits: Tensor, w: Tensor) -> Tensor {
        let Chunk { first_row, targets, row_totals, .. } = chunk;
        let [rows, vocabulary] = logits.shape.dims("loss_head logits");
        let d_loss = self.loss_seed(); // [1]
        let params = Params { rows, vocabulary, first_row };
        let halves = Tensor { dtype: DType::F16, ..logits };
        if !self.capabilities.splits_operands && self.takes_halves(halves, w, Form::Nn) && self.takes_halves(halves, chunk.x, Form::Tn) {
            let d_logits = self.tensor_f16("d_loss_head.logits", logits.shape); // [chunk, V]
            if self.try_dispatch(&GradientHalves { params, targets, logits, d_loss, row_totals, d_logits }) {
                return d_logits;
            }
        }
        self.dispatch(Gradient { params, targets, logits, d_loss, row_totals });
        logits
    }

    /// Sums the rows' results.
    fn reduce(&mut self, row_totals: Tensor) -> LossHead {
        let [rows, _] = row_totals.shape.dims("loss_head row_totals");
        let loss = self.tensor("loss_head.loss", [1]);
        let totals = self.tensor("loss_head.statistics", [4]);
        self.dispatch(Reduce { params: Params { rows, ..Params::default() }, row_totals, totals, loss });
        LossHead { loss, statistics: totals }
    }
}
