//! Digests computed without a TPM are those of one, and signed policies open what they should and nothing else.

use belvedere_software_tpm::{Machine, NO_PASSWORD, PolicySigner, SoftwareTpm, refusal};
use belvedere_tpm::approval::{Approval, FusesState};
use belvedere_tpm::boot_policy::Entry;
use belvedere_tpm::layout::{self, Purpose, level_bits};
use belvedere_tpm::policy::{self, Comparison, START, pcr_digest};
use belvedere_tpm::{Authorization, PolicySession, ResponseCode, TpmError, commands};

const SECRET: [u8; 32] = [0x5a; 32];

/// A TPM with fuses at a level and a written secret, of this signer.
fn owned(signer: &PolicySigner, entry: &Entry, machine: &Machine, level: u32) -> SoftwareTpm {
    let mut tpm = SoftwareTpm::new();
    tpm.start_release(machine);
    let name = signer.key().name();
    commands::nv_define(&mut tpm, NO_PASSWORD, &layout::fuses(&name)).unwrap();
    commands::nv_define(&mut tpm, NO_PASSWORD, &layout::system_secret(&name)).unwrap();
    let approval = Approval::verify(&mut tpm, &signer.key(), entry, Purpose::Fuses).unwrap();
    let set = |tpm: &mut SoftwareTpm, session, bits| {
        commands::nv_set_bits(tpm, Authorization::Policy(session), layout::FUSES, bits)
    };
    approval.with_session(&mut tpm, FusesState::NeverWritten, |tpm, session| set(tpm, session, 0)).unwrap();
    if level > 0 {
        approval.with_session(&mut tpm, FusesState::Written, |tpm, session| set(tpm, session, level_bits(level))).unwrap();
    }
    let approval = Approval::verify(&mut tpm, &signer.key(), entry, Purpose::Storage).unwrap();
    write(&mut tpm, &approval).unwrap();
    tpm
}

fn write(tpm: &mut SoftwareTpm, approval: &Approval) -> Result<(), TpmError> {
    approval.with_session(tpm, FusesState::Written, |tpm, session| {
        commands::nv_write(tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, &SECRET)
    })
}

fn read(tpm: &mut SoftwareTpm, approval: &Approval) -> Result<Vec<u8>, TpmError> {
    approval.with_session(tpm, FusesState::Written, |tpm, session| {
        commands::nv_read(tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32).map(|bytes| bytes.to_vec())
    })
}

fn open(tpm: &mut SoftwareTpm, signer: &PolicySigner, entry: &Entry) -> Result<Vec<u8>, TpmError> {
    let approval = Approval::verify(tpm, &signer.key(), entry, Purpose::Storage)?;
    read(tpm, &approval)
}

#[test]
fn each_step_has_the_digest_that_the_tpm_computes() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let mut tpm = owned(&signer, &signer.entry(&machine, 3), &machine, 1);
    let [pcr7, pcr11] = commands::pcr_read(&mut tpm, [7, 11]).unwrap();
    assert_eq!((pcr7, pcr11), (machine.pcr7(), machine.pcr11()));

    let name = signer.key().name();
    let loaded = commands::load_policy_key(&mut tpm, &signer.key()).unwrap();
    assert_eq!(commands::read_public(&mut tpm, loaded.0).unwrap(), (signer.key().public_area(), name.to_vec()));
    let public = commands::nv_read_public(&mut tpm, layout::FUSES).unwrap().unwrap();
    assert_eq!(public, layout::fuses(&name).as_written());
    let fuses_name = layout::fuses_name(&name);

    let session = commands::start_policy_session(&mut tpm).unwrap();
    let digest = |tpm: &mut SoftwareTpm| commands::policy_get_digest(tpm, session).unwrap();
    assert_eq!(digest(&mut tpm), START);
    let values = layout::release_pcrs(&pcr7, &pcr11);
    commands::policy_pcr(&mut tpm, session, &[7, 11], &pcr_digest(&values)).unwrap();
    let pcrs = policy::policy_pcr(&START, &values);
    assert_eq!(digest(&mut tpm), pcrs);
    assert_eq!(policy::policy_pcr(&START, &[values[1], values[0]]), pcrs, "the order given does not count");

    let operand = level_bits(3).to_be_bytes();
    commands::policy_nv(&mut tpm, session, layout::FUSES, &operand, Comparison::AtMost).unwrap();
    let nv = policy::policy_nv(&pcrs, &fuses_name, &operand, Comparison::AtMost);
    assert_eq!(digest(&mut tpm), nv);
    assert_eq!(nv, layout::approved_policy(&pcr7, &pcr11, 3, &fuses_name));

    let branches = layout::fuses_branches(&pcr7, &pcr11, 3, &fuses_name);
    commands::policy_or(&mut tpm, session, &branches).unwrap();
    let either = layout::approved_fuses_policy(&pcr7, &pcr11, 3, &fuses_name);
    assert_eq!(digest(&mut tpm), either);

    commands::policy_nv_written(&mut tpm, session, true).unwrap();
    let written = policy::policy_nv_written(&either, true);
    assert_eq!(digest(&mut tpm), written);
    commands::policy_command_code(&mut tpm, session, commands::NV_READ).unwrap();
    let code = policy::policy_command_code(&written, commands::NV_READ);
    assert_eq!(digest(&mut tpm), code);

    let signature = signer.sign(&code, b"a text");
    let message = policy::sha256(&[&policy::to_be_signed(&code, b"a text")]);
    let ticket = commands::verify_signature(&mut tpm, loaded, &message, &signature).unwrap();
    commands::policy_authorize(&mut tpm, session, &code, b"a text", &name, &ticket).unwrap();
    assert_eq!(digest(&mut tpm), policy::policy_authorize(&name, b"a text"));

    // Equal, as the index's value is 1; the operand is written as long as it is compared.
    let session = commands::start_policy_session(&mut tpm).unwrap();
    commands::policy_nv(&mut tpm, session, layout::FUSES, &1u64.to_be_bytes(), Comparison::Equal).unwrap();
    let equal = policy::policy_nv(&START, &fuses_name, &1u64.to_be_bytes(), Comparison::Equal);
    assert_eq!(commands::policy_get_digest(&mut tpm, session).unwrap(), equal);
    // Written or never written are two digests.
    let session = commands::start_policy_session(&mut tpm).unwrap();
    commands::policy_nv_written(&mut tpm, session, false).unwrap();
    assert_eq!(commands::policy_get_digest(&mut tpm, session).unwrap(), policy::policy_nv_written(&START, false));
}

#[test]
fn the_signed_release_opens_and_so_does_a_later_one() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release 1"));
    let entry = signer.entry(&machine, 1);
    let mut tpm = owned(&signer, &entry, &machine, 1);
    assert_eq!(open(&mut tpm, &signer, &entry).unwrap(), SECRET);
    let later = Machine::new("keys", "release 2");
    tpm.power_cycle();
    tpm.start_release(&later);
    assert_eq!(open(&mut tpm, &signer, &signer.entry(&later, 2)).unwrap(), SECRET);
}

#[test]
fn other_measurements_open_nothing() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let entry = signer.entry(&machine, 1);
    let mut tpm = owned(&signer, &entry, &machine, 0);
    for other in
        [Machine::new("other keys", "release"), Machine::new("keys", "other release"), Machine::new("release", "keys")]
    {
        tpm.power_cycle();
        tpm.start_release(&other);
        assert_eq!(refusal(open(&mut tpm, &signer, &entry)), ResponseCode::VALUE);
        // Nor when the session is told to take the PCRs as they are: then it is not what was signed.
        let name = signer.key().name();
        let approved = layout::approved_policy(&entry.pcr7, &entry.pcr11, 1, &layout::fuses_name(&name));
        let loaded = commands::load_policy_key(&mut tpm, &signer.key()).unwrap();
        let message = policy::sha256(&[&policy::to_be_signed(&approved, Purpose::Storage.policy_ref())]);
        let ticket = commands::verify_signature(&mut tpm, loaded, &message, &entry.storage).unwrap();
        let session = commands::start_policy_session(&mut tpm).unwrap();
        let now = pcr_digest(&layout::release_pcrs(&other.pcr7(), &other.pcr11()));
        commands::policy_pcr(&mut tpm, session, &[7, 11], &now).unwrap();
        commands::policy_nv(&mut tpm, session, layout::FUSES, &level_bits(1).to_be_bytes(), Comparison::AtMost).unwrap();
        let policy_ref = Purpose::Storage.policy_ref();
        let authorized = commands::policy_authorize(&mut tpm, session, &approved, policy_ref, &name, &ticket);
        assert_eq!(refusal(authorized), ResponseCode::VALUE);
        let read = commands::nv_read(&mut tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32);
        assert_eq!(refusal(read), ResponseCode::POLICY_FAIL);
    }
}

#[test]
fn fuses_above_the_release_open_nothing() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let mut tpm = owned(&signer, &signer.entry(&machine, 3), &machine, 3);
    assert_eq!(open(&mut tpm, &signer, &signer.entry(&machine, 3)).unwrap(), SECRET);
    assert_eq!(open(&mut tpm, &signer, &signer.entry(&machine, 64)).unwrap(), SECRET);
    for level in [0, 1, 2] {
        let result = open(&mut tpm, &signer, &signer.entry(&machine, level));
        assert!(matches!(&result, Err(TpmError::Refused { command: "PolicyNV", .. })), "{result:?}");
        assert_eq!(refusal(result), ResponseCode::POLICY);
    }
}

#[test]
fn a_signature_of_another_key_or_for_another_purpose_opens_nothing() {
    let (signer, other, machine) = (PolicySigner::new(), PolicySigner::new(), Machine::new("keys", "release"));
    let entry = signer.entry(&machine, 1);
    let mut tpm = owned(&signer, &entry, &machine, 0);
    // Our key, signature of another.
    let forged = Entry { storage: other.entry(&machine, 1).storage, ..entry };
    assert_eq!(refusal(open(&mut tpm, &signer, &forged)), ResponseCode::SIGNATURE);
    // The signature for the fuses.
    let swapped = Entry { storage: entry.fuses, ..entry };
    assert_eq!(refusal(open(&mut tpm, &signer, &swapped)), ResponseCode::SIGNATURE);
    // The right policy, signed by our key for another text.
    let name = signer.key().name();
    let approved = layout::approved_policy(&entry.pcr7, &entry.pcr11, 1, &layout::fuses_name(&name));
    let swapped = Entry { storage: signer.sign(&approved, Purpose::Fuses.policy_ref()), ..entry };
    assert_eq!(refusal(open(&mut tpm, &signer, &swapped)), ResponseCode::SIGNATURE);
    // Another key that signs everything rightly. Its policy names fuses that are not these.
    let result = open(&mut tpm, &other, &other.entry(&machine, 1));
    assert!(matches!(&result, Err(TpmError::Refused { command: "PolicyAuthorize", .. })), "{result:?}");
    // A policy of the other key over the fuses that are there: authorized, and of no use here.
    let fuses = layout::fuses_name(&name);
    let approved = layout::approved_policy(&entry.pcr7, &entry.pcr11, 1, &fuses);
    let session = authorized(&mut tpm, &other, &entry, &approved, Purpose::Storage.policy_ref());
    let read = commands::nv_read(&mut tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32);
    assert_eq!(refusal(read), ResponseCode::POLICY_FAIL);
    // A policy of our key for the fuses' text: authorized, and of no use for secrets.
    let session = authorized(&mut tpm, &signer, &entry, &approved, Purpose::Fuses.policy_ref());
    let read = commands::nv_read(&mut tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32);
    assert_eq!(refusal(read), ResponseCode::POLICY_FAIL);
    // The same way with the right key and text opens: it is the key and the text that made the difference.
    let session = authorized(&mut tpm, &signer, &entry, &approved, Purpose::Storage.policy_ref());
    let read = commands::nv_read(&mut tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32).unwrap();
    assert_eq!(read.as_slice(), SECRET);
}

/// A session that fulfils `approved`, signed by a signer for a text.
fn authorized(
    tpm: &mut SoftwareTpm,
    signer: &PolicySigner,
    entry: &Entry,
    approved: &[u8; 32],
    policy_ref: &[u8],
) -> PolicySession {
    let loaded = commands::load_policy_key(tpm, &signer.key()).unwrap();
    let message = policy::sha256(&[&policy::to_be_signed(approved, policy_ref)]);
    let ticket = commands::verify_signature(tpm, loaded, &message, &signer.sign(approved, policy_ref)).unwrap();
    commands::flush(tpm, loaded.0).unwrap();
    let session = commands::start_policy_session(tpm).unwrap();
    let values = pcr_digest(&layout::release_pcrs(&entry.pcr7, &entry.pcr11));
    commands::policy_pcr(tpm, session, &[7, 11], &values).unwrap();
    let operand = level_bits(entry.level).to_be_bytes();
    commands::policy_nv(tpm, session, layout::FUSES, &operand, Comparison::AtMost).unwrap();
    commands::policy_authorize(tpm, session, approved, policy_ref, &signer.key().name(), &ticket).unwrap();
    session
}

#[test]
fn without_a_policy_a_secret_can_neither_be_read_nor_written() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let mut tpm = owned(&signer, &signer.entry(&machine, 1), &machine, 0);
    let read = commands::nv_read(&mut tpm, NO_PASSWORD, layout::SYSTEM_SECRET, 32);
    assert_eq!(refusal(read), ResponseCode::AUTH_UNAVAILABLE);
    let written = commands::nv_write(&mut tpm, NO_PASSWORD, layout::SYSTEM_SECRET, &[0; 32]);
    assert_eq!(refusal(written), ResponseCode::AUTH_UNAVAILABLE);
    let session = commands::start_policy_session(&mut tpm).unwrap();
    let read = commands::nv_read(&mut tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32);
    assert_eq!(refusal(read), ResponseCode::POLICY_FAIL);
}

#[test]
fn nothing_stays_loaded_whatever_is_refused() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let entry = signer.entry(&machine, 1);
    let mut tpm = owned(&signer, &entry, &machine, 1);
    let forged = Entry { storage: entry.fuses, ..entry };
    // swtpm has room for three objects and three sessions.
    for _ in 0..8 {
        assert_eq!(refusal(open(&mut tpm, &signer, &forged)), ResponseCode::SIGNATURE);
        assert_eq!(refusal(open(&mut tpm, &signer, &signer.entry(&machine, 0))), ResponseCode::POLICY);
        assert_eq!(open(&mut tpm, &signer, &entry).unwrap(), SECRET);
    }
}

#[test]
fn somebody_who_measures_meanwhile_does_not_get_in_the_way_for_long() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let entry = signer.entry(&machine, 1);
    let mut tpm = owned(&signer, &entry, &machine, 1);
    let approval = Approval::verify(&mut tpm, &signer.key(), &entry, Purpose::Storage).unwrap();
    let mut run = |times: u32| {
        let mut measured = 0;
        approval.with_session(&mut tpm, FusesState::Written, |tpm, session| {
            if measured < times {
                measured += 1;
                commands::pcr_extend(tpm, 10, &[measured as u8; 32])?;
            }
            commands::nv_read(tpm, Authorization::Policy(session), layout::SYSTEM_SECRET, 32).map(|bytes| bytes.to_vec())
        })
    };
    assert_eq!(run(1).unwrap(), SECRET);
    assert_eq!(run(3).unwrap(), SECRET);
    assert_eq!(refusal(run(100)), ResponseCode::PCR_CHANGED);
    assert_eq!(run(0).unwrap(), SECRET);
}
