//! Lists of signatures as the firmware's variables hold them, a release's section with updates of them, and programs in files
//! of the ESPs: what the bootloader reads before it has the firmware change its key databases.
#![no_main]

use belvedere_secure_boot::lists::{appended, has_all, signatures};
use belvedere_secure_boot::program::Program;
use belvedere_secure_boot::updates::{MAXIMUM, decode_section, encode, pending};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(updates) = decode_section(data) {
        assert!((1..=MAXIMUM).contains(&updates.len()));
        let bytes = encode(&updates).expect("what was read can be written");
        assert!(data.starts_with(&bytes), "what was read is written the same way");
        // Applied one by one to nothing, each becomes one that is there.
        let (mut db, mut dbx) = (Vec::new(), Vec::new());
        while let Some(next) = pending(&updates, &db, &dbx).ok().and_then(|left| left.first()) {
            let list = if next.database.name() == "db" { &mut db } else { &mut dbx };
            *list = appended(list, next.lists).expect("its lists were read");
            assert!(has_all(list, next.lists).unwrap(), "an update that never ends");
        }
    }
    if let Ok(all) = signatures(data) {
        assert!(has_all(data, data).unwrap());
        assert_eq!(appended(data, data).as_deref(), Ok(data), "once more changes nothing");
        if let Some(program) = Program::read(data) {
            let _ = program.is_forbidden_by(&all);
        }
    }
    let _ = Program::read(data);
});
