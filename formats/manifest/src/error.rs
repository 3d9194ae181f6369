//! What is wrong with a document, where, and by which rule.

use core::fmt;

/// A document that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where: a path such as `nodeGraph.edges[2].producer`, with the element's name where it has one.
    pub element: String,
    /// Which rule it breaks.
    pub rule: Rule,
    /// What is wrong and what would be right, for people.
    pub message: String,
}

impl Error {
    pub(crate) fn new(element: impl Into<String>, rule: Rule, message: impl Into<String>) -> Error {
        Error { element: element.into(), rule, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.element, self.message, self.rule.word())
    }
}

impl std::error::Error for Error {}

/// The rules. [`Rule::word`] is stable and may be shown by an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Larger than [`crate::limits`] allow.
    Size,
    /// Not JSON, or a member that is missing, unknown, of the wrong type or out of its range.
    Schema,
    /// Two elements have the same name.
    UniqueNames,
    /// A node's package is not listed, not known, or has no such interface.
    InterfaceExists,
    /// An interface's asset is not in its package.
    AssetExists,
    /// An edge's end does not exist.
    EdgeEndExists,
    /// The two ends of an edge have different types.
    PortTypesMatch,
    /// More edges end in a port than it accepts.
    PortConnections,
    /// An override names a node that the graph does not have.
    OverrideTargetExists,
    /// An override replaces a node that may not be replaced.
    Overridable,
    /// A node that must be replaced is not.
    OverrideMandatory,
    /// What replaces a node is not of its kind.
    OverrideKind,
    /// A camera placeholder stands for no camera.
    CameraChosen,
    /// Too many cameras.
    CameraCount,
    /// A network rule does not fit the interface or the graph.
    NetworkRule,
    /// The appliance cannot provide this.
    Unsupported,
}

impl Rule {
    /// A stable word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Rule::Size => "size",
            Rule::Schema => "schema",
            Rule::UniqueNames => "unique-names",
            Rule::InterfaceExists => "interface-exists",
            Rule::AssetExists => "asset-exists",
            Rule::EdgeEndExists => "edge-end-exists",
            Rule::PortTypesMatch => "port-types-match",
            Rule::PortConnections => "port-connections",
            Rule::OverrideTargetExists => "override-target-exists",
            Rule::Overridable => "overridable",
            Rule::OverrideMandatory => "override-mandatory",
            Rule::OverrideKind => "override-kind",
            Rule::CameraChosen => "camera-chosen",
            Rule::CameraCount => "camera-count",
            Rule::NetworkRule => "network-rule",
            Rule::Unsupported => "unsupported",
        }
    }
}
