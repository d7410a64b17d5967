//! Every op against its f64 twin, on every tier that the adapter can run. One device for the whole binary.

mod attention;
mod elementwise;
mod embedding;
mod harness;
mod harness_fails;
mod loss_head;
mod adamw;
mod grad_norm;
mod grouped_matmul;
mod matmul;
mod muon;
mod rms_norm;
mod rope;
mod activation;
mod balance;
mod combine;
mod dropout;
mod expert_ffn;
mod gather_rows;
mod permute;
mod router;
mod selection_bias;
mod update;
