//! From the kernel to a supervised system: `/init` of the initial RAM file system and PID 1 of the root image.
//!
//! Decisions are in [`command_line`], [`table`] and [`supervision`], which touch nothing. [`early`] is the first
//! stage, [`root`] its way to the root image, [`slots`] what `init` has to do with the slot table, [`reset`] with resets,
//! [`machine`] prepares the second, [`supervisor`] is its loop, [`launcher`] is what a service's process does
//! to itself before it becomes the service.

pub mod buttons;
pub mod command_line;
pub mod console;
pub mod device_filter;
pub mod devices;
pub mod early;
pub mod failing;
pub mod kmsg;
pub mod last_words;
pub mod launcher;
pub mod logs;
pub mod machine;
pub mod output;
pub mod panel;
pub mod power;
pub mod reset;
pub mod restart;
pub mod root;
pub mod signs;
pub mod slots;
pub mod spool;
pub mod supervision;
pub mod supervisor;
pub mod table;
pub mod view;
pub mod volumes;
pub mod watchdog;

/// Where this program is in the root image.
pub const PROGRAM: &str = "/usr/lib/belvedere/bin/belvedere-init";

/// An error of this crate: one line for the console. PID 1's only caller is a person who reads it.
pub type Result<T> = std::result::Result<T, String>;

/// Names operation and object of an error.
pub(crate) fn named<E: std::fmt::Display>(operation: &str, object: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    let text = format!("{operation} {object}");
    move |error| format!("{text}: {error}")
}
