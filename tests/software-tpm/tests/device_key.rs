//! The device's key in a TPM that belongs to an appliance: what a service that was taken over can send to the TPM takes it
//! away from nobody.

use belvedere_provisioning::key::WrappedKey;
use belvedere_provisioning::tpm_key::{create, sign};
use belvedere_software_tpm::{Machine, NO_PASSWORD, PolicySigner, SoftwareTpm, refusal, with_password};
use belvedere_storage::secrets::{Secrets, close_phase, ensure, kernel_random, renew_data_secret};
use belvedere_tpm::commands::{self, Hierarchy, LoadedObject};
use belvedere_tpm::layout::{DATA_SECRET, FUSES, KEYS_PARENT, SYSTEM_SECRET};
use belvedere_tpm::{Authorization, P256Key, ResponseCode};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

const OWNER: u32 = Hierarchy::Owner as u32;
const LOCKOUT: u32 = Hierarchy::Lockout as u32;
const PLATFORM: u32 = 0x4000_000c;
const ENDORSEMENT: u32 = Hierarchy::Endorsement as u32;
/// SHA-256 of nothing that matters, with its length before it.
const POLICY: [u8; 34] = {
    let mut policy = [7; 34];
    (policy[0], policy[1]) = (0, 32);
    policy
};

struct Appliance {
    tpm: SoftwareTpm,
    signer: PolicySigner,
    machine: Machine,
    /// What the last start told.
    told: Vec<String>,
}

impl Appliance {
    fn new() -> Appliance {
        let (signer, machine) = (PolicySigner::new(), Machine::new("keys", "release"));
        Appliance { tpm: SoftwareTpm::new(), signer, machine, told: Vec::new() }
    }

    /// The initial RAM file system's part of a start, with a full reset or without.
    fn start(&mut self, full_reset: bool) -> Secrets {
        let machine = self.machine;
        self.tpm.start_release(&machine);
        let policy = self.signer.policy([self.signer.entry(&machine, 1)]);
        let work = if full_reset { renew_data_secret } else { ensure };
        self.told.clear();
        let told = &mut self.told;
        let secrets = work(&mut self.tpm, &policy, &self.signer.key(), &mut kernel_random, &mut |line| {
            told.push(line.to_owned());
        });
        let secrets = secrets.unwrap();
        close_phase(&mut self.tpm).unwrap();
        secrets
    }

    fn restart(&mut self) -> Secrets {
        self.tpm.power_cycle();
        self.start(false)
    }

    fn signs(&mut self, key: &WrappedKey) {
        let digest = belvedere_tpm::policy::sha256(&[b"message"]);
        let signature = sign(&mut self.tpm, key, &digest).unwrap();
        let P256Key { x, y } = P256Key::of_public_area(&key.public_area).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, [&[4][..], &x, &y].concat());
        public.verify(b"message", &signature).unwrap();
    }

    fn told(&self, words: &str) -> bool {
        self.told.iter().any(|line| line.contains(words))
    }
}

/// All that needs no authorisation but an empty one, and would outlive a restart. Each is sent; nothing is asked of the
/// answers but that the owner's are refused.
fn change_what_can_be_changed(tpm: &mut SoftwareTpm) {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    for hierarchy in [OWNER, LOCKOUT, ENDORSEMENT] {
        // HierarchyChangeAuth, SetPrimaryPolicy.
        tpm.raw(&with_password(0x129, hierarchy, &[], &sized(&[0x78; 32])));
        tpm.raw(&with_password(0x12e, hierarchy, &[], &[&POLICY[..], &[0, 11]].concat()));
    }
    for hierarchy in [OWNER, ENDORSEMENT] {
        // HierarchyControl: off.
        tpm.raw(&with_password(0x121, hierarchy, &[], &[&hierarchy.to_be_bytes()[..], &[0]].concat()));
    }
    // The platform, whose authorisation no firmware has set here.
    assert_ne!(tpm.raw(&with_password(0x129, PLATFORM, &[], &sized(&[0x78; 32]))), 0);
    assert_ne!(tpm.raw(&with_password(0x127, PLATFORM, &[], &[0])), 0);
    assert_ne!(tpm.clear(PLATFORM, &[]), 0);
    // Clear and ClearControl; DictionaryAttackParameters and DictionaryAttackLockReset.
    assert_ne!(tpm.clear(LOCKOUT, &[]), 0);
    assert_ne!(tpm.raw(&with_password(0x127, LOCKOUT, &[], &[0])), 0);
    assert_ne!(
        tpm.raw(&with_password(0x13a, LOCKOUT, &[], &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        0
    );
    assert_ne!(tpm.raw(&with_password(0x139, LOCKOUT, &[], &[])), 0);
    // The parent, and the indices.
    let parent = LoadedObject(KEYS_PARENT);
    assert_eq!(refusal(commands::evict_control(tpm, NO_PASSWORD, parent, KEYS_PARENT)), ResponseCode::BAD_AUTH);
    for index in [FUSES, SYSTEM_SECRET, DATA_SECRET] {
        assert_eq!(refusal(commands::nv_undefine(tpm, NO_PASSWORD, index)), ResponseCode::BAD_AUTH);
    }
    assert!(commands::flush(tpm, KEYS_PARENT).is_err());
    // Wrong guesses, at the parent and at an object of one's own that counts them, until the TPM is in lockout.
    let guess = Authorization::Password(b"guess");
    let create = |parent: u32, attributes: u32, auth: &[u8]| {
        let sensitive = sized(&[sized(auth), sized(&[])].concat());
        let mut public = vec![0, 0x23, 0, 11];
        public.extend(attributes.to_be_bytes());
        public.extend([0, 0, 0, 0x10, 0, 0x18, 0, 11, 0, 3, 0, 0x10, 0, 0, 0, 0]);
        [&parent.to_be_bytes()[..], &sensitive, &sized(&public), &[0, 0], &[0; 4]].concat()
    };
    // CreatePrimary in the null hierarchy, whose authorisation is always empty: signs, and counts.
    let counting = create(0x4000_0007, 0x0004_0072, b"own");
    let mut answer = [0; belvedere_tpm::MAXIMUM];
    let command = with_password(0x131, 0x4000_0007, &[], &counting[4..]);
    belvedere_tpm::Tpm::exchange(tpm, &command, &mut answer).unwrap();
    assert_eq!(answer[6..10], [0; 4], "an object of one's own");
    let own = LoadedObject(u32::from_be_bytes(answer[10..14].try_into().unwrap()));
    for _ in 0..64 {
        let wrong = commands::sign(tpm, own, guess, &[1; 32]);
        assert!(wrong.is_err());
        tpm.raw(&with_password(0x153, KEYS_PARENT, b"guess", &create(0, 0x0004_0072, &[])[4..]));
    }
    commands::flush(tpm, own.0).unwrap();
    assert!(commands::state(tpm).unwrap().in_lockout);
}

#[test]
fn what_provisioning_changes_in_the_tpm_takes_the_device_key_from_nobody() {
    let mut appliance = Appliance::new();
    appliance.start(false);
    let key = create(&mut appliance.tpm).unwrap();
    appliance.signs(&key);
    change_what_can_be_changed(&mut appliance.tpm);
    appliance.signs(&key);
    appliance.restart();
    appliance.signs(&key);
    // Again, and this time a full reset comes after it: a stick makes a new key.
    change_what_can_be_changed(&mut appliance.tpm);
    appliance.tpm.power_cycle();
    appliance.start(true);
    let another = create(&mut appliance.tpm).unwrap();
    appliance.signs(&another);
    appliance.restart();
    appliance.signs(&another);
    assert!(!appliance.told("somebody else") && !appliance.told("goes on"), "{:?}", appliance.told);
}

#[test]
fn an_endorsement_authorisation_that_somebody_else_set_is_told_and_holds_up_nothing() {
    let mut appliance = Appliance::new();
    commands::hierarchy_change_auth(&mut appliance.tpm, Hierarchy::Endorsement, NO_PASSWORD, b"theirs").unwrap();
    appliance.start(false);
    assert!(appliance.told("somebody else set the endorsement"), "{:?}", appliance.told);
    let key = create(&mut appliance.tpm).unwrap();
    appliance.restart();
    assert!(appliance.told("somebody else set the endorsement"), "{:?}", appliance.told);
    appliance.signs(&key);
}

#[test]
fn a_parent_that_is_gone_or_is_another_key_is_made_again_and_the_device_key_still_loads() {
    let mut appliance = Appliance::new();
    let auth = appliance.start(false).owner_auth();
    let owner = Authorization::Password(auth.as_slice());
    let key = create(&mut appliance.tpm).unwrap();
    let (parent, tpm) = (LoadedObject(KEYS_PARENT), &mut appliance.tpm);
    commands::evict_control(tpm, owner, parent, KEYS_PARENT).unwrap();
    let error = sign(tpm, &key, &[1; 32]).unwrap_err();
    assert!(error.contains("a restart makes it again"), "{error}");
    appliance.restart();
    assert!(appliance.told("making the keys' parent"), "{:?}", appliance.told);
    appliance.signs(&key);
    // A key that signs.
    let tpm = &mut appliance.tpm;
    commands::evict_control(tpm, owner, parent, KEYS_PARENT).unwrap();
    let made = commands::create_storage_key(tpm, Hierarchy::Owner, owner).unwrap();
    let signing = commands::create_signing_key(tpm, made, b"").unwrap();
    let loaded = commands::load(tpm, made, &signing).unwrap();
    commands::evict_control(tpm, owner, loaded, KEYS_PARENT).unwrap();
    assert_eq!(commands::has_storage_key(tpm, KEYS_PARENT), Ok(Some(false)));
    appliance.restart();
    assert!(appliance.told("removing what is"), "{:?}", appliance.told);
    appliance.signs(&key);
    appliance.restart();
    assert!(appliance.told.is_empty(), "{:?}", appliance.told);
}

/// A parent with an authorisation value, put there before the first start, has the same name as ours.
#[test]
fn a_parent_that_was_there_before_the_first_start_is_not_taken_for_ours() {
    let mut appliance = Appliance::new();
    let tpm = &mut appliance.tpm;
    let public: [u8; 26] = [0, 0x23, 0, 11, 0, 3, 4, 0x72, 0, 0, 0, 6, 0, 128, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0];
    let parameters = [&[0, 10, 0, 6][..], b"theirs", &[0, 0, 0, 26], &public, &[0; 6]].concat();
    let mut answer = [0; belvedere_tpm::MAXIMUM];
    belvedere_tpm::Tpm::exchange(tpm, &with_password(0x131, OWNER, &[], &parameters), &mut answer).unwrap();
    assert_eq!(answer[6..10], [0; 4]);
    let theirs = LoadedObject(u32::from_be_bytes(answer[10..14].try_into().unwrap()));
    commands::evict_control(tpm, NO_PASSWORD, theirs, KEYS_PARENT).unwrap();
    commands::flush(tpm, theirs.0).unwrap();
    assert_eq!(commands::has_storage_key(tpm, KEYS_PARENT), Ok(Some(true)));
    assert!(create(tpm).is_err());
    appliance.tpm.power_cycle();
    appliance.start(false);
    let key = create(&mut appliance.tpm).unwrap();
    appliance.restart();
    appliance.signs(&key);
}

/// The first start of such a machine ended in red, and every one after it.
#[test]
fn a_tpm_without_room_for_the_parent_starts_and_has_a_device_key_once_there_is_room() {
    let mut appliance = Appliance::new();
    let others = 0x8100_0001;
    let mut places = (others..KEYS_PARENT).take(512);
    let full = places.by_ref().find(|place| commands::persist_storage_key(&mut appliance.tpm, NO_PASSWORD, *place).is_err());
    let full = full.expect("a TPM with room for less than 512");
    // Room for our indices, and not for another key.
    commands::evict_control(&mut appliance.tpm, NO_PASSWORD, LoadedObject(full - 1), full - 1).unwrap();
    appliance.tpm.power_cycle();
    let secrets = appliance.start(false);
    assert!(appliance.told("making the keys' parent: "), "{:?}", appliance.told);
    let error = create(&mut appliance.tpm).unwrap_err();
    assert!(error.contains("clear the TPM in the firmware's setup"), "{error}");
    let auth = secrets.owner_auth();
    let owner = Authorization::Password(auth.as_slice());
    commands::evict_control(&mut appliance.tpm, owner, LoadedObject(others), others).unwrap();
    appliance.restart();
    let key = create(&mut appliance.tpm).unwrap();
    appliance.restart();
    appliance.signs(&key);
}

/// Wrapped under another parent, as by an early build of ours, or in another TPM.
#[test]
fn a_key_of_another_parent_says_what_makes_a_new_one() {
    let mut appliance = Appliance::new();
    appliance.start(false);
    let mut key = create(&mut appliance.tpm).unwrap();
    key.private[20] ^= 1;
    let error = sign(&mut appliance.tpm, &key, &[0; 32]).unwrap_err();
    assert!(error.contains("a full reset and a new provisioning make a new one"), "{error}");
}
