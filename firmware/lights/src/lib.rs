//! The front panel: two lights that tell people how the appliance is.
//!
//! Services state facts over `org.belvedere.FrontPanel`; [`pattern`] (`formats/panel`) decides what the lights show; [`Leds`] makes the
//! kernel's LED class show it, so that the lights go on blinking even when this process is dead. A board without
//! lights works: everything is answered, nothing shown.
//!
//! Buttons are the kernel's (`gpio-keys`); `init` listens to them.

mod facts;
mod leds;

pub use belvedere_panel::{Colour, Light, Lights, Rhythm, pattern};
pub use facts::{Facts, MAXIMUM_SOURCES, source_is_the_callers};
pub use leds::{Led, LedClass, Leds, SysfsLeds};
