//! Updates of the firmware's key databases, on the same machine.

use super::*;

/// A program with these sections, "signed" with these bytes.
fn signed(sections: &[(&str, &[u8])], signature: &[u8]) -> Vec<u8> {
    let (optional, table) = (0x58, 0x58 + 0xf0);
    let mut file = std::vec![0; 0x400];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x44 + 2] = sections.len() as u8;
    file[0x44 + 16] = 0xf0;
    file[optional..optional + 2].copy_from_slice(&[0x0b, 2]);
    file[optional + 60..optional + 64].copy_from_slice(&0x400u32.to_le_bytes());
    file[optional + 108] = 16;
    for (number, (name, content)) in sections.iter().enumerate() {
        let (header, place) = (table + 40 * number, file.len() as u32);
        file[header..header + name.len()].copy_from_slice(name.as_bytes());
        for (at, value) in [(8, content.len() as u32), (16, content.len() as u32), (20, place)] {
            file[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(content);
    }
    let place = file.len() as u32;
    file[optional + 144..optional + 148].copy_from_slice(&place.to_le_bytes());
    file[optional + 148..optional + 152].copy_from_slice(&(signature.len() as u32).to_le_bytes());
    file.extend_from_slice(signature);
    file
}

fn sample_updates(entries: &[(Database, Vec<u8>)]) -> Vec<u8> {
    let bytes: Vec<(Database, Vec<u8>)> =
        entries.iter().map(|(database, lists)| (*database, update::encode(b"kek", lists))).collect();
    let updates: Vec<Update<'_>> = bytes.iter().map(|(database, bytes)| Update::new(*database, bytes).unwrap()).collect();
    encode_updates(&updates).unwrap()
}

/// Adds a second certificate, revokes the first one and an old release's hash.
fn three_updates() -> Vec<u8> {
    sample_updates(&[
        (Database::Db, lists::list(X509, [7; 16], &[b"second certificate"])),
        (Database::Dbx, lists::list(SHA256, [7; 16], &[&[9; 32]])),
        (Database::Dbx, lists::list(X509, [7; 16], &[b"first certificate"])),
    ])
}

fn kernel(level: u32, updates: Option<&[u8]>, signature: &[u8]) -> Vec<u8> {
    let level = release_section(level);
    let mut sections = std::vec![(RELEASE, level.as_bytes())];
    sections.extend(updates.map(|updates| (UPDATES, updates)));
    signed(&sections, signature)
}

/// Slot b was committed, with updates; all that must start is signed with the second certificate.
fn with_updates() -> Fake {
    let table = Table::empty(Slot::A).committed(Slot::A).written(Slot::B, 0).committed(Slot::B);
    let mut fake = Fake::new(table);
    fake.databases[0] = lists::list(X509, [7; 16], &[b"first certificate"]);
    let updates = three_updates();
    let new = kernel(0, Some(&updates), b"<second certificate>");
    let bootloader = signed(&[], b"<second certificate>");
    fake.files = std::vec![
        (File::Bootloader, bootloader.clone()),
        (File::Bootloader, bootloader),
        (File::Kernel(Slot::A), kernel(0, None, b"<first certificate>")),
        (File::Kernel(Slot::B), new),
    ];
    fake
}

fn applied(fake: &Fake) -> usize {
    let section = three_updates();
    let updates = belvedere_secure_boot::updates::decode_section(&section).unwrap();
    let [db, dbx] = &fake.databases;
    updates.len() - belvedere_secure_boot::updates::pending(&updates, db, dbx).unwrap().len()
}

#[test]
fn the_updates_of_a_proven_release_are_applied_before_anything_is_measured_and_the_machine_restarts() {
    let mut fake = with_updates();
    fake.boot(1);
    assert_eq!((applied(&fake), fake.restarts, fake.started.len(), fake.measured.len()), (3, 1, 0, 0));
    // The next start has nothing to do, and starts.
    fake.takes = 0;
    fake.boot(1);
    assert_eq!((fake.restarts, fake.started.as_slice()), (1, [(Slot::B, Some(State::Good))].as_slice()));
    assert!(!fake.said.iter().any(|line| line.contains("not updated")), "{:?}", fake.said);
}

#[test]
fn a_release_that_is_not_proven_or_not_the_last_one_changes_nothing() {
    let mut unproven = with_updates();
    let mut table = Table::empty(Slot::A).committed(Slot::A).written(Slot::B, 0);
    table.preferred = Slot::B;
    unproven.disk = initial(table);
    let mut older = with_updates();
    let mut table = Table::empty(Slot::A).committed(Slot::B).committed(Slot::A);
    table.preferred = Slot::B;
    older.disk = initial(table);
    // A table that was made anew takes all for proven.
    let mut lost = with_updates();
    lost.disk = initial(Table::made_anew(0));
    lost.outcome[Slot::A as usize] = Some(Refusal::Missing);
    for mut fake in [unproven, older, lost] {
        fake.boot(2);
        assert_eq!((applied(&fake), fake.restarts, fake.started.len()), (0, 0, 1));
        assert_eq!(fake.started[0].0, Slot::B);
    }
}

#[test]
fn a_power_cut_or_a_refusal_between_two_updates_leaves_the_rest_to_the_next_start() {
    for takes in 0..3 {
        let mut fake = with_updates();
        fake.takes = takes;
        fake.boot(1);
        assert_eq!(applied(&fake), takes);
        // What the TPM saw may not be started behind; what it did not see may.
        assert_eq!((fake.restarts, fake.started.len()), if takes == 0 { (0, 1) } else { (1, 0) });
        assert!(fake.said.iter().any(|line| line.contains("not updated") && line.contains("SECURITY VIOLATION")));
        fake.takes = usize::MAX;
        fake.boot(1);
        assert_eq!(applied(&fake), 3);
    }
}

#[test]
fn a_firmware_that_takes_updates_and_forgets_them_does_not_keep_the_next_slot_from_its_turn() {
    let mut fake = with_updates();
    fake.loses = true;
    for _ in 0..=STARTS {
        fake.boot(2);
    }
    assert_eq!(fake.restarts, u32::from(STARTS));
    assert_eq!(fake.started.len(), 1);
    assert_eq!(fake.started[0].0, Slot::A);
    let said = |word: &str| fake.said.iter().filter(|line| line.contains(word)).count();
    assert_eq!(
        (said("took the update, and does not have it"), said("is updated")),
        (usize::from(STARTS), 0),
        "{:?}",
        fake.said
    );
}

#[test]
fn nothing_is_applied_that_would_leave_no_bootloader_no_release_or_no_minimum_slot() {
    let waits = |change: &dyn Fn(&mut Fake), word: &str| {
        let mut fake = with_updates();
        change(&mut fake);
        fake.boot(1);
        assert_eq!((applied(&fake), fake.restarts, fake.started.len()), (0, 0, 1), "{word}: {:?}", fake.said);
        assert!(fake.said.iter().any(|line| line.contains("not updated") && line.contains(word)), "{:?}", fake.said);
    };
    let first = b"<first certificate>";
    waits(&|fake| fake.files[1].1 = signed(&[], first), "Bootloader: it would not start any more");
    waits(&|fake| drop(fake.files.drain(..2)), "no ESP");
    waits(&|fake| fake.files[3].1 = kernel(0, Some(&three_updates()), first), "Kernel(B): it would not start any more");
    let minimum = |fake: &mut Fake, image: Vec<u8>| {
        fake.disk = initial(
            fake.table()
                .with(Slot::Minimum, belvedere_boot_slots::Record { state: State::Good, rollback_level: 0, starts: 0 }),
        );
        fake.files.push((File::Kernel(Slot::Minimum), image));
    };
    waits(&|fake| minimum(fake, kernel(0, Some(&three_updates()), first)), "Kernel(Minimum): it would not start any more");
    waits(&|fake| minimum(fake, kernel(0, None, b"<second certificate>")), "Kernel(Minimum): its release does not know");
    let two = sample_updates(&[
        (Database::Db, lists::list(X509, [7; 16], &[b"second certificate"])),
        (Database::Dbx, lists::list(SHA256, [7; 16], &[&[9; 32]])),
    ]);
    waits(&|fake| minimum(fake, kernel(0, Some(&two), b"<second certificate>")), "its release does not know");

    // One that knows them, and one that the fuses keep out already, are no obstacle.
    let mut fake = with_updates();
    minimum(&mut fake, kernel(0, Some(&three_updates()), b"<second certificate>"));
    fake.boot(1);
    assert_eq!((applied(&fake), fake.restarts), (3, 1));
    let mut fake = with_updates();
    minimum(&mut fake, kernel(0, None, first));
    (fake.fuses, fake.levels[Slot::B as usize]) = (1, 1);
    let newer = belvedere_boot_slots::Record { state: State::Good, rollback_level: 1, starts: 0 };
    fake.disk = initial(fake.table().with(Slot::B, newer));
    fake.files[3].1 = kernel(1, Some(&three_updates()), b"<second certificate>");
    fake.boot(1);
    assert_eq!((applied(&fake), fake.restarts), (3, 1), "{:?}", fake.said);
}

#[test]
fn a_hash_is_that_of_the_file_on_the_disk() {
    let mut fake = with_updates();
    let own = Program::read(&fake.files[0].1).unwrap().hash;
    let section = sample_updates(&[(Database::Dbx, lists::list(SHA256, [7; 16], &[&own]))]);
    fake.files[3].1 = kernel(0, Some(&section), b"<second certificate>");
    fake.boot(1);
    assert!(fake.restarts == 0 && fake.said.iter().any(|line| line.contains("Bootloader: it would not start")));
}
