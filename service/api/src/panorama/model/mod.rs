//! The Panorama API as the published model has it, as data: every shape under its name, every operation with its method,
//! path, input, output and errors. Inputs are checked against it, outputs too in debug builds, and a client's model is
//! printed from it ([`document`]).

/// Constants that are shapes under the model's names.
macro_rules! shapes {
    ($($(@$sensitive:ident)? $constant:ident $name:literal = $shape:expr;)*) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub const $constant: Shape =
                Shape::Named(&Named { name: $name, shape: $shape, sensitive: shapes!(@sensitive $($sensitive)?) });
        )*
    };
    (@sensitive sensitive) => { true };
    (@sensitive) => { false };
}

pub mod document;
pub mod errors;
pub mod operations;
pub mod scalars;
pub mod structures;

use crate::model::{Fault, Member, check_output};
use serde_json::Value;

/// An operation as it looks from outside.
#[derive(Debug)]
pub struct Signature {
    /// The model's name.
    pub name: &'static str,
    /// `GET`.
    pub method: &'static str,
    /// `/devices/{DeviceId}`.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What its input must be.
    pub input: &'static [Member],
    /// What its output is.
    pub output: &'static [Member],
    /// The errors that the model gives it, by their letters ([`errors::ERRORS`]).
    pub errors: &'static str,
}

impl Signature {
    /// Everything in an output that is not as the model says.
    pub fn output_faults(&self, output: &Value) -> Vec<Fault> {
        let mut faults = check_output(self.output, output);
        // The real service broke its own pattern here, and so do we: `192.168.0.1/24`, or `--` for none.
        faults.retain(|f| !(f.name.starts_with("CurrentNetworkingStatus.") && f.name.ends_with(".IpAddress")));
        faults
    }
}
