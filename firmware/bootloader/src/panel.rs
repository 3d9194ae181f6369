//! The front panel while the firmware runs: its buttons when the power comes on, and the status light, which a firmware
//! timer drives, so that it blinks also while an image loads.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use core::time::Duration;

use belvedere_boot_slots::Buttons;
use belvedere_bootloader::{pl061, virtual_buttons};
use belvedere_device_tree::root_is_compatible;
use belvedere_panel::{Condition, PRIORITY};
use uefi::Event;
use uefi::boot::{self, EventType, TimerTrigger, Tpl};

static CONDITION: AtomicU8 = AtomicU8::new(0);
static TICK: AtomicU32 = AtomicU32::new(0);

/// A board's front panel.
pub trait Panel {
    /// What the buttons ask for; to be called once, when the power came on.
    fn buttons(&mut self) -> Buttons;
    /// Shows `condition` from now on, until the operating system takes over.
    fn show(&mut self, condition: Condition);
}

/// A board without a light or buttons that we know.
pub struct NoPanel;

impl Panel for NoPanel {
    fn buttons(&mut self) -> Buttons {
        Buttons::None
    }

    fn show(&mut self, _: Condition) {}
}

/// The virtual board's.
pub struct Pl061 {
    blinking: bool,
}

impl Panel for Pl061 {
    fn buttons(&mut self) -> Buttons {
        virtual_buttons::buttons(&mut VirtualPorts)
    }

    fn show(&mut self, condition: Condition) {
        CONDITION.store(condition as u8, Ordering::Relaxed);
        TICK.store(0, Ordering::Relaxed);
        draw();
        if !self.blinking {
            // SAFETY: the function stays loaded as long as boot services run; it touches atomics and the light only.
            let event =
                unsafe { boot::create_event(EventType::TIMER | EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, Some(tick), None) };
            // Without a timer the light is steady: no reason not to start.
            self.blinking = event.is_ok_and(|event| {
                let period = Duration::from_millis(pl061::TICK);
                boot::set_timer(&event, TimerTrigger::Periodic(period)).is_ok()
            });
            // SAFETY: as above; it is called once, by the call that ends the boot services.
            let _ = unsafe { boot::create_event(EventType::SIGNAL_EXIT_BOOT_SERVICES, Tpl::CALLBACK, Some(dark), None) };
        }
    }
}

/// Where QEMU's `virt` machine has its `fw_cfg` device: data, then the selector, which is big-endian.
const FW_CFG: usize = 0x0902_0000;
const FW_CFG_SELECTOR: usize = FW_CFG + 8;
/// The match register of its clock, a PL031.
const CLOCK_MATCH: usize = 0x0901_0004;

struct VirtualPorts;

impl virtual_buttons::Ports for VirtualPorts {
    fn select(&mut self, key: u16) {
        // SAFETY: as in `draw`. The firmware chooses an item anew before it reads one, and nothing of it runs meanwhile.
        unsafe { (FW_CFG_SELECTOR as *mut u16).write_volatile(key.to_be()) }
    }

    fn next(&mut self) -> u8 {
        // SAFETY: as in `draw`; reading moves the device on by one byte and changes nothing else.
        unsafe { (FW_CFG as *const u8).read_volatile() }
    }

    fn mark(&mut self) -> u32 {
        // SAFETY: as in `draw`; reading changes nothing.
        unsafe { (CLOCK_MATCH as *const u32).read_volatile() }
    }

    fn set_mark(&mut self, mark: u32) {
        // SAFETY: as in `draw`. The clock goes on as it was; only its alarm is another, which nobody uses.
        unsafe { (CLOCK_MATCH as *mut u32).write_volatile(mark) }
    }
}

/// From here until the kernel has its lights nobody makes them blink. What stayed lit would say "operating".
unsafe extern "efiapi" fn dark(_: Event, _: Option<NonNull<c_void>>) {
    write(0);
}

unsafe extern "efiapi" fn tick(_: Event, _: Option<NonNull<c_void>>) {
    TICK.fetch_add(1, Ordering::Relaxed);
    draw();
}

fn draw() {
    let number = CONDITION.load(Ordering::Relaxed);
    let condition = PRIORITY.into_iter().find(|condition| *condition as u8 == number).unwrap_or(Condition::Booting);
    write(pl061::lines(condition.light(), TICK.load(Ordering::Relaxed)));
}

fn write(lines: u8) {
    // SAFETY: a `Pl061` is made only where the device tree says that this is QEMU's `virt` machine, whose firmware
    // maps its devices one to one. The masked data register changes the status light's lines and no others, and the
    // direction register keeps the other lines' bits.
    unsafe {
        let direction = (pl061::BASE + pl061::DIRECTION) as *mut u32;
        direction.write_volatile(direction.read_volatile() | u32::from(pl061::STATUS));
        let data = (pl061::BASE + pl061::STATUS_DATA) as *mut u32;
        data.write_volatile(u32::from(lines));
    }
}

/// The panel of the board that this runs on.
pub fn find() -> alloc::boxed::Box<dyn Panel> {
    let virtual_board = crate::tree::with(|tree| root_is_compatible(tree, "linux,dummy-virt"));
    if virtual_board { alloc::boxed::Box::new(Pl061 { blinking: false }) } else { alloc::boxed::Box::new(NoPanel) }
}
