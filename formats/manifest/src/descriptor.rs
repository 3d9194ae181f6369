//! The asset descriptor: how a container is entered, or what a model takes.

use crate::text::{present, wholes};
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
#[serde(try_from = "RawEntry")]
pub struct Entry {
    /// The program; `$default` when absent, which is Python.
    pub path: Option<String>,
    /// Its first argument. The other members need it.
    pub name: Option<NonEmpty>,
    /// Its further arguments.
    pub arguments: Option<Vec<String>>,
    /// Added to the environment.
    pub environment: Option<Vec<EnvironmentVariable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    #[serde(default, deserialize_with = "present")]
    path: Option<String>,
    #[serde(default, deserialize_with = "present")]
    name: Option<NonEmpty>,
    #[serde(default, deserialize_with = "present")]
    arguments: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    environment: Option<Vec<EnvironmentVariable>>,
}

impl TryFrom<RawEntry> for Entry {
    type Error = &'static str;
    fn try_from(RawEntry { path, name, arguments, environment }: RawEntry) -> Result<Entry, &'static str> {
        match name {
            None if path.is_some() => Err("\"path\" needs a \"name\": the file that is run"),
            None if arguments.is_some() => Err("\"arguments\" need a \"name\": the file that is run"),
            None if environment.is_some() => Err("\"environment\" needs a \"name\": the file that is run"),
            name => Ok(Entry { path, name, arguments, environment }),
        }
    }
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
#[serde(try_from = "RawEvent")]
pub enum Event {
    /// Before the node ends.
    OnExit {
        /// For people.
        description: Option<String>,
        /// Function.
        handler: NonEmpty,
    },
    /// When some input is there.
    OnPartialInput {
        /// For people.
        description: Option<String>,
        /// Function.
        handler: NonEmpty,
        /// Ports.
        inputs: Vec<NonEmpty>,
    },
    /// When all input is there.
    OnCompleteInput {
        /// For people.
        description: Option<String>,
        /// Function.
        handler: NonEmpty,
        /// Ports.
        inputs: Vec<NonEmpty>,
    },
}

/// An event as documents write it. (serde's own tagged enums forget where in the document they are.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: EventKind,
    #[serde(default, deserialize_with = "present")]
    description: Option<String>,
    handler: NonEmpty,
    #[serde(default, deserialize_with = "present")]
    inputs: Option<Vec<NonEmpty>>,
}

#[derive(Deserialize)]
enum EventKind {
    #[serde(rename = "onExit")]
    Exit,
    #[serde(rename = "onPartialInput")]
    PartialInput,
    #[serde(rename = "onCompleteInput")]
    CompleteInput,
}

impl TryFrom<RawEvent> for Event {
    type Error = &'static str;
    fn try_from(RawEvent { kind, description, handler, inputs }: RawEvent) -> Result<Event, &'static str> {
        const MISSING: &str = "member \"inputs\" is missing";
        match kind {
            EventKind::Exit if inputs.is_some() => Err("has a member \"inputs\", which events of type onExit do not have"),
            EventKind::Exit => Ok(Event::OnExit { description, handler }),
            EventKind::PartialInput => Ok(Event::OnPartialInput { description, handler, inputs: inputs.ok_or(MISSING)? }),
            EventKind::CompleteInput => Ok(Event::OnCompleteInput { description, handler, inputs: inputs.ok_or(MISSING)? }),
        }
    }
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
    #[serde(deserialize_with = "wholes")]
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
