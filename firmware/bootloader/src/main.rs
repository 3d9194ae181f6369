//! `belvedere-bootloader`: the UEFI program that chooses and starts a slot.
#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod disk;
#[cfg(target_os = "uefi")]
mod machine;
#[cfg(target_os = "uefi")]
mod panel;
#[cfg(target_os = "uefi")]
mod pci;
#[cfg(target_os = "uefi")]
mod tpm;
#[cfg(target_os = "uefi")]
mod tree;

#[cfg(target_os = "uefi")]
#[uefi::entry]
fn main() -> uefi::Status {
    machine::run()
}

#[cfg(target_os = "uefi")]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    belvedere_firmware_console::panicked(information)
}

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("belvedere-bootloader is a UEFI program; build it with: scripts/cargo --uefi build -p belvedere-bootloader");
    std::process::exit(2);
}
