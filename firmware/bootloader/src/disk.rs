//! The disk that the bootloader was started from, as the firmware shows it.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use belvedere_boot_slots::{BLOCK, COPY_OFFSETS, PARTITION, PARTITION_SIZE, Slot};
use belvedere_bootloader::partition_name;
use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::proto::ProtocolPointer;
use uefi::proto::device_path::{DevicePath, DeviceSubType, DeviceType};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::block::BlockIO;
use uefi::proto::media::file::{File, FileAttribute, FileInfo, FileMode};
use uefi::proto::media::fs::SimpleFileSystem;
use uefi::proto::media::partition::{GptPartitionType, PartitionInfo};
use uefi::{CStr16, CString16, Handle, Status};

/// A block where firmware may want it aligned.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// A partition of our own disk.
struct Partition {
    handle: Handle,
    name: String,
    esp: bool,
}

/// Why there is no disk.
pub enum NotFound {
    /// This program was started from a stick.
    Usb,
    /// Another reason, in words.
    Other(String),
}

impl NotFound {
    /// For people.
    pub fn words(self) -> String {
        match self {
            Self::Usb => String::from("this is a stick"),
            Self::Other(reason) => reason,
        }
    }
}

impl From<String> for NotFound {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

/// Our own disk's partitions.
pub struct Disk {
    partitions: Vec<Partition>,
}

impl Disk {
    /// Looks for the partitions of the disk that this image was loaded from.
    ///
    /// Not of a stick: the operating system takes none for the appliance's disk, so that what is decided by a stick's table, such
    /// as an update of the firmware's key databases, would be done to a disk that it knows nothing of.
    pub fn find() -> Result<Self, NotFound> {
        let own = shared::<LoadedImage>(boot::image_handle())
            .ok()
            .and_then(|image| image.device())
            .ok_or_else(|| String::from("the firmware does not say which disk this is"))?;
        let path = path_bytes(own)?;
        if is_attached_by_usb(&path) {
            return Err(NotFound::Usb);
        }
        let disk = parent(&path);
        let handles = boot::find_handles::<PartitionInfo>().map_err(|error| format!("no partitions: {}", error.status()))?;
        let mut partitions = Vec::new();
        for handle in handles {
            let Ok(path) = path_bytes(handle) else {
                continue;
            };
            if parent(&path) != disk {
                continue;
            }
            let Ok(information) = shared::<PartitionInfo>(handle) else {
                continue;
            };
            let Some(entry) = information.gpt_partition_entry() else {
                continue;
            };
            let (name, kind) = (entry.partition_name, entry.partition_type_guid);
            let name = partition_name(name.into_iter().map(u16::from));
            partitions.push(Partition { handle, name, esp: kind == GptPartitionType::EFI_SYSTEM_PARTITION });
        }
        Ok(Self { partitions })
    }

    /// Reads a copy of the slot table.
    pub fn read_copy(&self, copy: usize, block: &mut [u8; BLOCK]) -> Result<(), String> {
        let (mut device, media, block_size) = self.table()?;
        let mut aligned = Aligned([0; BLOCK]);
        device
            .read_blocks(media, COPY_OFFSETS[copy] / block_size, &mut aligned.0)
            .map_err(|error| format!("cannot be read: {}", error.status()))?;
        *block = aligned.0;
        Ok(())
    }

    /// Writes a block at `offset` of the slot table's partition and flushes.
    pub fn write(&self, offset: u64, block: &[u8; BLOCK]) -> Result<(), String> {
        let (mut device, media, block_size) = self.table()?;
        let aligned = Aligned(*block);
        device
            .write_blocks(media, offset / block_size, &aligned.0)
            .and_then(|()| device.flush_blocks())
            .map_err(|error| format!("{}", error.status()))
    }

    fn table(&self) -> Result<(ScopedProtocol<BlockIO>, u32, u64), String> {
        let partition = self
            .partitions
            .iter()
            .find(|partition| partition.name == PARTITION)
            .ok_or_else(|| format!("this disk has no partition {PARTITION}"))?;
        let device = shared::<BlockIO>(partition.handle).map_err(|status| format!("partition {PARTITION}: {status}"))?;
        let media = device.media();
        let block_size = u64::from(media.block_size());
        let usable = block_size.is_power_of_two() && block_size <= BLOCK as u64;
        if !usable || media.last_block().saturating_add(1).saturating_mul(block_size) < PARTITION_SIZE {
            return Err(format!("partition {PARTITION} is too small or has {block_size}-byte blocks"));
        }
        let id = media.media_id();
        Ok((device, id, block_size))
    }

    /// Gives `look` the content of a file on each ESP that has it, with a name for people.
    pub fn files(&self, path: &str, look: &mut dyn FnMut(&str, &[u8])) -> Result<(), String> {
        let name = CString16::try_from(path).map_err(|error| format!("{error:?}"))?;
        for partition in self.partitions.iter().filter(|partition| partition.esp) {
            let place = format!("{path} on {}", partition.name);
            match read_file(partition.handle, &name) {
                Ok(content) => look(&place, &content),
                Err(Status::NOT_FOUND) => {}
                Err(status) => return Err(format!("{place} cannot be read: {status}")),
            }
        }
        Ok(())
    }

    /// Device paths at which the slot's kernel may lie: its own ESP first, then the disk's other ESPs.
    pub fn kernel_paths(&self, slot: Slot) -> Vec<(String, Vec<u8>)> {
        let mut esps: Vec<&Partition> = self.partitions.iter().filter(|partition| partition.esp).collect();
        esps.sort_by_key(|partition| partition.name != slot.esp());
        esps.into_iter()
            .filter_map(|partition| {
                let mut path = without_end(&path_bytes(partition.handle).ok()?);
                let name: Vec<u8> = slot.kernel_path().encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
                let length = u16::try_from(name.len() + 4).ok()?;
                path.extend([DeviceType::MEDIA.0, DeviceSubType::MEDIA_FILE_PATH.0]);
                path.extend(length.to_le_bytes());
                path.extend(name);
                path.extend(END);
                Some((partition.name.clone(), path))
            })
            .collect()
    }
}

/// Longest file that is read: many times our largest.
const FILE_LIMIT: u64 = 512 << 20;

fn read_file(partition: Handle, path: &CStr16) -> Result<Vec<u8>, Status> {
    let mut system = shared::<SimpleFileSystem>(partition)?;
    let mut root = system.open_volume().map_err(|error| error.status())?;
    let file = root.open(path, FileMode::Read, FileAttribute::empty()).map_err(|error| error.status())?;
    let mut file = file.into_regular_file().ok_or(Status::NOT_FOUND)?;
    let size = file.get_boxed_info::<FileInfo>().map_err(|error| error.status())?.file_size();
    if size > FILE_LIMIT {
        return Err(Status::BAD_BUFFER_SIZE);
    }
    let mut content = vec![0; usize::try_from(size).map_err(|_| Status::BAD_BUFFER_SIZE)?];
    let mut done = 0;
    while let Some(rest) = content.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(|error| error.status())? {
            0 => return Err(Status::END_OF_FILE),
            read => done += read,
        }
    }
    Ok(content)
}

const END: [u8; 4] = [0x7f, 0xff, 4, 0];

fn path_bytes(handle: Handle) -> Result<Vec<u8>, String> {
    shared::<DevicePath>(handle).map(|path| path.as_bytes().to_vec()).map_err(|status| format!("no device path: {status}"))
}

fn without_end(path: &[u8]) -> Vec<u8> {
    path.strip_suffix(&END).unwrap_or(path).to_vec()
}

/// The path of a partition's disk: everything before the hard-drive node.
fn parent(path: &[u8]) -> Vec<u8> {
    let Ok(whole) = <&DevicePath>::try_from(path) else {
        return Vec::new();
    };
    let length: usize = whole
        .node_iter()
        .take_while(|node| node.full_type() != (DeviceType::MEDIA, DeviceSubType::MEDIA_HARD_DRIVE))
        .map(|node| usize::from(node.length()))
        .sum();
    path.get(..length).unwrap_or(path).to_vec()
}

/// Whether a device path leads over USB, in any of its three ways to name a device (UEFI 2.10, 10.3.4).
fn is_attached_by_usb(path: &[u8]) -> bool {
    let usb = [DeviceSubType::MESSAGING_USB, DeviceSubType::MESSAGING_USB_WWID, DeviceSubType::MESSAGING_USB_CLASS];
    <&DevicePath>::try_from(path).is_ok_and(|path| {
        path.node_iter().any(|node| node.device_type() == DeviceType::MESSAGING && usb.contains(&node.sub_type()))
    })
}

/// Opens a protocol beside whoever uses it already: an exclusive one would take the disk from the file system driver.
pub fn shared<P: ProtocolPointer + ?Sized>(handle: Handle) -> Result<ScopedProtocol<P>, Status> {
    let parameters = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    // SAFETY: this program is the only one that runs, and nothing is removed while a protocol is held: no call that
    // connects or disconnects drivers is made meanwhile.
    unsafe { boot::open_protocol::<P>(parameters, OpenProtocolAttributes::GetProtocol) }.map_err(|error| error.status())
}
