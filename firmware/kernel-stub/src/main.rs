//! `belvedere-kernel-stub`: on UEFI the stub itself; on a development machine the tool that fills it.
#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod kernel;
#[cfg(target_os = "uefi")]
mod measure;
#[cfg(target_os = "uefi")]
mod start;

#[cfg(target_os = "uefi")]
#[uefi::entry]
fn main() -> uefi::Status {
    start::run()
}

#[cfg(target_os = "uefi")]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    belvedere_firmware_console::panicked(information)
}

#[cfg(not(target_os = "uefi"))]
mod tool;

#[cfg(not(target_os = "uefi"))]
fn main() -> std::process::ExitCode {
    tool::main()
}
