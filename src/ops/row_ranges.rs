//! Ranges of rows: what an adapter cannot bind whole is computed part by part. Rows do not depend on each other, so parts give the same
//! bits as the whole, but for sums over rows: gradients of weights are sums of those of the parts, in order.

use super::{
    Graph,
    kernels::{
        matmul::TILE,
        row_ranges::{Params, Put, Segments, Take},
    },
};
use crate::gpu::Tensor;

impl Graph {
    /// Rows of parts in which `rows` rows of `width` elements are computed: as few parts as the adapter can bind, of equal size but for the
    /// last. CPU rasterisers read operands as images, whose sides are limited as well.
    pub(super) fn rows_of_parts(&self, rows: u32, width: u32) -> u32 {
        let bindable = (self.capabilities.binding_bytes / (4 * u64::from(width))).clamp(1, u64::from(u32::MAX)) as u32;
        let most = if self.capabilities.images { bindable.min(self.capabilities.image_side) } else { bindable };
        if rows <= most {
            return rows;
        }
        rows.div_ceil(rows.div_ceil(most)).next_multiple_of(TILE).min(most)
    }

    /// `x` [.., D] in parts of `rows` rows [rows, D], the last of which may have fewer.
    pub fn cut_rows(&mut self, x: Tensor, rows: u32) -> Vec<Tensor> {
        let [all, _] = x.shape.matrix("cut_rows x"); // A, D
        if rows >= all {
            return vec![x];
        }
        let parts: Vec<Tensor> = (0..all).step_by(rows as usize).map(|first| self.take_rows(x, first, rows.min(all - first))).collect();
        self.on_backward_many(&parts, move |g, gradients| {
            let d_x = g.tensor_in_parts("d_cut_rows", x.shape, gradients.len() as u32); // [.., D]
            for (index, d_part) in gradients.iter().enumerate() {
                let d_part = d_part.expect("cut_rows: every part has a gradient, or none");
                g.put_rows(d_part, d_x, index as u32 * rows);
            }
            g.add_grad(x, d_x);
        });
        parts
    }

    /// The rows of all `parts` [.., D], one part after another.
    pub fn join_rows(&mut self, parts: &[Tensor]) -> Tensor {
        if let [only] = parts {
            return *only;
        }
        let sizes: Vec<[u32; 2]> = parts.iter().map(|part| part.shape.matrix("join_rows part")).collect(); // rows, D
        let width = sizes[0][1];
        let all = sizes.iter().map(|[rows, _]| rows).sum::<u32>();
        let y = self.tensor_in_parts("join_rows", [all, width], parts.len() as u32); // [A, D]
        let mut ranges = Vec::new();
        let mut first = 0;
        for (part, [rows, part_width]) in parts.iter().zip(sizes) {
            assert_eq!(part_width, width, "join_rows: parts of {part_width} and {width} columns");
            self.put_rows(*part, y, first);
            ranges.push((*part, first, rows));
            first += rows;
        }
        self.on_backward(y, move |g, d_y| {
            for (part, first, rows) in ranges {
                let d_part = g.take_rows(d_y, first, rows);
                g.add_grad(part, d_part);
            }
        });
        y
    }

    /// The experts' offsets u32 [E + 1] within a range of their rows.
    pub(super) fn segments(&mut self, offsets: Tensor, first_row: u32, rows: u32) -> Tensor {
        let part_offsets = self.tensor_u32("offsets.part", offsets.shape); // [E + 1]
        self.dispatch(Segments { params: Params { rows, width: 1, first_row }, offsets, part_offsets });
        part_offsets
    }

    /// A range of rows of `whole` [.., D], [rows, D]: copied unless it is all of them. Records no backward.
    pub(super) fn take_rows(&mut self, whole: Tensor, first_row: u32, rows: u32) -> Tensor {
        let [all, width] = whole.shape.matrix("take_rows whole");
        if rows == all {
            return whole.reshape([rows, width]);
        }
        let part = self.tensor("rows", [rows, width]);
        self.dispatch(Take { params: Params { rows, width, first_row }, whole, part });
        part
    }

    /// Copies `part` [rows, D] to a range of the rows of `whole` [.., D], of which each is written once. Records no backward.
    pub(super) fn put_rows(&mut self, part: Tensor, whole: Tensor, first_row: u32) {
        let [rows, width] = part.shape.matrix("put_rows part");
        self.dispatch(Put { params: Params { rows, width, first_row }, whole, part });
    }
}
