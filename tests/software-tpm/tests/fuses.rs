//! The rollback fuses: read closed, raised with words, never lowered by anybody.

use belvedere_fuses::{Confirmation, FuseError, Fuses, prepare, read};
use belvedere_software_tpm::{Machine, NO_PASSWORD, PolicySigner, SoftwareTpm, refusal, with_password};
use belvedere_storage::secrets::{close_phase, ensure, kernel_random};
use belvedere_tpm::approval::{Approval, FusesState};
use belvedere_tpm::commands::{self, Hierarchy};
use belvedere_tpm::layout::{self, DATA_SECRET, Difference, FUSES, Purpose, SYSTEM_SECRET};
use belvedere_tpm::{Authorization, MAXIMUM, Name, NvPublic, ResponseCode, Tpm, TpmError, attributes};

const LOCKOUT: u32 = 0x4000_000a;
const PLATFORM: u32 = 0x4000_000c;

struct Appliance {
    tpm: SoftwareTpm,
    signer: PolicySigner,
    machine: Machine,
}

impl Appliance {
    /// After its first start.
    fn started() -> Appliance {
        let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
        let mut appliance = Appliance { tpm: SoftwareTpm::new(), signer, machine };
        appliance.tpm.start_release(&machine);
        appliance.ensure(0);
        appliance
    }

    fn ensure(&mut self, level: u32) {
        let policy = self.signer.policy([self.signer.entry(&self.machine, level)]);
        ensure(&mut self.tpm, &policy, &self.signer.key(), &mut kernel_random, &mut |_| {}).unwrap();
    }

    fn name(&self) -> Name {
        self.signer.key().name()
    }

    fn read(&mut self) -> Result<Fuses, FuseError> {
        let name = self.name();
        let known = read(&mut self.tpm, Some(&name));
        if known.is_ok() {
            assert_eq!(read(&mut self.tpm, None), known, "who does not know the key reads the same");
        }
        known
    }

    /// Raises as a release of level `signed` does.
    fn raise(&mut self, signed: u32, to: u32) -> Result<Option<u32>, FuseError> {
        let policy = self.signer.policy([self.signer.entry(&self.machine, signed)]);
        let Some(raise) = prepare(&mut self.tpm, &policy, to, &mut |_| {})? else { return Ok(None) };
        let words = raise.words();
        raise.confirm(&mut self.tpm, Confirmation::words(words), &mut |_| {}).map(Some)
    }
}

#[test]
fn a_new_machine_is_of_level_0_until_its_first_start_kept_something() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let mut tpm = SoftwareTpm::new();
    tpm.start_release(&machine);
    let name = signer.key().name();
    assert_eq!(read(&mut tpm, Some(&name)), Ok(Fuses::Factory));
    assert_eq!(read(&mut tpm, None).map(Fuses::level), Ok(0));
    // A first start that was cut after its first command.
    commands::nv_define(&mut tpm, NO_PASSWORD, &layout::fuses(&name)).unwrap();
    assert_eq!(read(&mut tpm, Some(&name)), Ok(Fuses::Factory));
    let policy = signer.policy([signer.entry(&machine, 0)]);
    ensure(&mut tpm, &policy, &signer.key(), &mut kernel_random, &mut |_| {}).unwrap();
    assert_eq!(read(&mut tpm, Some(&name)), Ok(Fuses::Level(0)));
}

#[test]
fn reading_takes_few_commands() {
    let mut tpm = SoftwareTpm::new();
    read(&mut tpm, None).unwrap();
    assert_eq!(tpm.commands().len(), 4);
    let mut appliance = Appliance::started();
    appliance.tpm.forget_commands();
    read(&mut appliance.tpm, None).unwrap();
    assert_eq!(appliance.tpm.commands().len(), 2);
}

#[test]
fn fuses_are_raised_step_by_step_and_logged() {
    let mut appliance = Appliance::started();
    let policy = appliance.signer.policy([appliance.signer.entry(&appliance.machine, 5)]);
    let mut lines = Vec::new();
    let mut log = |line: &str| lines.push(line.to_owned());
    let raise = prepare(&mut appliance.tpm, &policy, 3, &mut log).unwrap().unwrap();
    assert_eq!((raise.from(), raise.to()), (0, 3));
    assert_eq!(raise.words(), "raise the rollback fuses from level 0 to level 3 for ever");
    assert_eq!(read(&mut appliance.tpm, None), Ok(Fuses::Level(0)), "nothing happens before it is confirmed");
    let words = raise.words();
    assert_eq!(raise.confirm(&mut appliance.tpm, Confirmation::words(words), &mut log), Ok(3));
    assert!(prepare(&mut appliance.tpm, &policy, 3, &mut log).unwrap().is_none());
    assert!(prepare(&mut appliance.tpm, &policy, 1, &mut log).unwrap().is_none());
    assert_eq!(
        lines,
        [
            "rollback fuses: raising from level 0 to level 3, for ever",
            "rollback fuses: level 3",
            "rollback fuses: level 3, nothing to raise (asked for: 3)",
            "rollback fuses: level 3, nothing to raise (asked for: 1)",
        ]
    );
    assert_eq!(appliance.raise(5, 4), Ok(Some(4)));
    assert_eq!(appliance.raise(64, 64), Ok(Some(64)));
    appliance.tpm.power_cycle();
    assert_eq!(appliance.read(), Ok(Fuses::Level(64)));
}

#[test]
fn a_level_above_the_running_release_is_refused() {
    let mut appliance = Appliance::started();
    assert_eq!(appliance.raise(2, 3), Err(FuseError::AboveRelease { wanted: 3, signed: 2 }));
    assert_eq!(appliance.raise(64, 65), Err(FuseError::TooHigh(65)));
    // A release that is not what was measured.
    let other = Machine::new("keys", "another release");
    let policy = appliance.signer.policy([appliance.signer.entry(&other, 9)]);
    let refused = prepare(&mut appliance.tpm, &policy, 1, &mut |_| {});
    assert_eq!(refused.map(|_| ()), Err(FuseError::UnknownRelease));
    assert_eq!(appliance.read(), Ok(Fuses::Level(0)));
}

#[test]
fn without_the_words_nothing_is_raised() {
    let mut appliance = Appliance::started();
    let policy = appliance.signer.policy([appliance.signer.entry(&appliance.machine, 2)]);
    let raise = prepare(&mut appliance.tpm, &policy, 2, &mut |_| {}).unwrap().unwrap();
    let words = Confirmation::words("raise the rollback fuses from level 0 to level 1 for ever");
    assert_eq!(raise.confirm(&mut appliance.tpm, words, &mut |_| {}), Err(FuseError::NotConfirmed));
    assert_eq!(appliance.read(), Ok(Fuses::Level(0)));
}

#[test]
fn a_new_machine_has_no_fuses_to_raise() {
    let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
    let mut appliance = Appliance { tpm: SoftwareTpm::new(), signer, machine };
    appliance.tpm.start_release(&machine);
    assert_eq!(appliance.raise(1, 1), Err(FuseError::Factory));
}

#[test]
fn nobody_lowers_clears_or_replaces_the_fuses() {
    let mut appliance = Appliance::started();
    appliance.raise(3, 3).unwrap();
    let (name, tpm) = (appliance.name(), &mut appliance.tpm);
    // Without a policy.
    assert_eq!(refusal(commands::nv_set_bits(tpm, NO_PASSWORD, FUSES, u64::MAX)), ResponseCode::AUTH_UNAVAILABLE);
    assert!(commands::nv_write(tpm, NO_PASSWORD, FUSES, &[0; 8]).is_err());
    // With the empty authorisation of an owner who is not set.
    assert_eq!(refusal(commands::nv_undefine(tpm, NO_PASSWORD, FUSES)), ResponseCode::BAD_AUTH);
    assert_eq!(refusal(commands::nv_undefine(tpm, NO_PASSWORD, SYSTEM_SECRET)), ResponseCode::BAD_AUTH);
    assert_eq!(refusal(commands::nv_define(tpm, NO_PASSWORD, &layout::fuses(&name))), ResponseCode::BAD_AUTH);
    let hierarchy_control = with_password(0x121, Hierarchy::Owner as u32, &[], &[0x40, 0, 0, 1, 0]);
    assert_ne!(tpm.raw(&hierarchy_control), 0, "the owner's hierarchy is switched off by nobody");
    // TPM2_Clear: with the empty lockout authorisation, and by the platform without its word before.
    assert_eq!(ResponseCode(tpm.clear(PLATFORM, &[])).reason(), ResponseCode::DISABLED);
    assert_eq!(ResponseCode(tpm.clear(LOCKOUT, &[])).reason(), ResponseCode::AUTH_FAIL);
    // With the policy: clearing bits is no command at all, and one that writes is refused.
    let entry = appliance.signer.entry(&appliance.machine, 3);
    let approval = Approval::verify(tpm, &appliance.signer.key(), &entry, Purpose::Fuses).unwrap();
    let written = approval.with_session(tpm, FusesState::Written, |tpm, session| {
        commands::nv_write(tpm, Authorization::Policy(session), FUSES, &[0; 8])
    });
    assert_eq!(refusal(written), ResponseCode::ATTRIBUTES);
    approval
        .with_session(tpm, FusesState::Written, |tpm, session| {
            commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, 0)
        })
        .unwrap();
    // As if they had never been written.
    let again = approval.with_session(tpm, FusesState::NeverWritten, |tpm, session| {
        commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, 0b1000)
    });
    assert_eq!(refusal(again), ResponseCode::POLICY_FAIL);
    assert_eq!(appliance.read(), Ok(Fuses::Level(3)));
}

#[test]
fn the_lockout_authorisation_is_not_empty() {
    let mut appliance = Appliance::started();
    let code = ResponseCode(appliance.tpm.raw(&with_password(0x127, LOCKOUT, &[], &[1]))).reason();
    assert_eq!(code, ResponseCode::AUTH_FAIL);
}

#[test]
fn a_tpm_cleared_in_the_firmware_s_setup_is_new_and_has_no_secrets() {
    let mut appliance = Appliance::started();
    appliance.raise(3, 3).unwrap();
    assert_eq!(appliance.tpm.raw(&with_password(0x127, PLATFORM, &[], &[0])), 0);
    assert_eq!(appliance.tpm.clear(PLATFORM, &[]), 0);
    assert_eq!(appliance.read(), Ok(Fuses::Factory));
    appliance.ensure(0);
    assert_eq!(appliance.read(), Ok(Fuses::Level(0)));
}

#[test]
fn a_release_below_the_fuses_cannot_set_them() {
    let mut appliance = Appliance::started();
    appliance.raise(3, 3).unwrap();
    let entry = appliance.signer.entry(&appliance.machine, 2);
    let approval = Approval::verify(&mut appliance.tpm, &appliance.signer.key(), &entry, Purpose::Fuses).unwrap();
    let set = approval.with_session(&mut appliance.tpm, FusesState::Written, |tpm, session| {
        commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, u64::MAX)
    });
    assert_eq!(refusal(set), ResponseCode::POLICY);
    assert_eq!(appliance.read(), Ok(Fuses::Level(3)));
}

#[test]
fn in_the_operating_phase_nothing_is_raised() {
    let mut appliance = Appliance::started();
    let policy = appliance.signer.policy([appliance.signer.entry(&appliance.machine, 1)]);
    let raise = prepare(&mut appliance.tpm, &policy, 1, &mut |_| {}).unwrap().unwrap();
    close_phase(&mut appliance.tpm).unwrap();
    let words = raise.words();
    let refused = raise.confirm(&mut appliance.tpm, Confirmation::words(words), &mut |_| {});
    assert!(matches!(&refused, Err(FuseError::Tpm(error)) if error.is(ResponseCode::VALUE)), "{refused:?}");
    assert_eq!(appliance.raise(1, 1), Err(FuseError::UnknownRelease));
    assert_eq!(appliance.read(), Ok(Fuses::Level(0)), "reading needs no policy");
}

#[test]
fn bits_that_are_no_level_count_as_the_highest() {
    let mut appliance = Appliance::started();
    let entry = appliance.signer.entry(&appliance.machine, 64);
    let approval = Approval::verify(&mut appliance.tpm, &appliance.signer.key(), &entry, Purpose::Fuses).unwrap();
    approval
        .with_session(&mut appliance.tpm, FusesState::Written, |tpm, session| {
            commands::nv_set_bits(tpm, Authorization::Policy(session), FUSES, 0b10_0000)
        })
        .unwrap();
    assert_eq!(appliance.read(), Ok(Fuses::Level(6)));
}

#[test]
fn fuses_that_are_gone_are_closed_while_a_secret_is_there() {
    let (signer, name) = (PolicySigner::new(), [1; 34]);
    for secret in [layout::system_secret(&name), layout::data_secret(&name)] {
        let mut tpm = SoftwareTpm::new();
        commands::nv_define(&mut tpm, NO_PASSWORD, &secret).unwrap();
        assert_eq!(read(&mut tpm, None), Err(FuseError::Lost));
        // Defined anew, never written: no level 0 either.
        commands::nv_define(&mut tpm, NO_PASSWORD, &layout::fuses(&signer.key().name())).unwrap();
        assert_eq!(read(&mut tpm, None), Err(FuseError::Lost));
    }
}

#[test]
fn foreign_fuses_are_closed() {
    let (signer, other) = (PolicySigner::new(), PolicySigner::new());
    let ours = layout::fuses(&signer.key().name());
    let read_with = |public: &NvPublic, key: Option<&Name>| {
        let mut tpm = SoftwareTpm::new();
        commands::nv_define(&mut tpm, NO_PASSWORD, public).unwrap();
        read(&mut tpm, key)
    };
    let name = signer.key().name();
    assert_eq!(read_with(&ours, Some(&other.key().name())), Err(FuseError::Foreign(Difference::Policy)));
    assert_eq!(read_with(&ours, Some(&name)), Ok(Fuses::Factory));
    for changed in [attributes::OWNER_WRITE, attributes::AUTH_WRITE, attributes::OWNER_READ] {
        let public = NvPublic { attributes: ours.attributes | changed, ..ours.clone() };
        assert_eq!(read_with(&public, None), Err(FuseError::Foreign(Difference::Attributes)));
    }
    let ordinary = NvPublic { attributes: ours.attributes & !attributes::TYPE_BITS, ..ours.clone() };
    assert_eq!(read_with(&ordinary, None), Err(FuseError::Foreign(Difference::Attributes)));
}

#[test]
fn a_hierarchy_that_is_switched_off_does_not_look_like_a_new_machine() {
    let mut appliance = Appliance::started();
    appliance.raise(2, 2).unwrap();
    // As the firmware could: everything in it is invisible until the next start.
    assert_eq!(appliance.tpm.raw(&with_password(0x121, PLATFORM, &[], &[0x40, 0, 0, 1, 0])), 0);
    assert_eq!(commands::nv_read_public(&mut appliance.tpm, FUSES), Ok(None));
    assert_eq!(appliance.read(), Err(FuseError::Hidden));
    appliance.tpm.power_cycle();
    assert_eq!(appliance.read(), Ok(Fuses::Level(2)));
}

/// A way to a TPM that fails at command N.
struct FailsAt<'a>(&'a mut SoftwareTpm, usize);

impl Tpm for FailsAt<'_> {
    type Error = std::io::Error;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> std::io::Result<usize> {
        self.1 = self.1.checked_sub(1).ok_or_else(|| std::io::Error::other("no TPM"))?;
        self.0.exchange(command, response)
    }
}

#[test]
fn a_tpm_that_does_not_answer_is_closed() {
    let mut appliance = Appliance::started();
    for (tpm, commands) in [(&mut SoftwareTpm::new(), 4), (&mut appliance.tpm, 2)] {
        for at in 0..commands {
            let result = read(&mut FailsAt(tpm, at), None);
            assert!(matches!(&result, Err(FuseError::Tpm(TpmError::Transport { .. }))), "{at}: {result:?}");
        }
        assert!(read(&mut FailsAt(tpm, commands), None).is_ok());
    }
}

#[test]
fn a_power_cut_while_raising_leaves_the_old_level_or_the_new_one() {
    let mut appliance = Appliance::started();
    let mut cuts = 0;
    for after in 1.. {
        appliance.tpm.power_cycle();
        let machine = appliance.machine;
        appliance.tpm.start_release(&machine);
        let from = appliance.read().unwrap().level();
        appliance.tpm.cut_after(after);
        let result = appliance.raise(64, from + 1);
        let was_cut = !appliance.tpm.has_power();
        appliance.tpm.power_cycle();
        let level = appliance.read().unwrap().level();
        if !was_cut {
            assert_eq!((result, level), (Ok(Some(from + 1)), from + 1));
            break;
        }
        assert!(result.is_err());
        assert!(level == from || level == from + 1, "{from} {level}");
        cuts += 1;
    }
    assert!(cuts >= 10, "{cuts}");
    // What else is in the TPM is as it was.
    assert!(commands::nv_read_public(&mut appliance.tpm, DATA_SECRET).unwrap().is_some_and(|public| public.written()));
}
