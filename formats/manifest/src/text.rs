//! Strings with a shape. Each type is checked when it is read, so that the error names the place.

use serde::{Deserialize, Serialize};

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $expectation:literal, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(&text) {
                    Ok($name(text))
                } else {
                    Err(format!("{} is not {}", shown(&text), $expectation))
                }
            }
        }
        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }
        impl core::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl core::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// A string as an error shows it: quoted, and not longer than a line.
pub(crate) fn shown(text: &str) -> String {
    shown_at_most(text, 80)
}

/// The same with another length. What an escape takes counts: 40 control characters would be shown as 200.
pub(crate) fn shown_at_most(text: &str, characters: usize) -> String {
    let (mut line, mut taken) = (String::from("\""), 0);
    for character in text.chars() {
        let escaped = (character != '\'').then(|| character.escape_debug());
        taken += escaped.as_ref().map_or(1, ExactSizeIterator::len);
        if taken > characters {
            line.push('…');
            break;
        }
        match escaped {
            Some(escaped) => line.extend(escaped),
            None => line.push(character),
        }
    }
    line.push('"');
    line
}

fn length(text: &str, least: usize, most: usize) -> bool {
    // In characters, as JSON Schema counts; bytes first, so that a huge string is not walked.
    text.len() <= most.saturating_mul(4) && (least..=most).contains(&text.chars().count())
}
fn word(text: &str, extra: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || extra.contains(c))
}
fn dotted_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    length(text, 3, 255) && text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

text!(/// A node's name in a graph.
    NodeName, "1 to 128 of letters, digits, `_`, `-` and `$`", |t| length(t, 1, 128) && word(t, "$-"));
text!(/// A package's or an interface's own name.
    PackageName, "1 to 128 of letters, digits, `_` and `-`", |t| length(t, 1, 128) && word(t, "-"));
text!(/// An asset's name.
    AssetName, "1 to 255 of letters, digits, `_`, `-` and `$`", |t| length(t, 1, 255) && word(t, "$-"));
text!(/// A port's name; a Python identifier, which is why it has no dash.
    PortName, "1 to 50 of letters, digits, `_` and `$`", |t| length(t, 1, 50) && word(t, "$"));
text!(/// `<major>.<minor>`.
    Version, "a version such as 1.0, of at most 255 characters", dotted_number);
text!(/// A package as a graph names it: `<owner>::<name>`.
PackageReference, "a package such as 123456789012::SAMPLE_CODE, of at most 255 characters", |t| {
    length(t, 4, 255) && t.split_once("::").is_some_and(|(owner, name)| word(owner, "$") && word(name, "-"))
});
text!(/// An interface as a node names it: `<owner>::<package>.<interface>`.
InterfaceReference, "string, int32, float32, boolean or an interface such as 123456789012::SAMPLE_CODE.interface", |t| {
    t.split_once("::").is_some_and(|(owner, rest)| {
        word(owner, "$-")
            && rest.split_once('.').is_some_and(|(package, interface)| word(package, "-") && word(interface, "-"))
    })
});
text!(/// One end of an edge: `<node>` of a parameter, or `<node>.<port>`.
EdgeEnd, "a parameter node or a port such as camera_node.video_out", |t| {
    // The schema's `^[a-zA-Z0-9_\-]+\.?[a-z_A-Z0-9\-]+$`: at least two characters, at most one dot, none at an end.
    t.len() >= 2 && !t.starts_with('.') && !t.ends_with('.') && t.matches('.').count() <= 1 && word(t, ".-")
});
text!(/// A description of up to 255 characters.
    Description, "a text of at most 255 characters", |t| length(t, 0, 255));
text!(/// A decorator's text.
    Caption, "a text of 1 to 255 characters", |t| length(t, 1, 255));
text!(/// The name of an asset's file.
    AssetUri, "a name of 1 to 255 characters", |t| length(t, 1, 255));
text!(/// A text that may not be empty.
    NonEmpty, "a text of at least one character", |t| !t.is_empty());
text!(/// A model framework's version.
FrameworkVersion, "a version of 3 to 10 characters such as 1.8", |t| {
    length(t, 3, 10)
        && t.split_once('.').is_some_and(|(major, rest)| {
            !major.is_empty()
                && major.bytes().all(|b| b.is_ascii_digit())
                && !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        })
});

impl InterfaceReference {
    /// The package part, `<owner>::<package>`.
    pub fn package(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(package, _)| package)
    }
    /// The interface part.
    pub fn interface(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, interface)| interface)
    }
}

impl PackageReference {
    /// Whose it is.
    pub fn owner(&self) -> &str {
        self.0.split_once("::").map_or("", |(owner, _)| owner)
    }
    /// The package's own name.
    pub fn name(&self) -> &str {
        self.0.split_once("::").map_or("", |(_, name)| name)
    }
}

impl EdgeEnd {
    /// Node and, unless it is a parameter, port.
    pub fn parts(&self) -> (&str, Option<&str>) {
        match self.0.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (&self.0, None),
        }
    }
}

/// For `#[serde(default, deserialize_with = "present")]`: an absent member is `None`, and `null` is an error, as the
/// schema has it (serde alone takes `null` for absent).
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A whole number. JSON Schema calls 3.0 one too.
pub(crate) fn whole(number: &serde_json::Number) -> Option<i64> {
    let of_float = |value: f64| (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(of_float))
}

fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<serde_json::Number, D::Error> {
    serde_json::Number::deserialize(deserializer)
}

/// For `deserialize_with`: a network port.
pub(crate) fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<core::num::NonZeroU16, D::Error> {
    let number = number(deserializer)?;
    let port = whole(&number).and_then(|value| u16::try_from(value).ok()).and_then(core::num::NonZeroU16::new);
    port.ok_or_else(|| serde::de::Error::custom(format!("is {number}, and must be a port from 1 to 65535")))
}

/// For `deserialize_with`: a number of things.
pub(crate) fn count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = number(deserializer)?;
    let count = whole(&number).and_then(|value| u32::try_from(value).ok());
    count.ok_or_else(|| serde::de::Error::custom(format!("is {number}, and must be a whole number from 0 to {}", u32::MAX)))
}

/// A whole number of a document.
#[derive(Deserialize)]
#[serde(try_from = "serde_json::Number")]
pub(crate) struct Whole(pub i64);

impl TryFrom<serde_json::Number> for Whole {
    type Error = String;
    fn try_from(number: serde_json::Number) -> Result<Whole, String> {
        whole(&number).map(Whole).ok_or_else(|| format!("is {number}, and must be a whole number"))
    }
}

/// For `#[serde(default, deserialize_with = "present_whole")]`, as [`present`].
pub(crate) fn present_whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Whole::deserialize(deserializer).map(|whole| Some(whole.0))
}

/// For `deserialize_with`: a list of whole numbers.
pub(crate) fn wholes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    Ok(Vec::<Whole>::deserialize(deserializer)?.into_iter().map(|whole| whole.0).collect())
}
