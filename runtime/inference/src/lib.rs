//! Runs models for applications: see README.md.
//!
//! - [`engine`]: what a model runtime must be able to do, and the values that go in and out.
//! - [`onnx_runtime`]: the engine that is ONNX Runtime.
//! - [`tensors`]: hostile descriptions of tensors, checked before anything is read.
//! - [`server`]: the channel `inference.sock`, and the models that are loaded.

pub mod engine;
pub mod onnx_runtime;
pub mod server;
pub mod tensors;
