//! What comes with an object and goes back with it, as it came.

use crate::StoreError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Headers and user metadata of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Headers of HTTP by their names in lower case, but `content-type`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What follows `x-amz-meta-`, in lower case, and its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

impl Metadata {
    /// As a row holds it.
    pub(crate) fn stored(&self) -> String {
        if *self == Metadata::default() { String::new() } else { crate::error::text(self) }
    }

    pub(crate) fn of(stored: &str) -> Result<Metadata, StoreError> {
        if stored.is_empty() { Ok(Metadata::default()) } else { crate::error::stored("an object's metadata", stored) }
    }
}

/// The sizes of an object's parts as a row holds them: equal ones that follow each other are counted.
pub(crate) fn stored_sizes(sizes: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for size in sizes {
        match runs.last_mut() {
            Some((last, count)) if last == size => *count += 1,
            _ => runs.push((*size, 1)),
        }
    }
    let text = |(size, count): &(u64, u64)| if *count == 1 { size.to_string() } else { format!("{size}x{count}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The other way; nothing if it is not understood, or is longer than an upload can be.
pub(crate) fn sizes(stored: &str) -> Vec<u64> {
    let mut sizes = Vec::new();
    for run in stored.split(',').filter(|r| !r.is_empty()) {
        let (size, count) = run.split_once('x').unwrap_or((run, "1"));
        let (Ok(size), Ok(count)) = (size.parse::<u64>(), count.parse::<usize>()) else { return Vec::new() };
        if sizes.len() + count > 10_000 {
            return Vec::new();
        }
        sizes.extend(std::iter::repeat_n(size, count));
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_parts_come_back() {
        for list in [&[][..], &[5], &[5, 5, 5, 2], &[1, 2, 2, 1], &[8 << 20; 10_000]] {
            assert_eq!(sizes(&stored_sizes(list)), list);
        }
        assert_eq!(stored_sizes(&[5, 5, 5, 2]), "5x3,2");
        for bad in ["x", "5x", "5x10001", "a,b", "5x99999999999999999999"] {
            assert!(sizes(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn metadata_comes_back_and_none_is_nothing() {
        assert_eq!(Metadata::default().stored(), "");
        let mut metadata = Metadata::default();
        metadata.user.insert("camera".into(), "front door".into());
        metadata.headers.insert("cache-control".into(), "no-cache".into());
        assert_eq!(Metadata::of(&metadata.stored()).unwrap(), metadata);
        assert_eq!(Metadata::of("").unwrap(), Metadata::default());
        assert!(Metadata::of("[").is_err());
    }
}
