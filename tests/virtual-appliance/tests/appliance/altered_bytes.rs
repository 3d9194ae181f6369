//! Somebody with the disk, the TPM's memory or the firmware's variables in hand changes what lies there. What was signed runs,
//! or nothing does.
//!
//! One byte is changed in each boot, at a place that is drawn within a part of the boot line, in every copy of it or in one.
//! `BELVEDERE_ALTERED_BYTES` says how many boots (1; with BELVEDERE_LONG 300), `BELVEDERE_REGION` restricts the parts to those
//! whose names contain it (several: with `;` between), and `BELVEDERE_SEED` repeats what is printed,
//! `BELVEDERE_SKIP=N` from the boot after the N-th. With
//! `BELVEDERE_STARTED=DIRECTORY` the appliance that was started once is kept there, and used again by the next run.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance altered_bytes:: -- --nocapture --test-threads=1

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, PARTITION};
use belvedere_kernel_stub::{CMDLINE, DTB, INITRD, Image, LINUX, POLICY, RELEASE};
use belvedere_luks2::record;
use belvedere_luks2::{DATA_OFFSET, HEADER_SIZE, Header, RECORD_OFFSETS, SLOT_SIZE};
use belvedere_virtual_appliance::disk::{self, Extent};
use belvedere_virtual_appliance::{Appliance, Fat, Light, Pattern, variables};

use crate::common::{
    BOOT, BOOTLOADER, CLOSED, Draw, FAST_RED, GREEN, KERNEL, OPERATING, TAKES_OVER, appliance, image, line_with, must,
    number, scratch, section, started_once, two_at_a_time,
};

const SECTOR: u64 = 512;
/// How long the firmware may say nothing after it refused a copy until it is certain that it looks for no other.
const OTHER_COPY: Duration = Duration::from_secs(30);

/// Where the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Disk,
    Tpm,
    Variables,
}

/// What has to be true of the altered copies once it operates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mended {
    /// Nothing: they may have been written anew with something newer.
    NotAsked,
    /// They are as they were before.
    AsBefore,
    /// Both copies of the LUKS2 header of the volume that begins here are whole and say the same; their salts may be others.
    Header(u64),
    /// Both copies of the record of the volume that begins here are whole and say the same; their numbers may be others.
    Record(u64),
    /// What was altered is written anew with other bytes: those of a key slot begin with random ones.
    Renewed,
}

/// One byte, in each of the places where it lies.
#[derive(Debug, Clone)]
struct Alteration {
    store: Store,
    places: Vec<u64>,
    mask: u8,
    /// Whether an intact copy is left, so that the appliance has to operate.
    spared: bool,
    mended: Mended,
    /// What may not be on the console when this byte was altered: it would say that the altered file ran.
    forbidden: Option<&'static str>,
    /// What has to be on the console when this byte was altered and the appliance operates: that the altered file was refused.
    required: Option<&'static str>,
}

/// A fully started appliance, switched off, and where everything of it lies.
struct Template {
    /// The directory with `disk.qcow2`, `variables.fd` and `tpm`.
    state: PathBuf,
    image: PathBuf,
    kernel: Vec<u8>,
    bootloader: Vec<u8>,
    /// Offsets of the two files on the disk, on esp-a and on esp-b.
    kernel_places: [u64; 2],
    bootloader_places: [u64; 2],
    system: Extent,
    data: Extent,
    slots: Extent,
    root_blocks: u64,
    root_bytes: u64,
    /// Sectors of the two partition table headers.
    headers: [u64; 2],
    /// Where the overlay holds something of `data`'s encrypted part: from, to.
    written: Vec<(u64, u64)>,
}

/// Finds a file's content in an ESP: what a new file system holds lies in one piece.
fn place(disk: &Path, esp: Extent, content: &[u8]) -> u64 {
    let mut bytes = vec![0; esp.length.min(64 << 20) as usize];
    File::open(disk).unwrap().read_exact_at(&mut bytes, esp.offset).unwrap();
    let found = bytes.chunks(512).position(|sector| content.starts_with(sector) && sector.iter().any(|&byte| byte != 0));
    let at = found.expect("the file's first sector") * 512;
    assert!(bytes[at..].starts_with(content), "the file does not lie in one piece");
    esp.offset + at as u64
}

impl Template {
    fn make(directory: &Path) -> Self {
        let image = image();
        let state = directory.join("state");
        if !state.exists() {
            started_once(directory);
        }

        let path = image.join("disk.img");
        let esps = ["esp-a", "esp-b"].map(|name| must(disk::partition(&path, name)));
        let file = |name| must(must(Fat::in_partition(&path, "esp-a")).read(name)).expect("a file of a new appliance");
        let (kernel, bootloader) = (file(KERNEL), file(BOOTLOADER));
        let line = Image::parse(&kernel).unwrap().file_section(CMDLINE).unwrap();
        let line = String::from_utf8_lossy(line).into_owned();
        let blocks =
            line.split(' ').find_map(|word| word.strip_prefix("belvedere.root_blocks=")).expect("a number of blocks");
        let mut header = [0; 8];
        File::open(&path).unwrap().read_exact_at(&mut header, SECTOR + 32).unwrap();
        let data = must(disk::partition(&path, "data"));
        Self {
            kernel_places: esps.map(|esp| place(&path, esp, &kernel)),
            bootloader_places: esps.map(|esp| place(&path, esp, &bootloader)),
            system: must(disk::partition(&path, "system-a")),
            slots: must(disk::partition(&path, PARTITION)),
            root_blocks: blocks.trim_end_matches('\0').parse().unwrap(),
            root_bytes: fs::metadata(image.join("root.erofs")).unwrap().len(),
            headers: [1, u64::from_le_bytes(header)],
            written: written(&state.join("disk.qcow2"), data.offset + DATA_OFFSET, data.offset + data.length),
            data,
            state,
            image,
            kernel,
            bootloader,
        }
    }

    /// The same appliance once more, off, with these bytes altered.
    fn altered(&self, directory: &Path, alterations: &[Alteration]) -> Appliance {
        let state = directory.join("state");
        fs::create_dir(&state).unwrap();
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("cp")
            .args(["-a", "--sparse=always"])
            .args(["tpm", "variables.fd"].map(|name| self.state.join(name)))
            .arg(&state));
        let overlay = state.join("disk.qcow2");
        run(Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(self.state.join("disk.qcow2"))
            .arg(&overlay));
        for alteration in alterations {
            for &place in &alteration.places {
                match alteration.store {
                    Store::Disk => {
                        let start = place / SECTOR * SECTOR;
                        let mut sector = must(disk::read(&overlay, Extent { offset: start, length: SECTOR }));
                        sector[(place - start) as usize] ^= alteration.mask;
                        must(disk::write(&overlay, start, &sector));
                    }
                    Store::Tpm | Store::Variables => {
                        let name = if alteration.store == Store::Tpm { "tpm/tpm2-00.permall" } else { "variables.fd" };
                        let file = File::options().read(true).write(true).open(state.join(name)).unwrap();
                        let mut byte = [0];
                        file.read_exact_at(&mut byte, place).unwrap();
                        file.write_all_at(&[byte[0] ^ alteration.mask], place).unwrap();
                    }
                }
            }
        }
        must(appliance(&self.image, directory).prepare())
    }
}

/// The parts of a qcow2 file, within a range of the disk, that it holds itself.
fn written(overlay: &Path, from: u64, to: u64) -> Vec<(u64, u64)> {
    let output = Command::new("qemu-img").args(["map", "--output=json"]).arg(overlay).output().unwrap();
    let map: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |entry: &serde_json::Value, name: &str| entry[name].as_u64().unwrap_or(0);
    map.as_array()
        .expect("a map")
        .iter()
        .filter(|entry| number(entry, "depth") == 0 && entry["data"] == true)
        .map(|entry| (number(entry, "start").max(from), (number(entry, "start") + number(entry, "length")).min(to)))
        .filter(|(start, end)| start < end)
        .collect()
}

/// Whether a signature covers a byte of a PE file: all but the checksum, the entry that names the signatures, and these
/// (Microsoft, "Windows Authenticode Portable Executable Signature Format").
fn signed(file: &[u8], place: u64) -> bool {
    let number = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|index| file[at + index])));
    let optional = number(0x3c) + 24;
    let signatures = number(optional as usize + 144);
    assert!(signatures > 0, "the file is not signed");
    !(optional + 64..optional + 68).contains(&place)
        && !(optional + 144..optional + 152).contains(&place)
        && place < signatures
}

/// Where a section of the unified kernel image lies in the file.
type Region = (&'static str, fn(&Template, &mut Draw) -> Vec<Alteration>);

fn mask(draw: &mut Draw) -> u8 {
    // A single bit half of the time: what is nearest to what was there.
    if draw.below(2) == 0 { 1 << draw.below(8) } else { draw.within(1..256) as u8 }
}

fn plain(store: Store, places: Vec<u64>, mask: u8) -> Alteration {
    Alteration { store, places, mask, spared: false, mended: Mended::NotAsked, forbidden: None, required: None }
}

/// A byte of the kernel's file, on both ESPs.
fn kernel(template: &Template, draw: &mut Draw, range: std::ops::Range<u64>) -> Vec<Alteration> {
    let place = draw.within(range);
    let forbidden = signed(&template.kernel, place).then_some("belvedere: slot a: starting");
    let places = template.kernel_places.map(|start| start + place).to_vec();
    vec![Alteration { forbidden, ..plain(Store::Disk, places, mask(draw)) }]
}

fn one_kernel(template: &Template, draw: &mut Draw) -> Alteration {
    let place = draw.below(template.kernel.len() as u64);
    let forbidden =
        signed(&template.kernel, place).then_some("belvedere: slot a: starting \\EFI\\belvedere\\slot-a.efi on esp-a");
    let required = forbidden.and(Some("another ESP has it whole"));
    let places = vec![template.kernel_places[0] + place];
    Alteration { forbidden, required, spared: true, ..plain(Store::Disk, places, mask(draw)) }
}

fn spared(place: u64, mask: u8) -> Alteration {
    Alteration { spared: true, mended: Mended::AsBefore, ..plain(Store::Disk, vec![place], mask) }
}

/// A byte of the header or the entries of a partition table, the same in each of the copies.
fn table(template: &Template, draw: &mut Draw, copies: &[usize]) -> Vec<u64> {
    let header = draw.below(2) == 0;
    let place = if header { draw.below(92) } else { draw.below(128 * 8) };
    let place_in = |&copy: &usize| match (header, copy) {
        (true, copy) => template.headers[copy] * SECTOR + place,
        (false, 0) => 2 * SECTOR + place,
        (false, _) => (template.headers[1] - 32) * SECTOR + place,
    };
    copies.iter().map(place_in).collect()
}

/// A byte within a copy of a LUKS2 header: its binary part, its JSON or anywhere.
fn header(draw: &mut Draw) -> u64 {
    let range = *draw.of(&[(0, 512), (4096, 4096 + 1024), (0, HEADER_SIZE as u64)]);
    draw.within(range.0..range.1)
}

fn one_header(volume: Extent, draw: &mut Draw) -> Alteration {
    let place = volume.offset + draw.below(2) * HEADER_SIZE as u64 + header(draw);
    Alteration { mended: Mended::Header(volume.offset), ..spared(place, mask(draw)) }
}

fn one_record(volume: Extent, draw: &mut Draw) -> Alteration {
    let limit = *draw.of(&[56, record::BLOCK as u64]);
    let place = volume.offset + draw.of(&RECORD_OFFSETS) + draw.below(limit);
    Alteration { mended: Mended::Record(volume.offset), ..spared(place, mask(draw)) }
}

/// Places of one byte of the key slots with these numbers; the last part of their room is padding.
fn key_slots(volume: Extent, draw: &mut Draw, numbers: &[u64]) -> Vec<u64> {
    let place = volume.offset + 2 * HEADER_SIZE as u64 + draw.below(64 * 4000);
    numbers.iter().map(|number| place + number * SLOT_SIZE as u64).collect()
}

fn one_key_slot(volume: Extent, draw: &mut Draw) -> Alteration {
    let number = draw.below(2);
    let place = key_slots(volume, draw, &[number])[0];
    let required = Some("does not open, and is written anew");
    Alteration { mended: Mended::Renewed, required, ..spared(place, mask(draw)) }
}

fn one_slot_table(template: &Template, draw: &mut Draw) -> Alteration {
    // What is written anew holds something newer than what was there.
    Alteration {
        mended: Mended::NotAsked,
        ..spared(template.slots.offset + draw.of(&COPY_OFFSETS) + draw.below(BLOCK as u64), mask(draw))
    }
}

fn one_table(template: &Template, draw: &mut Draw) -> Alteration {
    let copy = draw.below(2) as usize;
    spared(table(template, draw, &[copy])[0], mask(draw))
}

const REGIONS: [Region; 31] = [
    ("bootloader, both ESPs", |template, draw| {
        let place = draw.below(template.bootloader.len() as u64);
        let forbidden = signed(&template.bootloader, place).then_some("belvedere: ");
        let places = template.bootloader_places.map(|start| start + place).to_vec();
        vec![Alteration { forbidden, ..plain(Store::Disk, places, mask(draw)) }]
    }),
    ("bootloader, one ESP", |template, draw| {
        let place = draw.below(template.bootloader.len() as u64);
        // The firmware looks at esp-a first.
        let required = signed(&template.bootloader, place).then_some("BdsDxe: failed to load");
        let places = vec![template.bootloader_places[0] + place];
        vec![Alteration { spared: true, required, ..plain(Store::Disk, places, mask(draw)) }]
    }),
    ("UKI stub, both ESPs", |template, draw| {
        let end = section(&template.kernel, LINUX).start;
        kernel(template, draw, 0..end)
    }),
    ("UKI kernel, both ESPs", |template, draw| kernel(template, draw, section(&template.kernel, LINUX))),
    ("UKI initramfs, both ESPs", |template, draw| kernel(template, draw, section(&template.kernel, INITRD))),
    ("UKI command line, both ESPs", |template, draw| kernel(template, draw, section(&template.kernel, CMDLINE))),
    ("UKI device tree, both ESPs", |template, draw| kernel(template, draw, section(&template.kernel, DTB))),
    ("UKI release, both ESPs", |template, draw| kernel(template, draw, section(&template.kernel, RELEASE))),
    ("UKI policy, both ESPs", |template, draw| kernel(template, draw, section(&template.kernel, POLICY))),
    ("UKI signature, both ESPs", |template, draw| {
        let end = template.kernel.len() as u64;
        let start = (0..end).rev().find(|&place| signed(&template.kernel, place)).map_or(0, |last| last + 1);
        kernel(template, draw, start..end)
    }),
    ("UKI, one ESP", |template, draw| vec![one_kernel(template, draw)]),
    ("EROFS superblock", |template, draw| {
        let place = template.system.offset + DATA_OFFSET + 1024 + draw.below(128);
        vec![plain(Store::Disk, vec![place], mask(draw))]
    }),
    ("EROFS data", |template, draw| {
        let place = template.system.offset + DATA_OFFSET + draw.below(template.root_blocks * 4096);
        vec![plain(Store::Disk, vec![place], mask(draw))]
    }),
    ("verity superblock", |template, draw| {
        let place = template.system.offset + DATA_OFFSET + template.root_blocks * 4096 + draw.below(512);
        vec![plain(Store::Disk, vec![place], mask(draw))]
    }),
    ("verity tree", |template, draw| {
        let tree = (template.root_blocks + 1) * 4096..template.root_bytes;
        let place = template.system.offset + DATA_OFFSET + draw.within(tree);
        vec![plain(Store::Disk, vec![place], mask(draw))]
    }),
    ("protective MBR", |_, draw| vec![plain(Store::Disk, vec![draw.within(440..512)], mask(draw))]),
    ("GPT, one copy", |template, draw| vec![one_table(template, draw)]),
    ("GPT, both copies", |template, draw| {
        let places = table(template, draw, &[0, 1]);
        vec![plain(Store::Disk, places, mask(draw))]
    }),
    ("slot table, one copy", |template, draw| vec![one_slot_table(template, draw)]),
    ("slot table, both copies", |template, draw| {
        let place = template.slots.offset + draw.below(BLOCK as u64);
        // It is advice, and made anew.
        let places = COPY_OFFSETS.map(|offset| offset + place).to_vec();
        vec![Alteration { spared: true, ..plain(Store::Disk, places, mask(draw)) }]
    }),
    ("LUKS2 header of system-a, one copy", |template, draw| vec![one_header(template.system, draw)]),
    ("LUKS2 header of data, one copy", |template, draw| vec![one_header(template.data, draw)]),
    ("LUKS2 header, both copies", |template, draw| {
        let (volume, place) = (*draw.of(&[template.system, template.data]), header(draw));
        let places = [0, HEADER_SIZE as u64].map(|copy| volume.offset + copy + place).to_vec();
        vec![plain(Store::Disk, places, mask(draw))]
    }),
    ("key slot, one of the two", |template, draw| {
        let volume = *draw.of(&[template.system, template.data]);
        vec![one_key_slot(volume, draw)]
    }),
    ("key slot, both", |template, draw| {
        let volume = *draw.of(&[template.system, template.data]);
        vec![plain(Store::Disk, key_slots(volume, draw, &[0, 1]), mask(draw))]
    }),
    ("volume record, one copy", |template, draw| {
        let volume = *draw.of(&[template.system, template.data]);
        vec![one_record(volume, draw)]
    }),
    ("volume record, both copies", |template, draw| {
        let (volume, place) = (*draw.of(&[template.system, template.data]), draw.below(56));
        let places = RECORD_OFFSETS.map(|offset| volume.offset + offset + place).to_vec();
        vec![plain(Store::Disk, places, mask(draw))]
    }),
    ("ciphertext of data", |template, draw| {
        let &(start, end) = draw.of(&template.written);
        vec![plain(Store::Disk, vec![draw.within(start..end)], mask(draw))]
    }),
    ("TPM state", |template, draw| {
        let length = fs::metadata(template.state.join("tpm/tpm2-00.permall")).unwrap().len();
        vec![plain(Store::Tpm, vec![draw.below(length)], mask(draw))]
    }),
    ("firmware variables", |template, draw| {
        let end = variables::end(&template.state.join("variables.fd"));
        vec![plain(Store::Variables, vec![draw.below(must(end))], mask(draw))]
    }),
    // They cannot hide each other: each is another structure, found and mended by itself, and each is looked at afterwards.
    ("one copy of all that has two", |template, draw| {
        vec![
            one_kernel(template, draw),
            one_table(template, draw),
            one_slot_table(template, draw),
            one_header(template.system, draw),
            one_header(template.data, draw),
            one_key_slot(template.system, draw),
            one_key_slot(template.data, draw),
            one_record(template.system, draw),
            one_record(template.data, draw),
        ]
    }),
];

/// What became of an appliance.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Operates,
    /// Nothing altered ran; the words say who refused.
    Refused(String),
    /// Neither: the firmware or the TPM itself does not come up, and nothing of ours ran that could say so.
    Dead(String),
}

/// Whether bytes of this part are read by the bootloader and the first stage alone. Then all is decided when the root image
/// takes over, and the services' start, which takes longest, need not be waited for.
fn decided_early(region: &str) -> bool {
    !["EROFS", "verity", "ciphertext"].iter().any(|part| region.starts_with(part))
}

/// Switches on and waits until it is certain what becomes of it.
fn outcome(appliance: &mut Appliance, early: bool) -> Outcome {
    if let Err(error) = appliance.power_on() {
        return Outcome::Dead(error.to_string());
    }
    let begun = Instant::now();
    let mut length = (0, Instant::now());
    loop {
        let console = appliance.console();
        if console.contains(OPERATING) {
            must(appliance.wait_for_light(Light::Status, GREEN, BOOT));
            return Outcome::Operates;
        }
        if early && console.contains(TAKES_OVER) {
            return Outcome::Operates;
        }
        let final_words = [CLOSED, "belvedere: start failed: ", "nothing is started without them"];
        let found = final_words.iter().find_map(|text| line_with(&console, text));
        let refused = console.lines().find(|line| {
            line.contains("belvedere: root image refused: ") && !line.contains("another partition has it whole")
        });
        // After the second back-off every place was tried twice.
        let back_offs = console.matches("no slot can be started").count();
        let no_slot = (back_offs > 1).then(|| line_with(&console, "belvedere: slot a: ")).flatten();
        if let Some(words) = found.or(refused.map(|line| line.trim().to_owned())).or(no_slot) {
            must(appliance.wait_for_light(Light::Status, FAST_RED, BOOT));
            return Outcome::Refused(words);
        }
        if console.len() != length.0 {
            length = (console.len(), Instant::now());
        }
        let firmware = ["Access Denied", "Security Violation", "BdsDxe: failed to", "BdsDxe: No bootable option"];
        if let Some(words) =
            firmware.iter().find_map(|text| line_with(&console, text)).filter(|_| !console.contains("belvedere:"))
        {
            if length.1.elapsed() > OTHER_COPY {
                assert_eq!(appliance.lights().of(Light::Status), Pattern::Off, "nothing of ours ran");
                return Outcome::Refused(words);
            }
        } else if length.1.elapsed() > Duration::from_secs(120) || begun.elapsed() > BOOT * 2 {
            let last = console.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word").to_owned();
            return Outcome::Dead(last);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Altered bytes, and what became of them.
#[derive(Debug, Default)]
struct Counts {
    altered: u64,
    refused: u64,
    without_effect: u64,
    dead: u64,
    ran: u64,
    faults: Vec<String>,
}

/// Whether the altered copies are in order again.
fn is_mended(alteration: &Alteration, template: &Template, appliance: &Appliance) -> bool {
    let now = |offset, length| must(disk::read(&appliance.disk(), Extent { offset, length }));
    match alteration.mended {
        Mended::NotAsked => true,
        Mended::AsBefore => alteration.places.iter().all(|place| {
            let sector = Extent { offset: place / SECTOR * SECTOR, length: SECTOR };
            must(disk::read(&template.state.join("disk.qcow2"), sector)) == now(sector.offset, sector.length)
        }),
        Mended::Header(volume) => {
            Header::decode(&now(volume, 2 * HEADER_SIZE as u64)).is_ok_and(|header| header.repair().is_none())
        }
        Mended::Renewed => alteration.places.iter().all(|place| {
            let sector = Extent { offset: place / SECTOR * SECTOR, length: SECTOR };
            let before = must(disk::read(&template.state.join("disk.qcow2"), sector));
            let mut altered = before.clone();
            altered[(place - sector.offset) as usize] ^= alteration.mask;
            let now = now(sector.offset, sector.length);
            now != before && now != altered
        }),
        Mended::Record(volume) => {
            let [first, second] = RECORD_OFFSETS.map(|offset| now(volume + offset, record::BLOCK as u64));
            record::RecordCopies::read(&first, &second).settled()
        }
    }
}

fn try_one(template: &Template, name: &str, alterations: &[Alteration], counts: &Mutex<Counts>) {
    let directory = scratch();
    let begun = Instant::now();
    let mut appliance = template.altered(directory.path(), alterations);
    let outcome = outcome(&mut appliance, decided_early(name));
    let console = appliance.console();
    must(appliance.power_cut());
    let what: Vec<String> = alterations
        .iter()
        .map(|alteration| format!("{:?} {:x?} ^ {:02x}", alteration.store, alteration.places, alteration.mask))
        .collect();
    let what = format!("{name}: {}", what.join(", "));
    println!("{what}: {outcome:?} ({:.0} s)", begun.elapsed().as_secs_f64());
    let mut counts = counts.lock().unwrap();
    for alteration in alterations {
        counts.altered += 1;
        let ran = alteration.forbidden.filter(|text| console.contains(text));
        match &outcome {
            _ if ran.is_some() => {
                counts.ran += 1;
                counts.faults.push(format!("{what}: altered bytes ran:\n{console}"));
            }
            Outcome::Operates if alteration.required.is_some_and(|text| !console.contains(text)) => {
                counts.ran += 1;
                counts.faults.push(format!("{what}: nobody refused it, so altered bytes may have run:\n{console}"));
            }
            Outcome::Operates => {
                counts.without_effect += 1;
                if !is_mended(alteration, template, &appliance) {
                    counts.faults.push(format!("{what}: {:x?} was not mended", alteration.places));
                }
            }
            Outcome::Refused(_) => counts.refused += 1,
            Outcome::Dead(_) => counts.dead += 1,
        }
        if alteration.spared && outcome != Outcome::Operates {
            counts.faults.push(format!("{what}: it does not start, though a copy is whole:\n{console}"));
        }
    }
}

#[test]
fn whatever_byte_is_altered_what_was_signed_runs_or_nothing() {
    let count = number("BELVEDERE_ALTERED_BYTES", if std::env::var_os("BELVEDERE_LONG").is_some() { 300 } else { 1 });
    let mut draw = Draw::begin();
    let wanted = std::env::var("BELVEDERE_REGION").unwrap_or_default();
    let mut regions: Vec<Region> =
        REGIONS.into_iter().filter(|(name, _)| wanted.split(';').any(|part| name.contains(part))).collect();
    assert!(!regions.is_empty(), "no part is called {wanted}");

    let scratch = scratch();
    let kept = std::env::var_os("BELVEDERE_STARTED").map(PathBuf::from);
    let template = Template::make(kept.as_deref().unwrap_or(scratch.path()));
    let skip = number("BELVEDERE_SKIP", 0);
    let counts = Mutex::new(Counts::default());
    let begun = Instant::now();
    let mut work = Vec::new();
    for boot in 0..count {
        let turn = boot as usize % regions.len();
        if turn == 0 {
            for place in (1..regions.len()).rev() {
                regions.swap(place, draw.below(place as u64 + 1) as usize);
            }
        }
        let (name, region) = regions[turn];
        let alterations = region(&template, &mut draw);
        if boot >= skip {
            work.push((name, alterations));
        }
    }
    two_at_a_time(work, |(name, alterations)| try_one(&template, name, &alterations, &counts));
    let Counts { altered, refused, without_effect, dead, ran, faults } = counts.into_inner().unwrap();
    println!(
        "measured: {altered} altered bytes: refused {refused}, repaired or without effect {without_effect}, altered ran {ran}; \
         firmware or TPM itself does not come up {dead}; {count} boots in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
