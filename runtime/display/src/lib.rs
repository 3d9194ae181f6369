//! What the monitor shows: the pictures of the application that started last, side by side, with its boxes and labels.
//!
//! - [`compose`] and [`layout`]: pure; pictures and marks become pixels.
//! - [`stage`]: pure; who may show what, from the packets of `belvedere_interfaces::channel::display`. Everything that
//!   a client says is checked there.
//! - [`output`]: where the pixels go: [`drm_output`] (a monitor), or a picture file for tests.
//! - [`server`]: the loop that ties them together.

pub mod compose;
pub mod drm_output;
pub mod layout;
pub mod memory;
pub mod output;
pub mod server;
pub mod stage;

/// The colour of boxes, XRGB. Nothing else that the display draws has it, so whoever reads a captured picture finds the
/// boxes by it.
pub const BOX_COLOR: u32 = 0x0000_ff40;
/// How thick a box's lines are, in the monitor's pixels. They lie inside the rectangle that they mark.
pub const BOX_THICKNESS: u32 = 3;
/// The colour of a label's text, XRGB.
pub const LABEL_COLOR: u32 = 0x00ff_ffff;
/// The colour behind a label's text, XRGB.
pub const LABEL_BACKGROUND: u32 = 0x0018_2028;
/// The colour of what no picture covers, XRGB.
pub const BACKGROUND: u32 = 0x0010_141a;
