//! The whole appliance in QEMU, tried as a person would try hardware. One program, so that what takes long (a first start, a
//! release that is built) is done once for all tests; a group is `--test appliance slots::`. Two tests at a time are well on
//! two processors.

#![allow(clippy::disallowed_methods, reason = "files of tests")]

mod altered_bytes;
mod bad_releases;
mod boot;
mod common;
mod hands;
mod old_releases;
mod power_cuts;
mod revocation;
mod sealed;
mod secure_boot;
mod secure_world;
mod slots;
