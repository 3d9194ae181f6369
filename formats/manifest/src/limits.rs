//! How much is accepted from outside.

/// Characters of a graph or an overrides document (the API's `ManifestPayloadData`).
pub const MANIFEST_CHARACTERS: usize = 51_200;
/// Characters of a package or an asset descriptor.
pub const PACKAGE_CHARACTERS: usize = 262_144;
/// Camera streams that one application watches at a time; paused ones (`onSignal`) do not count.
pub const ACTIVE_CAMERAS: usize = 8;
/// Camera streams of one application, paused ones included.
pub const CAMERAS: usize = 80;
/// Ports of the appliance that applications may listen on.
pub const HOST_PORTS: core::ops::RangeInclusive<u16> = 8000..=9000;
/// Inbound ports of one interface.
pub const INBOUND_PORTS: usize = 10;
/// Ports of all nodes of one application together. A package may be used by many nodes: this bounds their product.
pub const PORTS: usize = 4096;
