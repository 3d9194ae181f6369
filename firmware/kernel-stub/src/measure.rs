//! Measures the image's sections, and hands the operating system the signed policy.

use belvedere_boot_slots::{EXPECTED_VARIABLE, POLICY_VARIABLE, VENDOR_GUID};
use belvedere_firmware_console::say;
use belvedere_kernel_stub::{EXPECTED, Image, POLICY, measured};
use uefi::boot;
use uefi::proto::tcg::v2::{HashLogExtendEventFlags, PcrEventInputs, Tcg};
use uefi::proto::tcg::{EventType, PcrIndex};
use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CString16, Guid, Status};

/// Measures every section. What is sealed to a release stays closed when this fails, so a failure is said and is no reason
/// not to start: the storage program says what that means.
pub fn sections(image: &Image<'_>) {
    let Ok(handle) = boot::get_handle_for_protocol::<Tcg>() else {
        return say(format_args!("belvedere: kernel stub: there is no TPM; nothing is measured"));
    };
    let mut tpm = match boot::open_protocol_exclusive::<Tcg>(handle) {
        Ok(tpm) => tpm,
        Err(error) => return said(error.status()),
    };
    for event in measured::events(|name| image.loaded_section(name)) {
        let done = PcrEventInputs::new_in_box(PcrIndex(measured::PCR), EventType::IPL, event.as_bytes())
            .and_then(|inputs| tpm.hash_log_extend_event(HashLogExtendEventFlags::empty(), event.as_bytes(), &inputs));
        if let Err(error) = done {
            return said(error.status());
        }
    }
}

fn said(status: Status) {
    say(format_args!("belvedere: kernel stub: the sections cannot be measured: {status}"));
}

/// Gives the operating system two sections as volatile variables: signatures over what the TPM's registers must hold, and the
/// events that lead there. They need no protection of their own.
pub fn hand_over(image: &Image<'_>) {
    set(image, POLICY, POLICY_VARIABLE);
    set(image, EXPECTED, EXPECTED_VARIABLE);
}

fn set(image: &Image<'_>, section: &str, variable: &str) {
    let Some(content) = image.loaded_section(section) else { return };
    let (Ok(name), Ok(guid)) = (CString16::try_from(variable), Guid::try_parse(VENDOR_GUID)) else { return };
    let vendor = VariableVendor(guid);
    // A left-over with other attributes would make the firmware refuse ours.
    let _ = runtime::delete_variable(&name, &vendor);
    let attributes = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    if let Err(error) = runtime::set_variable(&name, &vendor, attributes, content) {
        say(format_args!("belvedere: kernel stub: cannot set {variable}: {}", error.status()));
    }
}
