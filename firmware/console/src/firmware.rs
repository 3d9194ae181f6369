//! The UEFI side.

use core::fmt::{Arguments, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use uefi::runtime::ResetType;
use uefi::{Status, boot, runtime, table};

use crate::Letters;

/// How long a panic's line can be read before the machine restarts.
const READING_TIME: Duration = Duration::from_secs(5);

/// Says one line. Where there is no console, or it fails, nobody hears it.
pub fn say(line: Arguments<'_>) {
    let mut letters = Letters::new(show);
    // Never fails; what a value's own formatting refuses is left out.
    let _ = letters.write_fmt(line);
    letters.end_line();
}

fn show(piece: &[u16]) {
    let Some(system) = table::system_table_raw() else { return };
    // SAFETY: the firmware's table, which stays where it is while boot services run; the console is not null, and the
    // piece ends with a NUL, as the call wants it. A warning (a letter it does not have) and an error are the same to us.
    unsafe {
        let console = system.as_ref().stdout;
        if boot_services_run() && !console.is_null() {
            let _ = ((*console).output_string)(console, piece.as_ptr().cast());
        }
    }
}

fn boot_services_run() -> bool {
    // SAFETY: the firmware's table; whoever ends boot services sets this pointer to null.
    table::system_table_raw().is_some_and(|system| !unsafe { system.as_ref() }.boot_services.is_null())
}

/// The end of a panic: says where, waits a moment, restarts the machine.
pub fn panicked(information: &PanicInfo<'_>) -> ! {
    static ONCE: AtomicBool = AtomicBool::new(false);
    // A panic while this one is told must not tell itself.
    if !ONCE.swap(true, Ordering::Relaxed) {
        say(format_args!("belvedere: firmware program failed, starting again: {information}"));
        if boot_services_run() {
            boot::stall(READING_TIME);
        }
    }
    // SAFETY: the firmware's table, as above; its run-time services never go away.
    let can_reset = table::system_table_raw().is_some_and(|system| !unsafe { system.as_ref() }.runtime_services.is_null());
    if can_reset {
        runtime::reset(ResetType::COLD, Status::ABORTED, None);
    }
    // The firmware's watchdog restarts the machine.
    loop {
        core::hint::spin_loop();
    }
}
