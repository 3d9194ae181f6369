//! The document with a release's signed policies, as it comes from an image or a UEFI variable.
#![no_main]

use belvedere_tpm::boot_policy::{BootPolicy, LIMIT};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(policy) = BootPolicy::decode(data) {
        assert_eq!(policy.encode().as_deref(), Ok(data), "what was read is written the same way");
        assert!(data.len() <= LIMIT);
    }
    match BootPolicy::decode_section(data) {
        Ok(policy) => {
            let bytes = policy.encode().expect("what was read can be written");
            assert!(data.starts_with(&bytes) && data[bytes.len()..].iter().all(|byte| *byte == 0));
            for entry in &policy.entries {
                assert_eq!(policy.entry(&entry.pcr7, &entry.pcr11), Some(entry), "an entry is not found");
            }
        }
        Err(_) => assert!(BootPolicy::decode(data).is_err()),
    }
});
