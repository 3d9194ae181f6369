//! The storage secrets: made once, whatever cuts the power; given to a signed release and to nobody else.

use belvedere_fuses::{Confirmation, prepare};
use belvedere_software_tpm::{Machine, NO_PASSWORD, PolicySigner, SoftwareTpm, refusal, with_password};
use belvedere_storage::secrets::{
    Closed, Refusal, Secrets, SecretsError, close_phase, ensure, kernel_random, renew_data_secret,
};
use belvedere_tpm::approval::{Approval, FusesState};
use belvedere_tpm::boot_policy::Entry;
use belvedere_tpm::commands::{self, Hierarchy};
use belvedere_tpm::layout::{self, DATA_SECRET, Difference, FUSES, Purpose, SYSTEM_SECRET};
use belvedere_tpm::{Authorization, NvPublic, ResponseCode, attributes};

struct Appliance {
    tpm: SoftwareTpm,
    signer: PolicySigner,
    machine: Machine,
    level: u32,
}

impl Appliance {
    fn new() -> Appliance {
        let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
        let mut appliance = Appliance { tpm: SoftwareTpm::new(), signer, machine, level: 1 };
        appliance.tpm.start_release(&machine);
        appliance
    }

    fn started() -> Appliance {
        let mut appliance = Appliance::new();
        appliance.ensure().unwrap();
        appliance
    }

    fn entry(&self) -> Entry {
        self.signer.entry(&self.machine, self.level)
    }

    fn ensure(&mut self) -> Result<Secrets, SecretsError> {
        let policy = self.signer.policy([self.entry()]);
        ensure(&mut self.tpm, &policy, &self.signer.key(), &mut kernel_random, &mut |_| {})
    }

    fn renew(&mut self) -> Result<Secrets, SecretsError> {
        let policy = self.signer.policy([self.entry()]);
        renew_data_secret(&mut self.tpm, &policy, &self.signer.key(), &mut kernel_random, &mut |_| {})
    }

    fn restart(&mut self) {
        self.tpm.power_cycle();
        let machine = self.machine;
        self.tpm.start_release(&machine);
    }

    /// Starts what measures something else, with the same boot policy.
    fn start_other(&mut self, machine: &Machine) -> SecretsError {
        self.tpm.power_cycle();
        self.tpm.start_release(machine);
        self.ensure().unwrap_err()
    }
}

fn passphrases(secrets: &Secrets) -> [[u8; 32]; 3] {
    ["data", "system-a", "system-minimum"].map(|name| *secrets.volume_passphrase(name))
}

#[test]
fn the_first_start_makes_secrets_and_each_later_one_reads_them() {
    let mut appliance = Appliance::new();
    let first = passphrases(&appliance.ensure().unwrap());
    for (at, one) in first.iter().enumerate() {
        assert!(first[..at].iter().all(|other| other != one) && *one != [0; 32]);
    }
    println!("measured: ensure() of a first start: {} TPM commands", appliance.tpm.commands().len());
    for _ in 0..2 {
        appliance.restart();
        assert_eq!(passphrases(&appliance.ensure().unwrap()), first);
    }
    println!("measured: ensure() of a later start: {} TPM commands", appliance.tpm.commands().len());
    assert_eq!(appliance.tpm.commands().len(), 24);
    let state = commands::state(&mut appliance.tpm).unwrap();
    assert!(state.owner_auth_set && state.lockout_auth_set && state.clear_disabled);
    // In the same start as well, and a later release gets the same.
    assert_eq!(passphrases(&appliance.ensure().unwrap()), first);
    appliance.machine = Machine::new("keys", "the next release");
    appliance.restart();
    assert_eq!(passphrases(&appliance.ensure().unwrap()), first);
}

#[test]
fn two_machines_have_different_secrets() {
    let (mut one, mut other) = (Appliance::new(), Appliance::new());
    let (one, other) = (passphrases(&one.ensure().unwrap()), passphrases(&other.ensure().unwrap()));
    assert!(one.iter().zip(&other).all(|(one, other)| one != other));
}

#[test]
fn a_first_start_cut_anywhere_is_finished_by_the_next_one() {
    let (mut cuts, mut kept) = (0, 0);
    for after in 1.. {
        let mut appliance = Appliance::new();
        appliance.tpm.cut_after(after);
        let first = appliance.ensure();
        let was_cut = !appliance.tpm.has_power();
        appliance.restart();
        // The bootloader's view of it: never an error, never a level that was not set.
        let name = appliance.signer.key().name();
        let fuses = belvedere_fuses::read(&mut appliance.tpm, Some(&name));
        assert_eq!(fuses.map(belvedere_fuses::Fuses::level), Ok(0), "cut after {after}");
        let written = commands::nv_read_public(&mut appliance.tpm, SYSTEM_SECRET).unwrap().is_some_and(|p| p.written());
        let second = passphrases(&appliance.ensure().unwrap_or_else(|error| panic!("cut after {after}: {error}")));
        appliance.restart();
        assert_eq!(passphrases(&appliance.ensure().unwrap()), second, "cut after {after}");
        let state = commands::state(&mut appliance.tpm).unwrap();
        assert!(state.owner_auth_set && state.lockout_auth_set && state.clear_disabled, "cut after {after}");
        assert!(state.endorsement_auth_set, "cut after {after}");
        assert_eq!(commands::has_storage_key(&mut appliance.tpm, layout::KEYS_PARENT), Ok(Some(true)), "cut after {after}");
        match first {
            Ok(secrets) => assert_eq!(passphrases(&secrets), second, "what was given out holds"),
            Err(error) => assert!(was_cut, "cut after {after}: {error}"),
        }
        if !was_cut {
            break;
        }
        cuts += 1;
        kept += usize::from(written);
    }
    println!("measured: a first start cut after each of {cuts} TPM commands");
    assert!(cuts > 30 && kept > 10, "{cuts} {kept}");
}

#[test]
fn cut_twice_the_first_start_is_finished_by_the_third() {
    for after in (1..45).step_by(3) {
        let mut appliance = Appliance::new();
        for after in [after, 45 - after] {
            appliance.tpm.cut_after(after);
            let _ = appliance.ensure();
            appliance.restart();
        }
        let secrets = passphrases(&appliance.ensure().unwrap());
        appliance.restart();
        assert_eq!(passphrases(&appliance.ensure().unwrap()), secrets);
    }
}

#[test]
fn a_changed_secure_boot_key_or_release_is_closed_and_named() {
    let mut appliance = Appliance::started();
    let error = appliance.start_other(&Machine::new("other keys", "release")).to_string();
    assert!(error.contains("PCR 7") && error.contains("Secure Boot") && !error.contains("PCR 11"), "{error}");
    let error = appliance.start_other(&Machine::new("keys", "a changed release")).to_string();
    assert!(error.contains("PCR 11") && error.contains("signed release") && !error.contains("PCR 7"), "{error}");
    let measured = Machine::new("keys", "a changed release").pcr11();
    assert!(error.contains(&hex(&measured)) && error.contains(&hex(&appliance.machine.pcr11())), "{error}");
    assert!(matches!(appliance.start_other(&Machine::new("a", "b")), SecretsError::Closed(Closed::Measured(_))));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_unsigned_release_writes_nothing_to_a_new_tpm() {
    let mut appliance = Appliance::new();
    let error = appliance.start_other(&Machine::new("keys", "an unsigned release"));
    assert!(matches!(error, SecretsError::Closed(_)));
    // What is measured as signed, and is signed by somebody else.
    appliance.restart();
    let forged = PolicySigner::new().entry(&appliance.machine, 1);
    let policy = appliance.signer.policy([forged]);
    let error = ensure(&mut appliance.tpm, &policy, &appliance.signer.key(), &mut kernel_random, &mut |_| {});
    assert!(matches!(&error, Err(SecretsError::Tpm(tpm)) if tpm.is(ResponseCode::SIGNATURE)), "{error:?}");
    let other = PolicySigner::new();
    let policy = other.policy([other.entry(&appliance.machine, 1)]);
    let error = ensure(&mut appliance.tpm, &policy, &appliance.signer.key(), &mut kernel_random, &mut |_| {});
    assert!(matches!(error, Err(SecretsError::OtherKey)));
    assert_eq!(commands::nv_read_public(&mut appliance.tpm, FUSES), Ok(None));
}

#[test]
fn a_release_below_the_fuses_gets_nothing() {
    let mut appliance = Appliance::started();
    let policy = appliance.signer.policy([appliance.signer.entry(&appliance.machine, 2)]);
    let raise = prepare(&mut appliance.tpm, &policy, 2, &mut |_| {}).unwrap().unwrap();
    let words = raise.words();
    raise.confirm(&mut appliance.tpm, Confirmation::words(words), &mut |_| {}).unwrap();
    let error = appliance.ensure().unwrap_err();
    assert!(matches!(error, SecretsError::Closed(Closed::BelowFuses { fuses: 2, level: 1 })));
    assert!(error.to_string().contains("install a newer release"), "{error}");
    // The TPM says the same to a release that does not ask itself.
    let entry = appliance.entry();
    let approval = Approval::verify(&mut appliance.tpm, &appliance.signer.key(), &entry, Purpose::Storage).unwrap();
    let read = approval.with_session(&mut appliance.tpm, FusesState::Written, |tpm, session| {
        commands::nv_read(tpm, Authorization::Policy(session), DATA_SECRET, 32)
    });
    assert_eq!(refusal(read), ResponseCode::POLICY);
    appliance.level = 2;
    assert!(appliance.ensure().is_ok());
}

#[test]
fn after_the_phase_is_closed_nothing_is_read_and_nothing_is_written() {
    let mut appliance = Appliance::started();
    let before = passphrases(&appliance.ensure().unwrap());
    close_phase(&mut appliance.tpm).unwrap();
    assert!(matches!(appliance.ensure(), Err(SecretsError::Closed(Closed::Operating))));
    assert!(matches!(appliance.renew(), Err(SecretsError::Closed(Closed::Operating))));
    // The TPM itself, asked with everything that was signed.
    let (entry, key) = (appliance.entry(), appliance.signer.key());
    let tpm = &mut appliance.tpm;
    let storage = Approval::verify(tpm, &key, &entry, Purpose::Storage).unwrap();
    let fuses = Approval::verify(tpm, &key, &entry, Purpose::Fuses).unwrap();
    for index in [SYSTEM_SECRET, DATA_SECRET] {
        let read = storage.with_session(tpm, FusesState::Written, |tpm, session| {
            commands::nv_read(tpm, Authorization::Policy(session), index, 32)
        });
        assert_eq!(refusal(read), ResponseCode::VALUE);
        let written = storage.with_session(tpm, FusesState::Written, |tpm, session| {
            commands::nv_write(tpm, Authorization::Policy(session), index, &[1; 32])
        });
        assert_eq!(refusal(written), ResponseCode::VALUE);
    }
    let set = fuses.with_session(tpm, FusesState::Written, |tpm, session| {
        commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, 1)
    });
    assert_eq!(refusal(set), ResponseCode::VALUE);
    appliance.restart();
    assert_eq!(passphrases(&appliance.ensure().unwrap()), before);
}

#[test]
fn a_session_opened_before_the_phase_is_closed_is_of_no_use_after() {
    let mut appliance = Appliance::started();
    let entry = appliance.entry();
    let approval = Approval::verify(&mut appliance.tpm, &appliance.signer.key(), &entry, Purpose::Storage).unwrap();
    let read = approval.with_session(&mut appliance.tpm, FusesState::Written, |tpm, session| {
        close_phase(tpm)?;
        commands::nv_read(tpm, Authorization::Policy(session), DATA_SECRET, 32)
    });
    // PCR_CHANGED; tried anew, PolicyPCR refuses.
    assert_eq!(refusal(read), ResponseCode::VALUE);
}

#[test]
fn a_foreign_index_is_refused_and_left_as_it_is() {
    let names = PolicySigner::new();
    for (index, public) in [
        (FUSES, layout::fuses(&names.key().name())),
        (SYSTEM_SECRET, layout::system_secret(&names.key().name())),
        (DATA_SECRET, layout::data_secret(&names.key().name())),
    ] {
        let mut appliance = Appliance::new();
        commands::nv_define(&mut appliance.tpm, NO_PASSWORD, &public).unwrap();
        let error = appliance.ensure().unwrap_err();
        let expected = Refusal::Foreign { index, difference: Difference::Policy };
        assert!(matches!(error, SecretsError::Refused(refusal) if refusal == expected), "{error}");
        assert!(error.to_string().contains("clear the TPM in the firmware's setup"), "{error}");
        assert_eq!(commands::nv_read_public(&mut appliance.tpm, index), Ok(Some(public)));
    }
    let mut appliance = Appliance::new();
    let ours = layout::system_secret(&appliance.signer.key().name());
    let readable = NvPublic { attributes: ours.attributes | attributes::OWNER_READ, ..ours };
    commands::nv_define(&mut appliance.tpm, NO_PASSWORD, &readable).unwrap();
    let expected = Refusal::Foreign { index: SYSTEM_SECRET, difference: Difference::Attributes };
    assert!(matches!(appliance.ensure(), Err(SecretsError::Refused(refusal)) if refusal == expected));
}

#[test]
fn a_tpm_that_somebody_else_owns_is_refused() {
    for hierarchy in [Hierarchy::Owner, Hierarchy::Lockout] {
        let mut appliance = Appliance::new();
        commands::hierarchy_change_auth(&mut appliance.tpm, hierarchy, NO_PASSWORD, b"theirs").unwrap();
        assert!(matches!(appliance.ensure(), Err(SecretsError::Refused(Refusal::Owned))));
        assert_eq!(commands::nv_read_public(&mut appliance.tpm, FUSES), Ok(None));
    }
}

#[test]
fn an_owner_set_by_somebody_at_hand_during_the_first_start_is_found_out() {
    let mut appliance = Appliance::new();
    // Cut as late as possible before the owner is set; then somebody is faster. Behind it only the endorsement hierarchy's is.
    let commands = Appliance::started().tpm.commands().len();
    appliance.tpm.cut_after(commands - 2);
    assert!(appliance.ensure().is_err());
    appliance.restart();
    assert!(!commands::state(&mut appliance.tpm).unwrap().owner_auth_set);
    commands::hierarchy_change_auth(&mut appliance.tpm, Hierarchy::Owner, NO_PASSWORD, b"theirs").unwrap();
    assert!(matches!(appliance.ensure(), Err(SecretsError::Refused(Refusal::Owned))));
}

#[test]
fn clearing_that_the_firmware_allowed_again_is_disabled_again() {
    let mut appliance = Appliance::started();
    let allow = with_password(0x127, 0x4000_000c, &[], &[0]);
    assert_eq!(appliance.tpm.raw(&allow), 0);
    assert!(!commands::state(&mut appliance.tpm).unwrap().clear_disabled);
    appliance.ensure().unwrap();
    assert!(commands::state(&mut appliance.tpm).unwrap().clear_disabled);
}

#[test]
fn the_owner_can_use_what_is_derived_for_him() {
    let mut appliance = Appliance::new();
    let auth = appliance.ensure().unwrap().owner_auth();
    let owner = Authorization::Password(auth.as_slice());
    commands::create_storage_key(&mut appliance.tpm, Hierarchy::Owner, owner).unwrap();
    let refused = commands::create_storage_key(&mut appliance.tpm, Hierarchy::Owner, NO_PASSWORD);
    assert_eq!(refusal(refused), ResponseCode::BAD_AUTH);
}

#[test]
fn a_full_reset_renews_the_data_secret_and_nothing_else() {
    let mut appliance = Appliance::new();
    let [data, a, minimum] = passphrases(&appliance.ensure().unwrap());
    let renewed = passphrases(&appliance.renew().unwrap());
    assert_ne!(renewed[0], data);
    assert_eq!(renewed[1..], [a, minimum]);
    appliance.restart();
    assert_eq!(passphrases(&appliance.ensure().unwrap()), renewed);
}

#[test]
fn a_full_reset_cut_anywhere_leaves_the_old_secret_or_a_new_one() {
    let mut appliance = Appliance::started();
    let (mut cuts, mut changed) = (0, 0);
    for after in 1.. {
        appliance.restart();
        let before = passphrases(&appliance.ensure().unwrap());
        appliance.restart();
        appliance.tpm.cut_after(after);
        let result = appliance.renew();
        let was_cut = !appliance.tpm.has_power();
        appliance.restart();
        let now = passphrases(&appliance.ensure().unwrap());
        assert_eq!(now[1..], before[1..]);
        if !was_cut {
            assert_eq!(passphrases(&result.unwrap()), now);
            assert_ne!(now[0], before[0]);
            break;
        }
        cuts += 1;
        changed += usize::from(now[0] != before[0]);
    }
    assert!(cuts > 20 && changed >= 1, "{cuts} {changed}");
}

#[test]
fn no_random_bytes_no_secret() {
    let mut appliance = Appliance::new();
    let policy = appliance.signer.policy([appliance.entry()]);
    let mut random = |_: &mut [u8]| Err(std::io::Error::other("no entropy"));
    let result = ensure(&mut appliance.tpm, &policy, &appliance.signer.key(), &mut random, &mut |_| {});
    assert!(matches!(result, Err(SecretsError::Random(_))));
    // What was begun is finished when there are some.
    appliance.restart();
    assert!(appliance.ensure().is_ok());
}

#[test]
fn secrets_do_not_show() {
    let secrets = Appliance::new().ensure().unwrap();
    assert_eq!(format!("{secrets:?}"), "Secrets { .. }");
}
