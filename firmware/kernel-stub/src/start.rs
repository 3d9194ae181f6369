//! The stub: starts the kernel that it carries.
//!
//! Order: find the parts; measure them; lay the kernel out; put the device tree where the kernel looks for it; offer the initramfs; start
//! the kernel with the command line. Every part comes from this image's own memory, which the firmware verified as one;
//! nothing comes from a file, and the load options of whoever started this are not looked at.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use belvedere_device_tree::{self as device_tree, Firmware};
use belvedere_firmware_console::say;
use belvedere_kernel_stub::exchange::{Exchange, Table};
use belvedere_kernel_stub::{CMDLINE, DTB, INITRD, Image, LINUX, command_line};
use uefi::boot::{self, AllocateType, MemoryType};
use uefi::{Guid, Handle, Status, guid, system};

use crate::kernel::{Kernel, with_own_image};
use crate::measure;

/// EFI_DTB_TABLE_GUID.
static DEVICE_TREE_TABLE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
/// EFI_DEVICE_PATH_PROTOCOL.
static DEVICE_PATH: Guid = guid!("09576e91-6d3f-11d2-8e39-00a0c969723b");
/// EFI_LOAD_FILE2_PROTOCOL.
static LOAD_FILE2: Guid = guid!("4006c0c1-fcb3-403e-996d-4a6c8724e06d");

/// Device path `VenMedia(5568e427-68fc-4f3d-ac74-ca555231cc68)`: LINUX_EFI_INITRD_MEDIA_GUID, where the kernel asks
/// for its initramfs.
static INITRD_PATH: AlignedPath = AlignedPath(vendor_media([
    0x27, 0xe4, 0x68, 0x55, 0xfc, 0x68, 0x3d, 0x4f, 0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68,
]));

#[repr(align(8))]
struct AlignedPath([u8; 24]);

const fn vendor_media(guid: [u8; 16]) -> [u8; 24] {
    // Type 4 (media), subtype 3 (vendor), 20 bytes; then the end node.
    let mut path = [0u8; 24];
    path[0] = 4;
    path[1] = 3;
    path[2] = 20;
    let mut index = 0;
    while index < 16 {
        path[4 + index] = guid[index];
        index += 1;
    }
    path[20] = 0x7f;
    path[21] = 0xff;
    path[22] = 4;
    path
}

/// EFI_LOAD_FILE2_PROTOCOL with the file behind it.
#[repr(C)]
struct InitrdFile {
    load_file: unsafe extern "efiapi" fn(
        this: *const InitrdFile,
        path: *const c_void,
        boot_policy: u8,
        size: *mut usize,
        buffer: *mut c_void,
    ) -> Status,
    start: *const u8,
    length: usize,
}

/// Gives the initramfs to whoever asks: first its size, then its bytes.
///
/// # Safety
/// Called by firmware or kernel with `this` as installed, `size` readable and writable, `buffer` null or `*size` long.
unsafe extern "efiapi" fn load_initrd(
    this: *const InitrdFile,
    _path: *const c_void,
    boot_policy: u8,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if boot_policy != 0 {
        return Status::UNSUPPORTED;
    }
    if this.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: not null, and valid by this function's contract.
    let (file, capacity) = unsafe { (&*this, *size) };
    // SAFETY: as above.
    unsafe { *size = file.length };
    if buffer.is_null() || capacity < file.length {
        return Status::BUFFER_TOO_SMALL;
    }
    // SAFETY: the buffer holds at least `length` bytes by contract, the file is a section of the stub's own image.
    unsafe { ptr::copy_nonoverlapping(file.start, buffer.cast(), file.length) };
    Status::SUCCESS
}

/// Starts the kernel; returns only on failure, having said why.
pub fn run() -> Status {
    let (reason, status) = match start() {
        Ok(status) => ("the kernel gave up", status),
        Err(failure) => failure,
    };
    say(format_args!("belvedere: kernel stub: {reason}: {status}"));
    // What comes back has failed, whatever it says.
    if status.is_success() { Status::ABORTED } else { status }
}

/// Why not, for the console, and the firmware's word for it.
pub type Failure = (&'static str, Status);

fn start() -> Result<Status, Failure> {
    let (base, size) = with_own_image(|own| own.info())?;
    let size = usize::try_from(size).map_err(|_| ("its own image is too large", Status::LOAD_ERROR))?;
    if base.is_null() {
        return Err(("cannot find its own image", Status::LOAD_ERROR));
    }
    // SAFETY: the firmware loaded this image to `base` with `size` bytes and keeps it while it runs; sections that
    // are written to at run time are never looked at through this slice.
    let memory: &'static [u8] = unsafe { core::slice::from_raw_parts(base.cast(), size) };
    let image = Image::parse(memory).map_err(|_| ("its own headers are damaged", Status::LOAD_ERROR))?;
    let kernel = image.loaded_section(LINUX).ok_or(("there is no .linux section", Status::NOT_FOUND))?;
    let line = image
        .loaded_section(CMDLINE)
        .and_then(command_line)
        .ok_or(("there is no valid .cmdline section", Status::NOT_FOUND))?;
    measure::sections(&image);
    measure::hand_over(&image);
    let tree = image.loaded_section(DTB);
    tree.into_iter().flat_map(device_tree::reserved_memory).for_each(reserve);
    let kernel = Kernel::place(kernel)?;

    let tree = tree.map(install_tree).transpose()?;
    let initrd = image.loaded_section(INITRD).map(|content| InitrdFile {
        load_file: load_initrd,
        start: content.as_ptr(),
        length: content.len(),
    });
    let offer = initrd.as_ref().map(Offer::new).transpose()?;
    let options: Vec<u16> = line.encode_utf16().chain([0]).collect();
    let status = kernel.start(&options);
    drop(offer);
    drop(tree);
    status
}

/// Takes memory that the device tree reserves out of the firmware's hands, before the kernel's own loader may be given it:
/// what a panic left there must still be there when the kernel looks. Where the firmware reserved it already, this fails,
/// as it should.
fn reserve((start, size): (u64, u64)) {
    let pages = usize::try_from(size).unwrap_or(0).div_ceil(boot::PAGE_SIZE);
    let _ = boot::allocate_pages(AllocateType::Address(start), MemoryType::RESERVED, pages);
}

/// The bytes of the firmware's device tree; nothing when there is none.
///
/// # Safety
/// `table` is null, or the firmware's table with a device tree, which stays as it is.
unsafe fn firmware_tree<'tree>(table: *const c_void) -> Option<&'tree [u8]> {
    /// As the kernel, which takes no larger one (Documentation/arch/arm64/booting.rst).
    const LARGEST: u32 = 2 << 20;
    if table.is_null() {
        return None;
    }
    // SAFETY: a tree begins with a header of 40 bytes.
    let header: [u8; 8] = unsafe { *table.cast() };
    let size = device_tree::size(&header).filter(|size| (40..=LARGEST).contains(size))?;
    // SAFETY: so long is the tree by its own header, and the firmware gives no other.
    Some(unsafe { core::slice::from_raw_parts(table.cast(), size as usize) })
}

/// The firmware's device tree table.
struct DeviceTreeTable;

impl Table for DeviceTreeTable {
    type Error = uefi::Error;

    unsafe fn set(&mut self, table: *const c_void) -> Result<(), uefi::Error> {
        // SAFETY: by this function's contract.
        unsafe { boot::install_configuration_table(&DEVICE_TREE_TABLE, table) }
    }

    unsafe fn free(&mut self, table: *const c_void) {
        if let Some(memory) = ptr::NonNull::new(table.cast_mut().cast()) {
            // SAFETY: allocated as a pool in `install_tree`, and used by nobody by this function's contract.
            let _ = unsafe { boot::free_pool(memory) };
        }
    }

    fn stays(&mut self, error: uefi::Error) {
        say(format_args!("belvedere: kernel stub: the device tree stays: {}", error.status()));
    }
}

/// Makes a copy of a device tree, in memory that the kernel keeps, the firmware's.
fn install_tree(tree: &[u8]) -> Result<Exchange<DeviceTreeTable>, Failure> {
    let failed = |error: uefi::Error| ("cannot install the device tree", error.status());
    if tree.get(..4) != Some(&[0xd0, 0x0d, 0xfe, 0xed]) {
        return Err(("the .dtb section is no device tree", Status::LOAD_ERROR));
    }
    let before = system::with_config_table(|tables| {
        tables.iter().find(|table| table.guid == DEVICE_TREE_TABLE).map_or(ptr::null(), |table| table.address)
    });
    let mut copy = tree.to_vec();
    // SAFETY: what the firmware gives as its tree, which nothing changes while this runs.
    unsafe { firmware_tree(before) }.map_or_else(Firmware::default, Firmware::of).write_to(&mut copy);
    let memory = boot::allocate_pool(MemoryType::ACPI_RECLAIM, copy.len()).map_err(failed)?;
    // SAFETY: freshly allocated with this length; `before` is the table, and ours is a tree that nobody else knows.
    unsafe {
        ptr::copy_nonoverlapping(copy.as_ptr(), memory.as_ptr(), copy.len());
        Exchange::begin(DeviceTreeTable, before, memory.as_ptr().cast()).map_err(failed)
    }
}

/// The initramfs, loadable at the device path that Linux looks for until this is dropped.
///
/// It must go when the kernel gives up: the next slot's kernel would otherwise be given this slot's initramfs, out of
/// memory that is no longer ours.
struct Offer<'file> {
    handle: Handle,
    file: &'file InitrdFile,
}

impl<'file> Offer<'file> {
    fn new(file: &'file InitrdFile) -> Result<Self, Failure> {
        let failed = |error: uefi::Error| ("cannot offer the initramfs", error.status());
        // SAFETY: the path is static, and both are withdrawn before `file` ends.
        let handle = unsafe { boot::install_protocol_interface(None, &DEVICE_PATH, INITRD_PATH.0.as_ptr().cast()) }
            .map_err(failed)?;
        let offer = Self { handle, file };
        // SAFETY: as above.
        unsafe { boot::install_protocol_interface(Some(handle), &LOAD_FILE2, ptr::from_ref(file).cast()) }
            .map_err(failed)?;
        Ok(offer)
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` installed; if the second was never installed, the firmware says so and no more.
        unsafe {
            let _ = boot::uninstall_protocol_interface(self.handle, &LOAD_FILE2, ptr::from_ref(self.file).cast());
            let _ = boot::uninstall_protocol_interface(self.handle, &DEVICE_PATH, INITRD_PATH.0.as_ptr().cast());
        }
    }
}
