//! Floor 3: a language model as data ([`config`]), its parameter tree ([`params`]), what a token costs ([`cost`]), and
//! the page that records it on a graph ([`transformer`]).

mod attention;
mod build;
mod depth;
mod ffn;
mod moe;
pub mod transformer;
