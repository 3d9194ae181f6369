//! Sticks that are there, and sticks that come and go: kernel uevents (no udev) and sysfs.

use belvedere_varlink::Pulse;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A whole disk came or went, or its medium did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Kernel name, such as `sda`.
    Added(String),
    /// Likewise.
    Removed(String),
    /// The disk stayed and its medium came, went or was changed: a card in a reader.
    MediumChanged(String),
}

/// The kernel's notices.
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Begins to listen.
    pub fn open() -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        // A hub full of sticks makes many notices while one stick is being worked on.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 20)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Self(socket))
    }

    /// Waits for a notice about a whole disk; `turned` is called at least every [`Pulse::WAIT`] meanwhile. `Ok(None)`:
    /// notices were lost, look at what is there.
    pub fn wait(&mut self, turned: impl Fn()) -> std::io::Result<Option<Change>> {
        loop {
            turned();
            if !Pulse::wait_for(&self.0) {
                continue;
            }
            let mut buffer = [0; 8192];
            match rustix::net::recvfrom(&self.0, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _, sender)) => {
                    // Another process can send to this socket; the kernel is port 0.
                    let kernel = sender.and_then(|s| SocketAddrNetlink::try_from(s).ok()).is_some_and(|s| s.pid() == 0);
                    if kernel && let Some(change) = parse(&buffer[..length]) {
                        return Ok(Some(change));
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// `add@/devices/…\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=disk\0DEVNAME=sda\0…`.
pub fn parse(message: &[u8]) -> Option<Change> {
    let mut fields = message.split(|b| *b == 0).filter_map(|field| std::str::from_utf8(field).ok()).skip(1);
    let (mut action, mut subsystem, mut kind, mut name, mut medium) = ("", "", "", "", "");
    fields.by_ref().for_each(|field| match field.split_once('=') {
        Some(("ACTION", value)) => action = value,
        Some(("SUBSYSTEM", value)) => subsystem = value,
        Some(("DEVTYPE", value)) => kind = value,
        Some(("DEVNAME", value)) => name = value,
        Some(("DISK_MEDIA_CHANGE", value)) => medium = value,
        _ => {}
    });
    if subsystem != "block" || kind != "disk" || !is_name(name) {
        return None;
    }
    match action {
        "add" => Some(Change::Added(name.into())),
        "remove" => Some(Change::Removed(name.into())),
        "change" if medium == "1" => Some(Change::MediumChanged(name.into())),
        _ => None,
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 31 && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Kernel names of the sticks that are plugged in: disks behind USB, in the order of their names.
pub fn sticks(sys: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(sys.join("class/block"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_stick(sys, name))
        .collect();
    found.sort();
    found
}

/// Whether a disk is behind USB and is no partition.
pub fn is_behind_usb(sys: &Path, name: &str) -> bool {
    let entry = sys.join("class/block").join(name);
    is_name(name)
        && !entry.join("partition").exists()
        && fs::canonicalize(&entry).is_ok_and(|path| {
            path.components().any(|part| part.as_os_str().to_str().is_some_and(|text| text.starts_with("usb")))
        })
}

/// Whether a disk is behind USB, is no partition and has a medium.
pub fn is_stick(sys: &Path, name: &str) -> bool {
    is_behind_usb(sys, name) && sectors(&sys.join("class/block").join(name)) > 0
}

/// Opens a disk, which makes the kernel read a new medium's size and partition table. That a medium came it notices by
/// itself (`block.events_dfl_poll_msecs` on its command line).
pub fn look_at_medium(device: &Path) {
    if let Err(error) = fs::File::open(device) {
        log::debug!("open {}: {error}", device.display());
    }
}

fn sectors(entry: &Path) -> u64 {
    fs::read_to_string(entry.join("size")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Part of a disk, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Kernel name, such as `sda1`.
    pub name: String,
    /// Size.
    pub bytes: u64,
}

/// Partitions of a disk that are looked at.
const MAX_PARTITIONS: usize = 32;

/// The partitions of a disk by number, logical ones too. The kernel announces a disk after it has read the partition
/// table.
pub fn partitions(sys: &Path, disk: &str) -> Vec<Volume> {
    let mut found: Vec<(u32, Volume)> = fs::read_dir(sys.join("class/block").join(disk))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = fs::read_to_string(entry.path().join("partition")).ok()?.trim().parse().ok()?;
            let name = entry.file_name().into_string().ok().filter(|name| is_name(name))?;
            Some((number, Volume { name, bytes: sectors(&entry.path()).saturating_mul(512) }))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, volume)| volume).take(MAX_PARTITIONS).collect()
}

/// The whole of a disk.
pub fn whole(sys: &Path, disk: &str) -> Volume {
    Volume { name: disk.to_owned(), bytes: sectors(&sys.join("class/block").join(disk)).saturating_mul(512) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_about_disks_are_understood_and_others_ignored() {
        let add = b"add@/devices/usb1/sda\0ACTION=add\0DEVPATH=/devices/usb1/sda\0SUBSYSTEM=block\0MAJOR=8\0DEVNAME=sda\0DEVTYPE=disk\0SEQNUM=9\0";
        assert_eq!(parse(add), Some(Change::Added("sda".into())));
        let remove = b"remove@/x\0ACTION=remove\0SUBSYSTEM=block\0DEVNAME=sda\0DEVTYPE=disk\0";
        assert_eq!(parse(remove), Some(Change::Removed("sda".into())));
        assert_eq!(parse(b"add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda1\0DEVTYPE=partition\0"), None);
        assert_eq!(parse(b"add@/x\0ACTION=add\0SUBSYSTEM=usb\0DEVTYPE=disk\0DEVNAME=sda\0"), None);
        assert_eq!(parse(b"add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=../sda\0DEVTYPE=disk\0"), None);
        // Field case: a card put into a reader that is plugged in already.
        let card = b"change@/x\0ACTION=change\0SUBSYSTEM=block\0DEVNAME=sda\0DEVTYPE=disk\0DISK_MEDIA_CHANGE=1\0";
        assert_eq!(parse(card), Some(Change::MediumChanged("sda".into())));
        assert_eq!(parse(b"change@/x\0ACTION=change\0SUBSYSTEM=block\0DEVNAME=sda\0DEVTYPE=disk\0"), None);
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(parse(b""), None);
    }

    fn disk(sys: &Path, bus: &str, name: &str, size: &str, partitions: &[u32]) {
        let path = sys.join("devices").join(bus).join("block").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("size"), size).unwrap();
        let class = sys.join("class/block");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&path, class.join(name)).unwrap();
        for number in partitions {
            let part = path.join(format!("{name}{number}"));
            fs::create_dir(&part).unwrap();
            fs::write(part.join("partition"), format!("{number}\n")).unwrap();
            fs::write(part.join("size"), "1\n").unwrap();
            std::os::unix::fs::symlink(&part, class.join(format!("{name}{number}"))).unwrap();
        }
    }

    #[test]
    fn sticks_are_the_disks_behind_usb_with_a_medium() {
        let sys = tempfile::tempdir().unwrap();
        disk(sys.path(), "virtio1", "vda", "2048", &[1]);
        disk(sys.path(), "pci/usb1/1-1", "sdb", "2048", &[10, 2]);
        disk(sys.path(), "pci/usb2/2-1", "sda", "2048", &[]);
        disk(sys.path(), "pci/usb2/2-2", "sdc", "0", &[]);
        assert_eq!(sticks(sys.path()), ["sda", "sdb"]);
        assert_eq!(partitions(sys.path(), "sda"), []);
        assert_eq!(whole(sys.path(), "sda"), Volume { name: "sda".into(), bytes: 1 << 20 });
        let names: Vec<String> = partitions(sys.path(), "sdb").into_iter().map(|volume| volume.name).collect();
        assert_eq!(names, ["sdb2", "sdb10"]);
        assert!(is_behind_usb(sys.path(), "sdc") && !is_stick(sys.path(), "sdc"), "an empty reader");
        assert!(!is_behind_usb(sys.path(), "vda") && !is_behind_usb(sys.path(), "sdb2"));
    }
}
