//! The language model: [`transformer`] records it on a graph, the other modules are its parts. The model as data, its
//! parameters and its cost are in [`run::model`](crate::run::model).

mod attention;
mod build;
mod depth;
mod ffn;
mod moe;
pub mod transformer;
