//! Signing keys that never leave the TPM, random numbers, and what the TPM says about itself.

use belvedere_software_tpm::{NO_PASSWORD, SoftwareTpm, refusal};
use belvedere_tpm::commands::{self, Hierarchy};
use belvedere_tpm::policy::sha256;
use belvedere_tpm::{Authorization, P256Key, ResponseCode};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

#[test]
fn a_key_signs_after_a_power_cycle_what_another_library_verifies() {
    let mut tpm = SoftwareTpm::new();
    let parent = commands::create_storage_key(&mut tpm, Hierarchy::Owner, NO_PASSWORD).unwrap();
    let key = commands::create_signing_key(&mut tpm, parent, b"a password").unwrap();
    let P256Key { x, y } = P256Key::of_public_area(&key.public_area).unwrap();
    tpm.power_cycle();
    let parent = commands::create_storage_key(&mut tpm, Hierarchy::Owner, NO_PASSWORD).unwrap();
    let loaded = commands::load(&mut tpm, parent, &key).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4][..], &x, &y].concat());
    for number in 0..20u32 {
        let message = number.to_be_bytes();
        let signature =
            commands::sign(&mut tpm, loaded, Authorization::Password(b"a password"), &sha256(&[&message])).unwrap();
        public.verify(&message, &[signature.r, signature.s].concat()).unwrap();
    }
    let wrong = commands::sign(&mut tpm, loaded, NO_PASSWORD, &[0; 32]);
    assert_eq!(refusal(wrong), ResponseCode::BAD_AUTH);
    // Another TPM cannot read the private half.
    let mut other = SoftwareTpm::new();
    let parent = commands::create_storage_key(&mut other, Hierarchy::Owner, NO_PASSWORD).unwrap();
    assert!(commands::load(&mut other, parent, &key).is_err());
}

#[test]
fn random_bytes_are_as_many_as_asked_for() {
    let mut tpm = SoftwareTpm::new();
    let (mut first, mut second) = ([0; 100], [0; 100]);
    commands::get_random(&mut tpm, &mut first).unwrap();
    commands::get_random(&mut tpm, &mut second).unwrap();
    assert_ne!(first, second);
    for piece in first.chunks(20) {
        assert_ne!(piece, [0; 20]);
    }
}

#[test]
fn the_state_says_what_was_set() {
    let mut tpm = SoftwareTpm::new();
    let state = commands::state(&mut tpm).unwrap();
    assert_eq!(state, commands::TpmState { owner_enabled: true, ..Default::default() });
    for hierarchy in [Hierarchy::Owner, Hierarchy::Lockout, Hierarchy::Endorsement] {
        commands::hierarchy_change_auth(&mut tpm, hierarchy, NO_PASSWORD, &[7; 32]).unwrap();
    }
    commands::disable_clear(&mut tpm, Authorization::Password(&[7; 32])).unwrap();
    let state = commands::state(&mut tpm).unwrap();
    assert!(state.owner_auth_set && state.lockout_auth_set && state.endorsement_auth_set && state.clear_disabled);
    assert!(!state.in_lockout);
}

#[test]
fn an_index_is_defined_once_and_undefined_by_its_owner() {
    let mut tpm = SoftwareTpm::new();
    let public = belvedere_tpm::layout::fuses(&[1; 34]);
    assert_eq!(commands::nv_read_public(&mut tpm, public.index).unwrap(), None);
    commands::nv_define(&mut tpm, NO_PASSWORD, &public).unwrap();
    assert_eq!(commands::nv_read_public(&mut tpm, public.index).unwrap().as_ref(), Some(&public));
    assert_eq!(refusal(commands::nv_define(&mut tpm, NO_PASSWORD, &public)), ResponseCode::NV_DEFINED);
    assert_eq!(refusal(commands::nv_read(&mut tpm, NO_PASSWORD, public.index, 8)), ResponseCode::NV_UNINITIALIZED);
    commands::nv_undefine(&mut tpm, NO_PASSWORD, public.index).unwrap();
    assert_eq!(commands::nv_read_public(&mut tpm, public.index).unwrap(), None);
    assert_eq!(refusal(commands::nv_read(&mut tpm, NO_PASSWORD, public.index, 8)), ResponseCode::HANDLE);
}
