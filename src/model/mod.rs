//! The language model: the page that records it on a graph ([`transformer`]), and the parts it is made of. What a model is as data, its
//! parameters and its cost, is [`run::model`](crate::run::model).

mod attention;
mod build;
mod depth;
mod ffn;
mod moe;
pub mod transformer;
