//! What a model runtime must be able to do.

use belvedere_interfaces::channel::inference::Tensor;

/// Element types that travel in channels; their names are numpy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ElementType {
    Float32,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Bool,
}

impl ElementType {
    const ALL: [(ElementType, &'static str, usize); 11] = [
        (ElementType::Float32, "float32", 4),
        (ElementType::Float64, "float64", 8),
        (ElementType::Int8, "int8", 1),
        (ElementType::Int16, "int16", 2),
        (ElementType::Int32, "int32", 4),
        (ElementType::Int64, "int64", 8),
        (ElementType::Uint8, "uint8", 1),
        (ElementType::Uint16, "uint16", 2),
        (ElementType::Uint32, "uint32", 4),
        (ElementType::Uint64, "uint64", 8),
        (ElementType::Bool, "bool", 1),
    ];

    fn row(self) -> (ElementType, &'static str, usize) {
        Self::ALL.into_iter().find(|(kind, ..)| *kind == self).unwrap_or(Self::ALL[0])
    }

    /// numpy's name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        self.row().2
    }

    /// The type of that name.
    pub fn of_name(name: &str) -> Option<ElementType> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == name).map(|(kind, ..)| kind)
    }
}

/// Elements in C order.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Elements {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Bool(Vec<bool>),
}

/// A tensor with its elements.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorValue {
    /// Name in the model.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// As many as the dimensions' product.
    pub elements: Elements,
}

/// Why a model cannot be loaded, or a call failed; for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub String);

/// A model runtime.
pub trait Engine: Send + Sync {
    /// Loads a model.
    fn load(&self, model: &[u8]) -> Result<Box<dyn Session>, EngineError>;
}

/// A loaded model.
pub trait Session: Send + Sync {
    /// Inputs as the model states them; -1 is a free dimension.
    fn inputs(&self) -> &[Tensor];
    /// Outputs as the model states them.
    fn outputs(&self) -> &[Tensor];
    /// Runs the model. Inputs have been checked against [`Session::inputs`]. Several threads may call at once.
    fn run(&self, inputs: Vec<TensorValue>) -> Result<Vec<TensorValue>, EngineError>;
}
