//! The asset descriptor: how a container is entered, or what a model takes.

use crate::text::present;
use crate::{EnvelopeVersion, FrameworkVersion, NonEmpty};
use serde::Deserialize;

/// One of the two.
#[derive(Debug, Clone, PartialEq)]
pub enum Descriptor {
    /// `runtimeDescriptor`.
    Runtime(RuntimeDescriptor),
    /// `mlModelDescriptor`.
    Model(ModelDescriptor),
}

/// How a container is entered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuntimeDescriptor {
    /// Version of the format.
    pub envelope_version: EnvelopeVersion,
    /// The program.
    #[serde(default, deserialize_with = "present")]
    pub entry: Option<Entry>,
    /// Handlers inside the program; not used by any runtime known.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// `entry`: runs `path name arguments…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The program; `$default` when absent, which is Python.
    #[serde(default, deserialize_with = "present")]
    pub path: Option<String>,
    /// Its first argument. The other members need it.
    #[serde(default, deserialize_with = "present")]
    pub name: Option<NonEmpty>,
    /// Its further arguments.
    #[serde(default, deserialize_with = "present")]
    pub arguments: Option<Vec<String>>,
    /// Added to the environment.
    #[serde(default, deserialize_with = "present")]
    pub environment: Option<Vec<EnvironmentVariable>>,
}

/// `environment[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentVariable {
    /// Name.
    pub name: NonEmpty,
    /// Value.
    pub value: String,
}

/// `events[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Event {
    /// Before the node ends.
    OnExit {
        /// For people.
        #[serde(default, deserialize_with = "present")]
        description: Option<String>,
        /// Function.
        handler: NonEmpty,
    },
    /// When some input is there.
    OnPartialInput {
        /// For people.
        #[serde(default, deserialize_with = "present")]
        description: Option<String>,
        /// Function.
        handler: NonEmpty,
        /// Ports.
        inputs: Vec<NonEmpty>,
    },
    /// When all input is there.
    OnCompleteInput {
        /// For people.
        #[serde(default, deserialize_with = "present")]
        description: Option<String>,
        /// Function.
        handler: NonEmpty,
        /// Ports.
        inputs: Vec<NonEmpty>,
    },
}

/// What a model takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelDescriptor {
    /// Version of the format.
    pub envelope_version: EnvelopeVersion,
    /// What it was made with; a hint only, since models are ONNX here.
    pub framework: Framework,
    /// Of the framework.
    #[serde(default, deserialize_with = "present")]
    pub framework_version: Option<FrameworkVersion>,
    /// Input tensors.
    pub inputs: Vec<InputTensor>,
    /// Precision wished for.
    #[serde(default, deserialize_with = "present")]
    pub precision_mode: Option<Precision>,
}

/// Framework of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Framework {
    /// TensorFlow.
    Tensorflow,
    /// PyTorch.
    Pytorch,
    /// Apache MXNet.
    Mxnet,
}

/// Precision of a compiled model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Precision {
    /// 32 bits.
    #[serde(rename = "FP32")]
    Single,
    /// 16 bits.
    #[serde(rename = "FP16")]
    Half,
}

/// `inputs[]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputTensor {
    /// In the model.
    pub name: String,
    /// Element type; `float32` when absent.
    #[serde(default, deserialize_with = "present", rename = "type")]
    pub kind: Option<TensorType>,
    /// Dimensions.
    pub shape: Vec<i64>,
}

/// Element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names are numpy's
pub enum TensorType {
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Float16,
    Float32,
    Float64,
}

impl TensorType {
    /// numpy's name.
    pub fn word(self) -> &'static str {
        match self {
            TensorType::Int8 => "int8",
            TensorType::Uint8 => "uint8",
            TensorType::Int16 => "int16",
            TensorType::Uint16 => "uint16",
            TensorType::Int32 => "int32",
            TensorType::Uint32 => "uint32",
            TensorType::Float16 => "float16",
            TensorType::Float32 => "float32",
            TensorType::Float64 => "float64",
        }
    }
}
