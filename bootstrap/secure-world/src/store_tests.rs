use super::*;
use belvedere_durable::block_model::{Fate, ModelDevice, cut_everywhere};

/// A file's bytes; none when there is no such file.
fn read_all<D: BlockDevice>(store: &mut Store<D>, name: &str) -> Option<Result<Vec<u8>, Code>> {
    let handle = store.open(name, false).ok()?;
    let mut bytes = vec![0; LARGEST as usize];
    let length = store.read(handle, 0, &mut bytes);
    store.close(handle);
    Some(length.map(|length| {
        bytes.truncate(length);
        bytes
    }))
}

fn content<D: BlockDevice>(store: &mut Store<D>, name: &str) -> Option<Vec<u8>> {
    read_all(store, name).map(Result::unwrap)
}

fn put<D: BlockDevice>(store: &mut Store<D>, name: &str, bytes: &[u8]) -> Result<(), Code> {
    let handle = store.open(name, true)?;
    store.write(handle, 0, bytes)?;
    store.close(handle);
    Ok(())
}

#[test]
fn files_leave_the_marks_alone() {
    let mut device = device(1);
    for place in MARKS {
        device.write_durably(place, &mark()).unwrap();
    }
    let mut store = Store::open(device).unwrap();
    for size in [5000, LARGEST as usize, 1] {
        put(&mut store, "file", &vec![7; size]).unwrap();
    }
    let after = store.device.power_on(Fate::Lost);
    for place in MARKS {
        let mut sector = [0; MARK_SIZE];
        after.read_at(place, &mut sector).unwrap();
        assert_eq!(sector, mark());
    }
    assert_eq!(Store::open(after).unwrap().heads[0].name, "file");
}

fn device(places: usize) -> ModelDevice {
    ModelDevice::new(vec![0; places * PLACE as usize])
}

#[test]
fn files_are_there_again_after_a_start() {
    let mut store = Store::open(device(3)).unwrap();
    put(&mut store, "dirf.db", b"first").unwrap();
    put(&mut store, "1", &[7; 5000]).unwrap();
    let handle = store.open("1", false).unwrap();
    store.write(handle, 6000, b"end").unwrap();
    store.truncate(handle, 6002).unwrap();
    assert_eq!(put(&mut store, "2", b"x").and_then(|()| put(&mut store, "3", b"x")), Err(Code(0xffff_3041)));
    store.remove("2").unwrap();
    let mut again = Store::open(store.device.power_on(Fate::Lost)).unwrap();
    assert_eq!(content(&mut again, "dirf.db").unwrap(), b"first");
    let one = content(&mut again, "1").unwrap();
    assert_eq!((one.len(), &one[4999..5001], &one[6000..]), (6002, &[7, 0][..], &b"en"[..]));
    assert_eq!(content(&mut again, "2"), None);
    again.rename("1", "2", false).unwrap();
    assert_eq!(again.rename("2", "dirf.db", false), Err(Code(0xffff_0003)));
    again.rename("2", "dirf.db", true).unwrap();
    assert_eq!(content(&mut again, "dirf.db"), Some(one));
    assert_eq!(again.open("1", false), Err(Code::NOT_FOUND));
}

#[test]
fn nothing_is_written_into_the_neighbour() {
    let mut store = Store::open(device(2)).unwrap();
    put(&mut store, "a", b"a").unwrap();
    put(&mut store, "b", b"b").unwrap();
    let handle = store.open("a", false).unwrap();
    let full = vec![1; LARGEST as usize];
    store.write(handle, 0, &full).unwrap();
    assert!(store.write(handle, 1, &full).is_err() && store.write(handle, u64::MAX, &[1]).is_err());
    assert!(store.truncate(handle, LARGEST + 1).is_err());
    assert_eq!(content(&mut store, "b").unwrap(), b"b");
}

/// A store with files in it, as it is on the medium.
fn filled() -> ModelDevice {
    let mut store = Store::open(device(4)).unwrap();
    for place in MARKS {
        store.device.write_durably(place, &mark()).unwrap();
    }
    put(&mut store, "kept", b"kept").unwrap();
    put(&mut store, "changed", &[1; SECTOR]).unwrap();
    put(&mut store, "long", &[3; 2 * CONTENT]).unwrap();
    // Heads and blocks that were written an even and an odd number of times.
    let long = store.open("long", false).unwrap();
    store.write(long, 0, &[4; CONTENT]).unwrap();
    store.device.power_on(Fate::Lost)
}

const FILES: [(&str, fn() -> Vec<u8>); 3] = [
    ("kept", || b"kept".to_vec()),
    ("changed", || vec![1; SECTOR]),
    ("long", || [vec![4; CONTENT], vec![3; CONTENT]].concat()),
];

fn assert_all_there(device: ModelDevice, when: &str) {
    let mut store = Store::open(device).unwrap();
    for (name, bytes) in FILES {
        assert_eq!(read_all(&mut store, name), Some(Ok(bytes())), "{when}: {name}");
    }
    assert!(MARKS.iter().any(|&place| store.is_marked(place)), "{when}");
}

/// Two copies of everything that [`filled`] has, by the first sector of each.
fn pairs() -> Vec<[usize; 2]> {
    let sector = |at: u64| at as usize / SECTOR;
    let blocks = |place: usize, blocks: usize| {
        let heads = [0, BLOCK].map(|copy| sector(place as u64 * PLACE + copy));
        std::iter::once(heads).chain((0..blocks).map(move |number| [0, 1].map(|copy| sector(address(place, copy, number)))))
    };
    [(0, 1), (1, 1), (2, 2)].into_iter().flat_map(|(place, count)| blocks(place, count)).chain([MARKS.map(sector)]).collect()
}

/// The device with a sector that cannot be read, or holds something else.
fn damage(device: &ModelDevice, sector: usize, unreadable: bool) -> ModelDevice {
    if unreadable {
        return device.with_unreadable(sector);
    }
    let mut device = device.clone();
    device.write_durably((sector * SECTOR) as u64, &[0x5a; SECTOR]).unwrap();
    device.power_on(Fate::Lost)
}

/// A bad sector in either copy of anything loses nothing; once it is mended, neither does one in the other copy.
#[test]
fn one_copy_of_anything_can_be_lost_and_is_made_anew() {
    let whole = filled();
    assert_eq!(Store::open(whole.clone()).unwrap().mend().unwrap(), 0, "nothing to do");
    for (pair, copy, unreadable) in
        pairs().into_iter().flat_map(|pair| [(pair, 0, true), (pair, 1, true), (pair, 0, false), (pair, 1, false)])
    {
        let when = format!("{pair:?} {copy} {unreadable}");
        let damaged = damage(&whole, pair[copy], unreadable);
        assert_all_there(damaged.clone(), &when);
        let mut store = Store::open(damaged).unwrap();
        assert!(store.mend().unwrap() > 0, "{when}");
        assert_eq!(store.mend().unwrap(), 0, "{when}");
        let mended = store.device.power_on(Fate::Lost);
        assert_all_there(mended.clone(), &when);
        assert_all_there(damage(&mended, pair[1 - copy], unreadable), &format!("{when}, then the other"));
    }
}

#[test]
fn what_is_nowhere_whole_is_not_read_as_something_else() {
    let [first, second] = pairs()[1];
    let mut store = Store::open(damage(&damage(&filled(), first, true), second, false)).unwrap();
    assert_eq!(read_all(&mut store, "kept"), Some(Err(Code::GENERIC)));
    assert_eq!(store.mend().unwrap(), 0, "of what?");
    let handle = store.open("kept", false).unwrap();
    store.write(handle, 0, b"anew").unwrap();
    assert_eq!(content(&mut store, "kept").unwrap(), b"anew");
}

/// The power goes while a damaged copy is made anew: the whole one is not touched.
#[test]
fn a_power_cut_while_mending_loses_nothing() {
    let whole = filled();
    for [first, second] in pairs() {
        for sector in [first, second] {
            cut_everywhere(
                &damage(&whole, sector, true),
                |_| (0..20).map(Fate::numbered).collect(),
                |device| {
                    let mut store = Store::open(device.clone())?;
                    let outcome = store.mend().map(drop);
                    *device = store.device;
                    outcome
                },
                |device, _, when| assert_all_there(device, &format!("{sector}: {when}")),
            );
        }
    }
}

/// Whatever the power does, and also where one copy of something is damaged: the files that were not being changed are whole,
/// and the one that was is as before or as it is to be.
#[test]
fn a_power_cut_leaves_the_old_or_the_new() {
    let change = |store: &mut Store<ModelDevice>| {
        let handle = store.open("changed", false)?;
        store.write(handle, SECTOR as u64, &[2; 8])?;
        store.remove("long")?;
        put(store, "made", b"made")?;
        store.remove("changed")
    };
    let pairs = pairs();
    let damages = pairs.iter().flatten().map(|&sector| (Some(sector), 6));
    for (damaged, fates) in [(None, 40)].into_iter().chain(damages) {
        let filled = filled();
        let medium = damaged.map_or(filled.clone(), |sector| damage(&filled, sector, true));
        let mut whole = Store::open(medium.clone()).unwrap();
        change(&mut whole).unwrap();
        let operations = whole.device.operations();
        assert!(operations > 10);
        for cut in 0..=operations {
            for fate in (0..fates).map(|number| Fate::numbered(number + 7 * cut as u64 * u64::from(number > 2))) {
                let when = format!("{damaged:?} {cut} {fate:?}");
                let mut device = medium.power_on(Fate::Kept);
                device.cut_at(cut);
                let mut store = Store::open(device).unwrap();
                let outcome = change(&mut store);
                assert_eq!(outcome.is_ok(), !store.device.is_off());
                let mut after = Store::open(store.device.power_on(fate)).unwrap();
                assert_eq!(content(&mut after, "kept").unwrap(), b"kept", "{when}");
                assert!(MARKS.iter().any(|&place| after.is_marked(place)), "{when}");
                if let Some(long) = content(&mut after, "long") {
                    assert_eq!(long, FILES[2].1(), "{when}");
                }
                if let Some(changed) = content(&mut after, "changed") {
                    let tails = [vec![], vec![0; 8], vec![2; 8]];
                    let whole = tails.iter().any(|tail| changed == [&[1; SECTOR][..], tail].concat());
                    assert!(whole, "{when} {changed:?}");
                } else {
                    assert_eq!(content(&mut after, "made").unwrap(), b"made", "{when}");
                }
                // And it goes on.
                after.mend().unwrap();
                put(&mut after, "made", b"again").unwrap();
                assert_eq!(content(&mut after, "made").unwrap(), b"again");
            }
        }
    }
}
