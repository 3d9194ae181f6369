use super::*;
use belvedere_device_protocol::Endpoint;
use belvedere_device_protocol::provisioning::Broker;
use belvedere_provisioning_archive::{Listed, write};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

#[path = "executor_fakes.rs"]
mod fakes;
pub use fakes::*;

fn provision(world: &mut impl World, stick: &mut impl Stick) -> Option<Outcome> {
    super::provision(world, stick, &Elsewhere::default())
}

const RETIRED: &str = "belvedere-used-archive";
const ARCHIVE: &str = "certificates-omni_front_door.zip";

fn stick_with(files: &[(&str, Vec<u8>)]) -> Rc<RefCell<Durable>> {
    let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
    Rc::new(RefCell::new(Durable { files, ..Durable::default() }))
}

fn good_stick() -> Rc<RefCell<Durable>> {
    stick_with(&[(ARCHIVE, write(&archive()))])
}

fn power_on(durable: &Rc<RefCell<Durable>>, cut: Option<u32>) -> (Fake, FakeStick) {
    let operation = Rc::new(RefCell::new((0, cut)));
    let fake = Fake {
        durable: Rc::clone(durable),
        now: ISSUED + 10,
        lights: BTreeSet::new(),
        shown: Vec::new(),
        network: "up",
        reverted: false,
        refuse: None,
        foreign_key: false,
        tpm: Some(true),
        fail_store: false,
        broker: None,
        trusted: String::new(),
        operation: Rc::clone(&operation),
    };
    (fake, FakeStick(Rc::clone(durable), operation))
}

fn result_line(durable: &Rc<RefCell<Durable>>) -> String {
    let durable = durable.borrow();
    let text = String::from_utf8(durable.ours[RESULT_FILE].clone()).unwrap();
    text.lines().next().unwrap().to_owned()
}

#[test]
fn a_good_stick_provisions() {
    let durable = good_stick();
    let (mut world, mut stick) = power_on(&durable, None);
    let outcome = provision(&mut world, &mut stick).unwrap();
    assert!(outcome.succeeded, "{outcome:?}");
    assert_eq!(world.shown, [Condition::Registering]);
    assert!(world.lights.is_empty());
    let durable_now = durable.borrow();
    let stored = durable_now.identity.clone().unwrap();
    assert_eq!((stored.identity.thing_name.as_str(), stored.identity.generation), (THING, 1));
    assert!(stored.network_kept && durable_now.network_kept);
    assert!(durable_now.files.is_empty(), "the archive is wiped");
    assert!(String::from_utf8_lossy(&durable_now.ours["kern.log"]).contains("usb 1-1"));
    for file in ["occ.log", "ota_agent.log", "syslog.log"] {
        assert!(durable_now.ours.contains_key(file));
    }
    drop(durable_now);
    assert!(result_line(&durable).starts_with("SUCCEEDED (provisioned): "));
    assert_eq!(stored.wrapped_key, Some(wrapped()));
    assert!(!serde_json::to_string(&stored).unwrap().contains("PRIVATE KEY"));
    assert!(!outcome.details.iter().any(|line| line.contains("TPM")), "{outcome:?}");
}

#[test]
fn without_a_tpm_the_key_is_in_software_and_the_stick_says_so() {
    let durable = good_stick();
    let (mut world, mut stick) = power_on(&durable, None);
    world.tpm = None;
    let outcome = provision(&mut world, &mut stick).unwrap();
    assert!(outcome.succeeded && outcome.details.contains(&SOFTWARE_KEY.to_owned()), "{outcome:?}");
    let stored = durable.borrow().identity.clone().unwrap();
    let DeviceKeyReference::Software { private_key_pem } = &stored.identity.key else { panic!("{stored:?}") };
    let all = format!("{:?}{:?}{:?}", durable.borrow().ours, outcome, stored);
    assert!(!all.contains(private_key_pem.lines().nth(1).unwrap()));
    assert_eq!(stored.wrapped_key, None);
}

#[test]
fn a_tpm_that_does_not_work_is_no_reason_for_a_key_in_software() {
    failure(good_stick(), "key", |world| world.tpm = Some(false));
}

#[test]
fn a_broker_that_the_service_names_is_kept_and_without_one_the_archives_endpoint_holds() {
    let endpoint = Endpoint { host: "broker.example".into(), port: 8884 };
    for broker in [None, Some(Broker { endpoint, password: "swordfish".into() })] {
        let durable = good_stick();
        let (mut world, mut stick) = power_on(&durable, None);
        world.broker = broker.clone();
        let outcome = provision(&mut world, &mut stick).unwrap();
        let stored = durable.borrow().identity.clone().unwrap().identity;
        let archived = archive().configuration.endpoints;
        assert_eq!(stored.endpoints.mqtt, broker.as_ref().map_or(archived.mqtt, |b| b.endpoint.clone()));
        assert_eq!(stored.endpoints.https, archived.https);
        assert_eq!(stored.mqtt_password, broker.map(|b| b.password));
        assert!(!format!("{outcome:?}{stored:?}{:?}", durable.borrow().ours).contains("swordfish"));
        // An identity of an earlier release has no such member.
        let text = serde_json::to_string(&stored).unwrap();
        assert_eq!(text.contains("mqtt_password"), stored.mqtt_password.is_some());
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), stored);
    }
}

#[test]
fn the_stick_left_in_does_not_lose_its_good_result() {
    let durable = good_stick();
    let (mut world, mut stick) = power_on(&durable, None);
    provision(&mut world, &mut stick);
    let (mut world, mut stick) = power_on(&durable, None);
    assert_eq!(provision(&mut world, &mut stick), None);
    assert!(result_line(&durable).starts_with("SUCCEEDED"));
    assert!(world.shown.is_empty());
}

#[test]
fn provisioning_again_replaces_the_identity_and_counts() {
    let durable = good_stick();
    durable.borrow_mut().identity = Some(stored(4));
    let (mut world, mut stick) = power_on(&durable, None);
    assert!(provision(&mut world, &mut stick).unwrap().succeeded);
    assert_eq!(durable.borrow().identity.as_ref().unwrap().identity.generation, 5);
}

/// Runs with one fault, and checks that the appliance is as it was.
fn failure(durable: Rc<RefCell<Durable>>, reason: &str, fault: impl Fn(&mut Fake)) {
    for before in [None, Some(stored(3))] {
        let files = durable.borrow().files.clone();
        let durable = Rc::new(RefCell::new(Durable { identity: before.clone(), files, ..Durable::default() }));
        let (mut world, mut stick) = power_on(&durable, None);
        fault(&mut world);
        let outcome = provision(&mut world, &mut stick).unwrap();
        assert_eq!((outcome.succeeded, outcome.reason), (false, reason));
        assert_eq!(durable.borrow().identity, before);
        assert!(!durable.borrow().network_kept);
        assert_eq!(world.shown.contains(&Condition::Registering), world.reverted, "what was tried is reverted");
        let quiet = reason == "no_archive" && before.is_some();
        let expected = if quiet { BTreeSet::new() } else { BTreeSet::from([Condition::Error]) };
        assert_eq!(world.lights, expected);
        let line = result_line(&durable);
        assert!(line.starts_with(&format!("FAILED ({reason}): ")), "{line}");
    }
}

#[test]
fn no_archive() {
    failure(stick_with(&[("photo.jpg", vec![1])]), "no_archive", |_| ());
}

#[test]
fn two_archives() {
    let bytes = write(&archive());
    failure(stick_with(&[(ARCHIVE, bytes.clone()), ("certificates-omni_b.zip", bytes)]), "several_archives", |_| ());
}

#[test]
fn truncated_archive() {
    let mut bytes = write(&archive());
    bytes.truncate(1000);
    failure(stick_with(&[(ARCHIVE, bytes)]), "archive_damaged", |_| ());
}

#[test]
fn archive_too_large() {
    failure(stick_with(&[(ARCHIVE, vec![0; (1 << 20) + 1])]), "archive_too_large", |_| ());
}

#[test]
fn wrong_configuration() {
    let mut wrong = archive();
    wrong.configuration.device_id = "../x".into();
    failure(stick_with(&[(ARCHIVE, write(&wrong))]), "archive_configuration", |_| ());
}

#[test]
fn boot_d8_a_strangers_stick_changes_nothing_on_an_operating_appliance() {
    let strangers = write(&strangers_archive());
    let durable = stick_with(&[(ARCHIVE, strangers.clone())]);
    durable.borrow_mut().identity = Some(stored(3));
    let (mut world, mut stick) = power_on(&durable, None);
    let outcome = provision(&mut world, &mut stick).unwrap();
    assert_eq!((outcome.succeeded, outcome.reason), (false, "already_provisioned"));
    assert_eq!(durable.borrow().identity, Some(stored(3)));
    assert_eq!(durable.borrow().files[ARCHIVE], strangers, "the archive is good for another appliance");
    assert!(world.trusted.is_empty() && !world.reverted, "nothing was tried");
    assert_eq!(world.lights, BTreeSet::from([Condition::Error]));
    assert!(result_line(&durable).contains("10.0.2.2:8883 as device-old"), "{}", result_line(&durable));
}

#[test]
fn boot_d8_the_owners_authorities_hold_whatever_the_stick_brings() {
    // Changed on its way: the owner's own claim, and a stranger's authority beside the owner's.
    let mut changed = archive();
    changed.service_ca_pem.push_str(&strangers_archive().service_ca_pem);
    let durable = stick_with(&[(ARCHIVE, write(&changed))]);
    durable.borrow_mut().identity = Some(stored(3));
    let (mut world, mut stick) = power_on(&durable, None);
    assert!(provision(&mut world, &mut stick).unwrap().succeeded);
    assert_eq!(world.trusted, archive().service_ca_pem);
    assert_eq!(durable.borrow().identity.as_ref().unwrap().identity.service_ca_pem, archive().service_ca_pem);
}

#[test]
fn field_case_a_clock_that_is_a_day_ahead() {
    let durable = good_stick();
    let (mut world, mut stick) = power_on(&durable, None);
    world.now = ISSUED + 86_400;
    let outcome = provision(&mut world, &mut stick).unwrap();
    assert!(outcome.succeeded, "{outcome:?}");
    assert_eq!(world.now, ISSUED, "the service took the claim: its time is right");
    assert_eq!(durable.borrow().identity.as_ref().unwrap().provisioned, ISSUED);
}

#[test]
fn a_claim_that_the_service_refuses_and_that_is_old_by_our_clock_has_expired() {
    let error = ClaimError::Refused { what: "it closed the connection".into() };
    failure(good_stick(), "claim_expired", |world| {
        world.now = ISSUED + 300;
        world.refuse = Some(error.clone());
    });
}

#[test]
fn boot_d13_the_clock_is_as_it_was_when_provisioning_fails() {
    for now in [100, ISSUED + 86_400] {
        for fault in ["network", "service", "key", "disk"] {
            let durable = good_stick();
            let (mut world, mut stick) = power_on(&durable, None);
            world.now = now;
            match fault {
                "network" => world.network = "down",
                "service" => world.refuse = Some(ClaimError::Unreachable { service: "x".into(), what: "y".into() }),
                "key" => world.foreign_key = true,
                _ => world.fail_store = true,
            }
            assert!(!provision(&mut world, &mut stick).unwrap().succeeded);
            assert_eq!(world.now, now, "{fault}");
        }
    }
}

#[test]
fn boot_d13_an_impossible_time_is_refused_before_anything_is_tried() {
    let mut early = archive();
    early.configuration.issued = clock::RELEASE_DATE - 86_400;
    early.configuration.claim_expires = early.configuration.issued + 300;
    failure(stick_with(&[(ARCHIVE, write(&early))]), "clock", |_| ());
}

#[test]
fn a_second_archive_on_another_volume_is_one_too_many() {
    let durable = good_stick();
    let (mut world, mut stick) = power_on(&durable, None);
    let elsewhere = Elsewhere {
        archives: vec!["b.zip on volume sda2".into()],
        notes: vec!["Volume sda3: x".into()],
        larger: Some("x".into()),
    };
    let outcome = super::provision(&mut world, &mut stick, &elsewhere).unwrap();
    assert_eq!(outcome.reason, "several_archives");
    assert!(outcome.message.contains("b.zip on volume sda2"), "{outcome:?}");
    assert_eq!(outcome.details, ["Volume sda3: x"]);
}

/// The light is that of a stick without an archive: an appliance in operation is plugged in any stick.
#[test]
fn field_case_the_reason_is_the_larger_volume_that_cannot_be_read() {
    let why = "the stick is formatted with exFAT, not with FAT32: format it with FAT32";
    let elsewhere = Elsewhere { larger: Some(why.into()), ..Elsewhere::default() };
    for (identity, lights) in [(None, BTreeSet::from([Condition::Error])), (Some(stored(1)), BTreeSet::new())] {
        let durable = Rc::new(RefCell::new(Durable { identity, ..Durable::default() }));
        let (mut world, mut stick) = power_on(&durable, None);
        super::provision(&mut world, &mut stick, &elsewhere).unwrap();
        assert_eq!(result_line(&durable), format!("FAILED (stick_unreadable): {why}"));
        assert_eq!(world.lights, lights);
    }
    // What is wrong with an archive that was found is said.
    let durable = stick_with(&[(ARCHIVE, vec![1])]);
    let (mut world, mut stick) = power_on(&durable, None);
    assert_eq!(super::provision(&mut world, &mut stick, &elsewhere).unwrap().reason, "archive_damaged");
}

#[test]
fn network_not_up() {
    failure(good_stick(), "network_down", |world| world.network = "down");
}

#[test]
fn network_configuration_refused() {
    failure(good_stick(), "network_configuration", |world| world.network = "invalid");
}

#[test]
fn service_unreachable() {
    let error = ClaimError::Unreachable { service: "10.0.2.2:8883".into(), what: "refused".into() };
    failure(good_stick(), "service_unreachable", |world| world.refuse = Some(error.clone()));
}

#[test]
fn service_untrusted() {
    let error = ClaimError::Untrusted { service: "10.0.2.2:8883".into(), what: "UnknownIssuer".into() };
    failure(good_stick(), "service_untrusted", |world| world.refuse = Some(error.clone()));
}

#[test]
fn service_refused() {
    let error = ClaimError::Refused { what: "403 Forbidden: the device was deleted".into() };
    failure(good_stick(), "service_refused", |world| world.refuse = Some(error.clone()));
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    failure(good_stick(), "service_answer", |world| world.foreign_key = true);
}

#[test]
fn a_full_disk() {
    failure(good_stick(), "storage", |world| world.fail_store = true);
}

#[test]
fn a_clock_in_1970_is_set_and_the_claim_is_used() {
    let durable = good_stick();
    let (mut world, mut stick) = power_on(&durable, None);
    world.now = 100;
    assert!(provision(&mut world, &mut stick).unwrap().succeeded);
    assert_eq!(world.now, ISSUED);
}

#[test]
fn a_stick_that_cannot_be_wiped_still_provisions_and_says_so() {
    struct WriteProtected(FakeStick);
    impl Stick for WriteProtected {
        fn list(&mut self) -> Result<Vec<Listed>, String> {
            self.0.list()
        }
        fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
            self.0.read(name, limit)
        }
        fn has_ours(&mut self, _: &str) -> bool {
            false
        }
        fn write_ours(&mut self, _: &str, _: &[u8]) -> Result<(), String> {
            Err("write-protected".into())
        }
        fn retire(&mut self, _: &str) -> Result<(), String> {
            Err("write-protected".into())
        }
        fn erase_retired(&mut self) -> Result<(), String> {
            Ok(())
        }
    }
    let durable = good_stick();
    let (mut world, stick) = power_on(&durable, None);
    let outcome = provision(&mut world, &mut WriteProtected(stick)).unwrap();
    assert!(outcome.succeeded);
    assert!(outcome.details.iter().any(|line| line.contains("delete it yourself")), "{outcome:?}");
}

#[test]
fn power_cut_at_every_operation_leaves_the_old_or_the_new_identity_and_the_stick_finishes_it() {
    // The identity before, and whether the new key is in a TPM.
    let mut earlier = stored(3);
    earlier.keep_key(&FakeTpmKey::new());
    for (before, tpm) in
        [(None, Some(true)), (Some(stored(3)), Some(true)), (Some(earlier), Some(true)), (Some(stored(3)), None)]
    {
        let generation = before.as_ref().map_or(0, |stored| stored.identity.generation) + 1;
        // How many operations an undisturbed run has.
        let durable = good_stick();
        let (mut world, mut stick) = power_on(&durable, None);
        world.tpm = tpm;
        provision(&mut world, &mut stick);
        let operations = world.operation.borrow().0;
        assert!(operations >= 11, "{operations}");
        for cut in 1..=operations {
            let durable = good_stick();
            durable.borrow_mut().identity = before.clone();
            let (mut world, mut stick) = power_on(&durable, Some(cut));
            world.tpm = tpm;
            provision(&mut world, &mut stick);
            {
                let now = durable.borrow();
                let old = now.identity == before;
                let new = now.identity.as_ref().is_some_and(|i| i.identity.thing_name == THING);
                assert!(old || new, "cut {cut}");
                assert!(old || new && now.identity.as_ref().unwrap().identity.generation == generation);
                let whole = now.identity.as_ref().is_none_or(|stored| {
                    let in_the_tpm = matches!(stored.identity.key, DeviceKeyReference::Provisioning { .. });
                    in_the_tpm == stored.wrapped_key.is_some()
                });
                assert!(whole, "cut {cut}: the identity and its key are one step");
                assert!(!(now.network_kept && old), "cut {cut}: the new network with the old identity");
                assert!(now.files.contains_key(ARCHIVE) || new, "cut {cut}: the archive is gone without an identity");
            }
            // Power on again with the stick still in: the appliance first finishes what was interrupted.
            let (mut world, mut stick) = power_on(&durable, None);
            world.tpm = tpm;
            let unfinished = |i: &StoredIdentity| !i.network_kept && i.identity.thing_name == THING;
            if world.standing().identity().is_some_and(unfinished) {
                keep_network(&mut world).unwrap();
            }
            provision(&mut world, &mut stick);
            assert!(!world.shown.contains(&Condition::Error), "cut {cut}: a light for an archive that is used up");
            let now = durable.borrow();
            let identity = now.identity.as_ref().unwrap();
            assert_eq!((identity.identity.thing_name.as_str(), identity.network_kept), (THING, true), "cut {cut}");
            assert_eq!(identity.identity.generation, generation, "cut {cut}: counted once");
            assert_eq!(identity.wrapped_key.is_some(), tpm.is_some(), "cut {cut}");
            assert!(now.network_kept, "cut {cut}");
            assert!(now.files.is_empty(), "cut {cut}: the archive is wiped in the end");
            drop(now);
            assert!(result_line(&durable).starts_with("SUCCEEDED"), "cut {cut}");
        }
    }
}
