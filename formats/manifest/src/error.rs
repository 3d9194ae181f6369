//! What is wrong with a document, where, and by which rule.

use crate::text::shown_at_most;
use core::fmt;

/// A document that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where: the path of the element with the names on it, such as `nodeGraph.nodes[2] "front_door".interface`.
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

    /// The error in at most `characters`: first the rule's word is left out, then the message is cut.
    pub fn brief(&self, characters: usize) -> String {
        let whole = self.to_string();
        if whole.chars().count() <= characters {
            return whole;
        }
        let text = format!("{}: {}", self.element, self.message);
        if text.chars().count() <= characters {
            return text;
        }
        text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
    }
}

/// An element of a list with its name: `nodeGraph.nodes[2] "front_door"`. A long name is cut, so that what is said about
/// it is still read.
pub(crate) fn element(list: &str, index: usize, name: &str) -> String {
    format!("{list}[{index}] {}", shown_at_most(name, 40))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.element, self.message, self.rule.word())
    }
}

impl std::error::Error for Error {}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// The rules. [`Rule::word`] is stable and may be shown by an API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),+];

            /// A stable word for programs.
            pub fn word(self) -> &'static str {
                match self {
                    $(Rule::$name => $word,)+
                }
            }
        }
    };
}

rules! {
    /// Larger than [`crate::limits`] allow.
    Size = "size",
    /// Not JSON, or a member is there twice.
    Json = "json",
    /// A member that is missing, unknown, of the wrong type or out of its range.
    Schema = "schema",
    /// Two elements have the same name.
    UniqueNames = "unique-names",
    /// A package is listed with two versions or patches.
    PackageVersions = "package-versions",
    /// A node's package is not in the list of packages.
    PackageListed = "package-listed",
    /// A listed package is not known.
    PackageExists = "package-exists",
    /// A package has no such interface.
    InterfaceExists = "interface-exists",
    /// An interface's asset is not in its package, or cannot be what the interface needs.
    AssetExists = "asset-exists",
    /// An asset's descriptor is missing, or says nothing that could be run.
    Descriptor = "descriptor",
    /// An edge's end does not exist.
    EdgeEndExists = "edge-end-exists",
    /// The two ends of an edge have different types.
    PortTypesMatch = "port-types-match",
    /// More edges end in a port than it accepts.
    PortConnections = "port-connections",
    /// Pictures come back to the node that they left.
    NoCycles = "no-cycles",
    /// An override names a node that its document or the graph does not have.
    OverrideTargetExists = "override-target-exists",
    /// An override replaces a node that may not be replaced.
    Overridable = "overridable",
    /// A node that must be replaced is not.
    OverrideMandatory = "override-mandatory",
    /// What replaces a node is not of its kind.
    OverrideKind = "override-kind",
    /// A camera placeholder stands for no camera.
    CameraChosen = "camera-chosen",
    /// Too many cameras.
    CameraCount = "camera-count",
    /// More displays than the appliance has.
    OneSink = "one-sink",
    /// A network rule does not fit the interface or the graph.
    NetworkRule = "network-rule",
    /// The appliance cannot provide this.
    Unsupported = "unsupported",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brief_keeps_the_beginning_and_the_limit() {
        let error = Error::new("nodeGraph.nodes[0] \"a\"", Rule::Schema, "x".repeat(300));
        assert_eq!(error.brief(255).chars().count(), 255);
        assert!(error.brief(255).starts_with("nodeGraph.nodes[0] \"a\": xxx") && error.brief(255).ends_with('…'));
        let error = Error::new("a", Rule::Schema, "b");
        assert_eq!(
            (error.brief(255).as_str(), error.brief(6).as_str(), error.brief(3).as_str()),
            ("a: b [schema]", "a: b", "a:…")
        );
    }

    #[test]
    fn long_names_are_cut_where_they_only_say_which_element() {
        assert_eq!(element("nodes", 3, &"n".repeat(128)), format!("nodes[3] \"{}…\"", "n".repeat(40)));
    }
}
