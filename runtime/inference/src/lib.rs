//! Runs models for applications: see README.md.
//!
//! - [`engine`]: what a model runtime must be able to do, and the values that go in and out.
//! - [`onnx_runtime`]: the engine that is ONNX Runtime.
//! - [`tensors`]: hostile descriptions of tensors, checked before anything is read.
//! - [`models`]: the models that are loaded.
//! - [`crashes`]: who made the engine crash, remembered beyond the crash.
//! - [`server`]: the channel `inference.sock`.

pub mod crashes;
pub mod engine;
pub mod models;
pub mod onnx_runtime;
pub mod server;
pub mod tensors;
