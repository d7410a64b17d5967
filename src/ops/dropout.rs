//! Inverted dropout (Srivastava et al., JMLR 2014). The mask is a function of (seed, step, stream, element): backward
//! regenerates it, nothing is saved.

use super::{
    Graph,
    elementwise::Rows,
    kernels::dropout::{Forward, Params},
};
use crate::gpu::Tensor;

impl Graph {
    /// `x` with each element zero with probability `p`, else scaled by 1 / (1 - p). `p` = 0 records nothing.
    pub fn dropout(&mut self, x: Tensor, p: f32) -> Tensor {
        assert!((0.0..1.0).contains(&p), "dropout: p = {p}, wanted 0 <= p < 1");
        if p == 0.0 {
            return x;
        }
        let stream = self.next_stream();
        let y = self.like("dropout", x);
        self.mask(x, y, p, stream);
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_dropout", x);
            g.mask(d_y, d_x, p, stream);
            g.add_grad(x, d_x);
        });
        y
    }

    /// Writes `y` = `x` times the mask of `stream`; forward and backward are the same.
    fn mask(&mut self, x: Tensor, y: Tensor, p: f32, stream: u32) {
        let (n, rows) = (x.shape.len(), Rows::of(x));
        let params = Params { n, width: rows.width, p, stream };
        self.dispatch(Forward { params, has_dropout: 1, x: rows.view(x), y });
    }
}
