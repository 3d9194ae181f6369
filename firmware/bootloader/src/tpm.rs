//! The TPM, as the firmware shows it (EFI_TCG2_PROTOCOL).

use alloc::format;
use alloc::string::String;

use belvedere_tpm::{MAXIMUM, Tpm};
use uefi::Status;
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::tcg::v2::Tcg;

/// Commands go through the firmware one by one.
pub struct FirmwareTpm(ScopedProtocol<Tcg>);

impl FirmwareTpm {
    /// The TPM of this machine, if it has one.
    ///
    /// # Errors
    /// In words, when it cannot be used.
    pub fn find() -> Result<Option<Self>, String> {
        let handle = match boot::get_handle_for_protocol::<Tcg>() {
            Ok(handle) => handle,
            Err(error) if error.status() == Status::NOT_FOUND => return Ok(None),
            Err(error) => return Err(format!("rollback fuses: the TPM cannot be found: {}", error.status())),
        };
        let protocol = boot::open_protocol_exclusive::<Tcg>(handle)
            .map_err(|error| format!("rollback fuses: the TPM cannot be used: {}", error.status()))?;
        Ok(Some(Self(protocol)))
    }
}

impl Tpm for FirmwareTpm {
    type Error = String;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, String> {
        response.fill(0);
        self.0.submit_command(command, response).map_err(|error| format!("{}", error.status()))?;
        // The answer begins with a tag of two bytes and its whole length.
        let length = u32::from_be_bytes([response[2], response[3], response[4], response[5]]);
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAXIMUM)
            .ok_or_else(|| String::from("its answer is too long"))
    }
}
