//! A TPM that was cleared in the firmware's setup, and the disk whose volumes it opened.

use belvedere_durable::BlockDevice;
use belvedere_durable::block_model::ModelDevice;
use belvedere_luks2::record::{VolumeState, initial};
use belvedere_luks2::{DATA_OFFSET, Passphrase, RECORD_OFFSETS};
use belvedere_software_tpm::{Machine, PolicySigner, SoftwareTpm, with_password};
use belvedere_storage::StorageError;
use belvedere_storage::encrypt::{Prepared, Request, Surroundings, prepare, recreate};
use belvedere_storage::secrets::{Secrets, ensure, kernel_random};
use belvedere_storage::volume::{Geometry, Purpose};

const PLATFORM: u32 = 0x4000_000c;
const SMALL: Geometry = Geometry { shift: 16 * 1024, chunk: 16 * 1024, blank: 12 * 1024 };
const IMAGE: usize = 40 * 1024;

type Work = fn(&mut ModelDevice, &Request<'_>, &mut Surroundings<'_>) -> Result<Prepared, StorageError>;

fn run(work: Work, device: &mut ModelDevice, name: &str, secrets: &Secrets) -> Result<Prepared, StorageError> {
    let purpose = if name == "data" { Purpose::Data } else { Purpose::System };
    let passphrase = Passphrase::new(secrets.volume_passphrase(name).to_vec());
    let mut surroundings = Surroundings { random: &mut kernel_random, report: &mut |_| (), now: &std::time::Instant::now };
    work(device, &Request { purpose, label: name, passphrase: &passphrase, geometry: SMALL }, &mut surroundings)
}

/// A system partition as the image tool writes it.
fn written() -> ModelDevice {
    let start = DATA_OFFSET as usize + SMALL.shift as usize;
    let mut disk = vec![0; start + IMAGE];
    disk[start..].fill(0x5a);
    for (offset, block) in RECORD_OFFSETS.into_iter().zip(initial(VolumeState::Factory { bytes: IMAGE as u64 })) {
        disk[offset as usize..offset as usize + block.len()].copy_from_slice(&block);
    }
    ModelDevice::new(disk)
}

#[test]
fn after_the_tpm_was_cleared_the_disk_image_is_written_anew_and_until_then_nothing_is_destroyed() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let mut tpm = SoftwareTpm::new();
    let start = |tpm: &mut SoftwareTpm| {
        tpm.power_cycle();
        tpm.start_release(&machine);
        let policy = signer.policy([signer.entry(&machine, 1)]);
        ensure(tpm, &policy, &signer.key(), &mut kernel_random, &mut |_| {}).unwrap()
    };
    let secrets = start(&mut tpm);
    let (mut system, mut data) = (written(), ModelDevice::new(vec![0; DATA_OFFSET as usize + 64 * 1024]));
    run(prepare, &mut system, "system-a", &secrets).unwrap();
    run(prepare, &mut data, "data", &secrets).unwrap();
    run(prepare, &mut system, "system-a", &start(&mut tpm)).unwrap();

    // The firmware's setup.
    assert_eq!(tpm.raw(&with_password(0x127, PLATFORM, &[], &[0])), 0);
    assert_eq!(tpm.clear(PLATFORM, &[]), 0);
    let secrets = start(&mut tpm);
    for (device, name, advice) in
        [(&mut system, "system-a", "write the disk image anew"), (&mut data, "data", "a full reset makes the volume anew")]
    {
        let before = device.medium().to_vec();
        let error = run(prepare, device, name, &secrets).unwrap_err().to_string();
        assert!(error.contains("if the TPM was cleared") && error.contains(advice), "{error}");
        assert!(device.medium() == before, "{name} was written to");
        assert!(device.size() > 0);
    }
    // What is advised helps, and the other does not.
    run(recreate, &mut data, "data", &secrets).unwrap();
    let error = run(prepare, &mut system, "system-a", &start(&mut tpm)).unwrap_err().to_string();
    assert!(error.ends_with("write the disk image anew; a full reset does not help"), "{error}");
    let mut system = written();
    run(prepare, &mut system, "system-a", &secrets).unwrap();
    run(prepare, &mut system, "system-a", &start(&mut tpm)).unwrap();
    run(prepare, &mut data, "data", &secrets).unwrap();
}
