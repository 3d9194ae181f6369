//! Times on the wire: seconds since 1970 with milliseconds as a fraction.

use serde::{Serialize, Serializer};

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub i64);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn milliseconds_become_a_fraction() {
        assert_eq!(serde_json::to_string(&super::Timestamp(1_652_409_973_613)).unwrap(), "1652409973.613");
    }
}
