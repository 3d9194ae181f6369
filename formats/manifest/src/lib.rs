//! The four documents an application is made of, and their rules. Pure: no I/O, no clock.
//!
//! | document | parsed by | is |
//! |---|---|---|
//! | graph (`graph.json`, `ManifestPayload`) | [`parse_graph`] | nodes, the packages they come from, and the edges between their ports |
//! | overrides (`ManifestOverridesPayload`) | [`parse_overrides`] | which nodes of the graph are replaced at deployment, and which network ports open |
//! | package (`package.json`) | [`parse_package`] | interfaces (what nodes can be made of) and assets (what implements them) |
//! | asset descriptor (`<sha256>.json`) | [`parse_descriptor`] | how a container is entered, or what a model takes |
//!
//! Parsing accepts what the published schema `ver_2021-01-01` accepts (unknown members are refused, except in a string
//! input port, where the schema allows them), within [`limits`]. [`resolve`] applies the rules *between* documents and
//! gives the [`Application`] that the appliance runs. Every [`Error`] names the element and the rule.
//!
//! What the schema allows and we refuse is in the README, with the decisions about what no document says.

mod application;
mod builtin;
mod check;
mod descriptor;
mod error;
mod graph;
mod json;
pub mod limits;
mod package;
mod parse;
mod resolve;
mod text;
mod value;

pub use application::*;
pub use builtin::{BUILT_IN_OWNER, built_in, camera_package};
pub use check::{NamedFile, check_descriptor, check_package};
pub use descriptor::*;
pub use error::{Error, Rule};
pub use graph::*;
pub use json::{document_text, unambiguous_json};
pub use package::*;
pub use parse::{parse_descriptor, parse_graph, parse_overrides, parse_package};
pub use resolve::{Included, PackageSet, host_ports, included, resolve};
pub use text::*;
pub use value::{PortType, Value};
