//! Windows: a token stream cut into rows of T tokens, each with its targets.
//!
//! There are two rules, [`TargetRule`]. `next`: window i has tokens iT .. iT+T and its targets are shifted by one, so the last
//! target is the first token of the next window, and every token except the stream's first is a target exactly once; a window
//! needs T+1 tokens. `inside`: a window is T tokens and its targets are its own tokens, shifted; its last position has none. The
//! remainder at the end of the stream is dropped.

use std::ops::Range;

use super::Batch;
use crate::data::shards::Tokens;
use crate::run::config::TargetRule;

/// Windows of T tokens over a stream.
#[derive(Clone, Debug)]
pub struct Windows {
    stream: Tokens,
    /// Tokens per window: T.
    tokens: usize,
    rule: TargetRule,
    /// Distance between the starts of consecutive windows in tokens.
    stride: usize,
    /// Length of the independent pieces of the stream, each of which starts with a document.
    piece: usize,
}

impl Windows {
    /// Cuts `stream` into windows of `tokens` tokens.
    pub fn cut(stream: Tokens, tokens: u32, rule: TargetRule) -> Self {
        let (tokens, piece) = (tokens as usize, stream.len().max(1));
        Self { stream, tokens, rule, stride: tokens, piece }
    }

    /// Windows over separate pieces of [`Windows::reach`] tokens in `stream`.
    pub fn separate(stream: Tokens, tokens: u32, rule: TargetRule) -> Self {
        let stride = Self::reach(tokens, rule);
        Self { stream, tokens: tokens as usize, rule, stride, piece: stride }
    }

    /// Tokens of a window together with its targets: T + 1, or T.
    pub fn reach(tokens: u32, rule: TargetRule) -> usize {
        tokens as usize + usize::from(rule == TargetRule::Next)
    }

    /// Number of whole windows.
    pub fn len(&self) -> usize {
        let reach = Self::reach(self.tokens as u32, self.rule);
        self.stream.len().checked_sub(reach).map_or(0, |rest| rest / self.stride + 1)
    }

    /// Whether there are no windows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stream that was cut.
    pub fn stream(&self) -> &Tokens {
        &self.stream
    }

    /// The range of window `index` in the stream.
    pub fn range(&self, index: usize) -> Range<usize> {
        index * self.stride..index * self.stride + self.tokens
    }

    /// The range of the targets of window `index` in the stream.
    pub fn target_range(&self, index: usize) -> Range<usize> {
        let Range { start, .. } = self.range(index);
        start + 1..start + 1 + self.rule.targets(self.tokens as u32) as usize
    }

    /// The independent pieces of the stream.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let end = self.stream.len();
        (0..end).step_by(self.piece).map(move |start| start..end.min(start + self.piece))
    }

    /// Appends window `index`: T tokens and T targets.
    pub fn copy(&self, index: usize, tokens: &mut Vec<u32>, targets: &mut Vec<u32>) {
        tokens.extend(self.stream.slice(self.range(index)));
        targets.extend(self.stream.slice(self.target_range(index)));
        targets.resize(tokens.len(), Batch::IGNORED);
    }

    /// The (token, target) pairs of some windows, in order.
    pub fn pairs(&self, windows: Range<usize>) -> impl Iterator<Item = (u32, u32)> + '_ {
        let targets = windows.flat_map(|index| self.target_range(index));
        targets.map(|at| (self.stream.get(at - 1), self.stream.get(at)))
    }
}
