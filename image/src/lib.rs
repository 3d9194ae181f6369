//! From compiled programs, Debian packages and keys to a signed disk image.
//!
//! Each stage is a module; [`appliance`] puts them in order. A stage's result is kept in the cache under the hash of
//! everything that went into it ([`cache`]); the same inputs give the same bytes.

#![allow(clippy::disallowed_methods, reason = "a tool of the build: what it makes can be made again")]

pub mod appliance;
pub mod board;
pub mod boot_entries;
pub mod boot_partition;
pub mod boot_policy;
pub mod cache;
pub mod compression_hints;
pub mod debian;
pub mod device_tree;
pub mod disk;
pub mod error;
pub mod firmware_variables;
pub mod firmware_variables_check;
pub mod initramfs;
pub mod kernel;
pub mod key_updates;
pub mod manifest;
pub mod measured;
pub mod program;
pub mod programs;
pub mod progress;
pub mod python;
pub mod root_image;
pub mod root_tree;
pub mod root_tree_check;
pub mod secure_boot_measurement;
pub mod signing;
pub mod unified_kernel;
pub mod verity;
