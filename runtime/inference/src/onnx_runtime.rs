//! ONNX Runtime as an engine, from a shared library that is loaded once.

use crate::engine::{ElementType, Elements, Engine, EngineError, Session, TensorValue};
use belvedere_interfaces::channel::inference::{MAXIMUM_DIMENSIONS, Tensor};
use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor as OrtTensor, TensorElementType, ValueType};
use std::path::Path;
use std::sync::Mutex;

/// The engine.
pub struct OnnxRuntime {
    environment: ort::environment::Environment,
    threads: usize,
}

fn engine_error(error: impl core::fmt::Display) -> EngineError {
    EngineError(error.to_string().replace('\n', " "))
}

impl OnnxRuntime {
    /// Loads `library`; every model runs on `threads` threads. Once in a process.
    pub fn new(library: &Path, threads: usize) -> Result<OnnxRuntime, EngineError> {
        let environment = ort::init_from(library)
            .map_err(|error| EngineError(format!("load {}: {error}", library.display())))?
            .with_name("belvedere")
            .with_telemetry(false)
            .build()
            .map_err(engine_error)?;
        Ok(OnnxRuntime { environment, threads: threads.max(1) })
    }
}

impl Engine for OnnxRuntime {
    fn load(&self, model: &[u8]) -> Result<Box<dyn Session>, EngineError> {
        let build = || -> Result<OrtSession, ort::Error> {
            fn plain(error: ort::Error<SessionBuilder>) -> ort::Error {
                error.into()
            }
            OrtSession::builder(&self.environment)?
                .with_intra_threads(self.threads)
                .map_err(plain)?
                // A thread that spins takes the processor from the decoder.
                .with_intra_op_spinning(false)
                .map_err(plain)?
                .commit_from_memory(model)
        };
        let session = build().map_err(engine_error)?;
        let inputs = session.inputs().iter().map(tensor).collect::<Result<_, _>>()?;
        let outputs = session.outputs().iter().map(tensor).collect::<Result<_, _>>()?;
        Ok(Box::new(Loaded { inputs, outputs, session: Mutex::new(session) }))
    }
}

struct Loaded {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// One call at a time: a call already uses every thread that the model has.
    session: Mutex<OrtSession>,
}

const TYPES: [(TensorElementType, ElementType); 11] = [
    (TensorElementType::Float32, ElementType::Float32),
    (TensorElementType::Float64, ElementType::Float64),
    (TensorElementType::Int8, ElementType::Int8),
    (TensorElementType::Int16, ElementType::Int16),
    (TensorElementType::Int32, ElementType::Int32),
    (TensorElementType::Int64, ElementType::Int64),
    (TensorElementType::Uint8, ElementType::Uint8),
    (TensorElementType::Uint16, ElementType::Uint16),
    (TensorElementType::Uint32, ElementType::Uint32),
    (TensorElementType::Uint64, ElementType::Uint64),
    (TensorElementType::Bool, ElementType::Bool),
];

fn element_type(kind: TensorElementType, name: &str) -> Result<ElementType, EngineError> {
    let found = TYPES.into_iter().find(|(theirs, _)| *theirs == kind).map(|(_, ours)| ours);
    found.ok_or_else(|| EngineError(format!("{name} has elements of type {kind}, which cannot be handed to applications")))
}

fn tensor(outlet: &Outlet) -> Result<Tensor, EngineError> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(EngineError(format!("{} is no tensor; only tensors can be handed to applications", outlet.name())));
    };
    if shape.len() > MAXIMUM_DIMENSIONS {
        return Err(EngineError(format!("{} has more than {MAXIMUM_DIMENSIONS} dimensions", outlet.name())));
    }
    Ok(Tensor {
        name: outlet.name().to_owned(),
        dtype: element_type(*ty, outlet.name())?.name().to_owned(),
        shape: shape.to_vec(),
    })
}

impl Session for Loaded {
    fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }

    fn run(&self, inputs: Vec<TensorValue>) -> Result<Vec<TensorValue>, EngineError> {
        let mut values: Vec<(String, SessionInputValue<'static>)> = Vec::new();
        for input in inputs {
            let name = input.name.clone();
            values.push((name, to_ort(input).map_err(engine_error)?.into()));
        }
        let mut session = self.session.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let results = session.run(values).map_err(engine_error)?;
        results.iter().map(|(name, value)| from_ort(name, &value)).collect()
    }
}

fn to_ort(input: TensorValue) -> Result<DynValue, ort::Error> {
    let shape: Vec<i64> = input.shape.iter().map(|dimension| *dimension as i64).collect();
    Ok(match input.elements {
        Elements::Float32(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Float64(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Int8(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Int16(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Int32(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Int64(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Uint8(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Uint16(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Uint32(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Uint64(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
        Elements::Bool(elements) => OrtTensor::from_array((shape, elements))?.into_dyn(),
    })
}

fn from_ort(name: &str, value: &DynValue) -> Result<TensorValue, EngineError> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err(EngineError(format!("result {name} is no tensor"))) };
    macro_rules! extract {
        ($variant:ident, $type:ty) => {{
            let (shape, elements) = value.try_extract_tensor::<$type>().map_err(engine_error)?;
            (shape.to_vec(), Elements::$variant(elements.to_vec()))
        }};
    }
    let (shape, elements) = match element_type(*ty, name)? {
        ElementType::Float32 => extract!(Float32, f32),
        ElementType::Float64 => extract!(Float64, f64),
        ElementType::Int8 => extract!(Int8, i8),
        ElementType::Int16 => extract!(Int16, i16),
        ElementType::Int32 => extract!(Int32, i32),
        ElementType::Int64 => extract!(Int64, i64),
        ElementType::Uint8 => extract!(Uint8, u8),
        ElementType::Uint16 => extract!(Uint16, u16),
        ElementType::Uint32 => extract!(Uint32, u32),
        ElementType::Uint64 => extract!(Uint64, u64),
        ElementType::Bool => extract!(Bool, bool),
    };
    let shape = shape.iter().map(|dimension| (*dimension).max(0) as u64).collect();
    Ok(TensorValue { name: name.to_owned(), shape, elements })
}
