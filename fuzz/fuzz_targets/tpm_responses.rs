//! A TPM that answers anything: every command and all that stands on them ends, gives a value or an error, and gives no
//! secret that the answers did not hold.
#![no_main]

use belvedere_tpm::approval::{Approval, FusesState};
use belvedere_tpm::boot_policy::{BootPolicy, Entry};
use belvedere_tpm::commands::{self, CreatedKey, Hierarchy, LoadedObject};
use belvedere_tpm::layout::{self, Purpose};
use belvedere_tpm::policy::Comparison;
use belvedere_tpm::{Authorization, MAXIMUM, P256Key, PolicyKey, PolicySession, PolicySignature, Tpm};
use libfuzzer_sys::fuzz_target;

/// Answers from bytes: how, how long, what.
struct Answers<'a> {
    rest: &'a [u8],
    commands: usize,
}

impl Tpm for Answers<'_> {
    type Error = &'static str;

    fn exchange(&mut self, command: &[u8], response: &mut [u8; MAXIMUM]) -> Result<usize, &'static str> {
        self.commands += 1;
        assert!(self.commands < 2000, "it does not end");
        assert!(command.len() >= 10 && command.len() <= MAXIMUM);
        assert_eq!(command[2..6], (command.len() as u32).to_be_bytes(), "a command of another length than it says");
        let Some((&[how, length], rest)) = self.rest.split_first_chunk::<2>() else { return Err("no answer") };
        let (content, rest) = rest.split_at(usize::from(length).min(rest.len()));
        self.rest = rest;
        // Most of the time in a right frame: it would otherwise keep the fuzzer from ever reaching what is behind it.
        let mut answer = Vec::new();
        if how & 3 == 0 {
            answer.extend_from_slice(content);
        } else {
            let sessions = command[1] == 2;
            let (handle, parameters) = content.split_at(if how & 4 != 0 { content.len().min(4) } else { 0 });
            answer.extend_from_slice(&command[..2]);
            answer.extend_from_slice(&[0; 8]);
            answer.extend_from_slice(handle);
            if sessions {
                answer.extend_from_slice(&(parameters.len() as u32).to_be_bytes());
            }
            answer.extend_from_slice(parameters);
            if sessions {
                answer.extend_from_slice(&[0, 0, 1, 0, 0]);
            }
            let size = answer.len() as u32;
            answer[2..6].copy_from_slice(&size.to_be_bytes());
        }
        response[..answer.len()].copy_from_slice(&answer);
        // Longer than the buffer is said now and then: nothing is to be read behind it.
        Ok(if how & 0xf8 == 0xf8 { MAXIMUM + 1 } else { answer.len() })
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[which, level], rest)) = data.split_first_chunk::<2>() else { return };
    let tpm = &mut Answers { rest, commands: 0 };
    let key = PolicyKey([1; 256]);
    let signature = PolicySignature([3; 256]);
    let entry = Entry { pcr7: [0; 32], pcr11: [0; 32], level: u32::from(level) % 65, storage: signature, fuses: signature };
    let policy = BootPolicy { key, entries: vec![entry] };
    let (session, object) = (PolicySession(1), LoadedObject(2));
    let (password, by_policy) = (Authorization::Password(b"password"), Authorization::Policy(session));
    let name = key.name();
    match which % 32 {
        0 => drop(commands::pcr_read(tpm, [7, 11])),
        1 => drop(commands::pcr_extend(tpm, 11, &[1; 32])),
        2 => drop(commands::get_random(tpm, &mut [0; 100])),
        3 => drop(commands::state(tpm)),
        4 => drop(commands::flush(tpm, 1)),
        5 => drop(commands::start_policy_session(tpm)),
        6 => drop(commands::policy_pcr(tpm, session, &[7, 11], &[0; 32])),
        7 => drop(commands::policy_nv(tpm, session, layout::FUSES, &[0; 8], Comparison::AtMost)),
        8 => drop(commands::policy_nv_written(tpm, session, true)),
        9 => drop(commands::policy_or(tpm, session, &[[0; 32], [1; 32]])),
        10 => drop(commands::policy_command_code(tpm, session, commands::NV_READ)),
        11 => drop(commands::policy_get_digest(tpm, session)),
        12 => drop(commands::load_policy_key(tpm, &key)),
        13 => {
            if let Ok(ticket) = commands::verify_signature(tpm, object, &[0; 32], &signature) {
                drop(commands::policy_authorize(tpm, session, &[0; 32], b"text", &name, &ticket));
            }
        }
        14 => {
            if let Ok(Some(public)) = commands::nv_read_public(tpm, layout::FUSES) {
                assert_eq!(public.index, layout::FUSES);
                let _ = layout::same(&public, &layout::fuses(&name), true);
            }
        }
        15 => drop(commands::nv_define(tpm, password, &layout::data_secret(&name))),
        16 => drop(commands::nv_undefine(tpm, password, layout::FUSES)),
        17 => {
            if let Ok(bytes) = commands::nv_read(tpm, by_policy, layout::DATA_SECRET, 32) {
                assert_eq!(bytes.len(), 32);
            }
        }
        18 => drop(commands::nv_write(tpm, by_policy, layout::DATA_SECRET, &[0; 32])),
        19 => drop(commands::nv_set_bits(tpm, by_policy, layout::FUSES, 1)),
        20 => drop(commands::hierarchy_change_auth(tpm, Hierarchy::Lockout, password, b"new")),
        21 => drop(commands::disable_clear(tpm, password)),
        22 => {
            if let Ok((public_area, _)) = commands::read_public(tpm, 1) {
                let _ = P256Key::of_public_area(&public_area);
            }
        }
        23 => {
            drop(commands::persist_storage_key(tpm, password, layout::KEYS_PARENT));
            drop(commands::has_storage_key(tpm, layout::KEYS_PARENT));
            drop(commands::policy_secret(tpm, session, Hierarchy::Endorsement, password));
        }
        24 => {
            if let Ok(key) = commands::create_signing_key(tpm, object, b"auth") {
                let _ = P256Key::of_public_area(&key.public_area);
                drop(commands::load(tpm, object, &key));
            }
        }
        25 => drop(commands::load(tpm, object, &CreatedKey { private: vec![1; 2000], public_area: vec![1; 2000] })),
        26 => drop(commands::sign(tpm, object, password, &[0; 32])),
        27 => {
            let action = |tpm: &mut Answers<'_>, session| {
                commands::nv_read(tpm, Authorization::Policy(session), layout::DATA_SECRET, 32)
            };
            if let Ok(approval) = Approval::verify(tpm, &key, &entry, Purpose::Fuses) {
                drop(approval.with_session(tpm, FusesState::NeverWritten, action));
            }
        }
        28 => {
            if let Ok(belvedere_fuses::Fuses::Level(level)) = belvedere_fuses::read(tpm, Some(&name)) {
                assert!(level <= layout::HIGHEST_LEVEL);
            }
        }
        29 => {
            if let Ok(Some(raise)) = belvedere_fuses::prepare(tpm, &policy, 1, &mut |_| {}) {
                let words = belvedere_fuses::Confirmation::words(raise.words());
                drop(raise.confirm(tpm, words, &mut |_| {}));
            }
        }
        30 => drop(commands::check_owner(tpm, password)),
        _ => {
            let mut random = |bytes: &mut [u8]| {
                bytes.fill(9);
                Ok(())
            };
            drop(belvedere_storage::secrets::ensure(tpm, &policy, &key, &mut random, &mut |_| {}));
        }
    }
});
