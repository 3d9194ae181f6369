//! The kernel in memory, and its start.
//!
//! Two ways were open to start a kernel that has no signature of its own. To replace the firmware's check for one call of
//! `LoadImage` (EFI_SECURITY2_ARCH_PROTOCOL, as systemd-stub did for years) changes a table of the firmware that every
//! other loader uses, and not every firmware has it. This is the other one: a small loader of our own, over bytes that the
//! firmware has verified already. The kernel is called with the *stub's* image handle, whose LoadedImage is lent to it: a
//! handle of our making would lack what firmware keeps behind a LoadedImage, and firmware reaches for that.

use core::ffi::c_void;
use core::mem;
use core::ptr::{self, NonNull};

use belvedere_kernel_stub::{Layout, LayoutError};
use uefi::boot::{self, AllocateType, MemoryAttribute, MemoryType, OpenProtocolAttributes, OpenProtocolParams, PAGE_SIZE};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::security::MemoryProtection;
use uefi::{Handle, Status, table};

use crate::start::Failure;

/// A kernel that is ready to be started. Its memory is given back when this is dropped.
pub struct Kernel {
    pages: NonNull<u8>,
    count: usize,
    /// The first address in `pages` that is aligned as the kernel wants it.
    base: usize,
    layout: Layout,
    protection: Option<Handle>,
}

impl Kernel {
    /// Lays the kernel out in memory of its own.
    pub fn place(bytes: &[u8]) -> Result<Self, Failure> {
        let layout = Layout::of(bytes).map_err(|error: LayoutError| (error.words(), Status::LOAD_ERROR))?;
        // Enough to find an aligned base in it. The kind is what the kernel's own check of its surroundings expects.
        let count = (layout.size + layout.alignment) / PAGE_SIZE;
        let pages = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_CODE, count)
            .map_err(|error| ("there is no memory for the kernel", error.status()))?;
        let base = (pages.as_ptr() as usize).next_multiple_of(layout.alignment);
        let kernel =
            Self { pages, count, base, layout, protection: boot::get_handle_for_protocol::<MemoryProtection>().ok() };
        kernel.protect(0..kernel.layout.size, MemoryAttribute::EXECUTE_PROTECT)?;
        // SAFETY: `count` pages were just allocated from `pages` on; `base` is less than `alignment` behind it, so that
        // `size` bytes follow; nobody else knows of them.
        let memory = unsafe {
            ptr::write_bytes(base as *mut u8, 0, kernel.layout.size);
            core::slice::from_raw_parts_mut(base as *mut u8, kernel.layout.size)
        };
        if !kernel.layout.fill(bytes, memory) {
            return Err(("the kernel does not fit its own layout", Status::LOAD_ERROR));
        }
        for segment in kernel.layout.segments.iter().filter(|segment| segment.executable) {
            synchronise_code(base + segment.memory.start, segment.memory.len());
            kernel.protect(segment.memory.clone(), MemoryAttribute::READ_ONLY)?;
        }
        Ok(kernel)
    }

    /// Gives a part of the kernel's memory this protection and no other, where the firmware protects memory at all
    /// (EFI_MEMORY_ATTRIBUTE_PROTOCOL); elsewhere memory of this kind is writable and executable.
    fn protect(&self, part: core::ops::Range<usize>, wanted: MemoryAttribute) -> Result<(), Failure> {
        let Some(handle) = self.protection else { return Ok(()) };
        if part.is_empty() {
            return Ok(());
        }
        let failed = |status: Status| ("the kernel's memory cannot be protected", status);
        let parameters = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
        // SAFETY: nothing connects or disconnects drivers while the protocol is held.
        let protection = unsafe { boot::open_protocol::<MemoryProtection>(parameters, OpenProtocolAttributes::GetProtocol) }
            .map_err(|error| failed(error.status()))?;
        let (start, end) = ((self.base + part.start) as u64, (self.base + part.end) as u64);
        let all = MemoryAttribute::READ_ONLY | MemoryAttribute::EXECUTE_PROTECT | MemoryAttribute::READ_PROTECT;
        let unwanted = all.difference(wanted);
        protection.set_memory_attributes(start..end, wanted).map_err(|error| failed(error.status()))?;
        protection.clear_memory_attributes(start..end, unwanted).map_err(|error| failed(error.status()))
    }

    /// Starts the kernel with these load options (UTF-16 with a NUL); comes back only when it gave up.
    pub fn start(&self, options: &[u16]) -> Result<Status, Failure> {
        let system = table::system_table_raw().ok_or(("there is no system table", Status::LOAD_ERROR))?;
        let lent = Lent::new(self.base, self.layout.size, options)?;
        // SAFETY: `layout` made sure that the entry point lies in an executable section of an arm64 EFI application, whose
        // bytes are as the firmware verified them; that is the signature of such an entry point.
        let entry: unsafe extern "efiapi" fn(*mut c_void, *const c_void) -> Status =
            unsafe { mem::transmute(self.base + self.layout.entry) };
        // SAFETY: as above; the handle's LoadedImage describes the kernel.
        let status = unsafe { entry(boot::image_handle().as_ptr(), system.as_ptr().cast_const().cast()) };
        drop(lent);
        Ok(status)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // Memory that is handed back must be writable for whoever gets it next.
        let _ = self.protect(0..self.layout.size, MemoryAttribute::EXECUTE_PROTECT);
        // SAFETY: exactly what `place` allocated; the kernel has returned or never ran.
        let _ = unsafe { boot::free_pages(self.pages, self.count) };
    }
}

/// The stub's own LoadedImage, as it was; put back when this is dropped, for the firmware finds the stub by it.
struct Lent {
    base: *const c_void,
    size: u64,
    options: *const u8,
    options_size: u32,
}

impl Lent {
    fn new(base: usize, size: usize, options: &[u16]) -> Result<Self, Failure> {
        let bytes =
            u32::try_from(size_of_val(options)).map_err(|_| ("the command line is too long", Status::INVALID_PARAMETER))?;
        let mut lent = None;
        with_own_image(|own| {
            let (own_base, own_size) = own.info();
            let (own_options, own_length) =
                own.load_options_as_bytes().map_or((ptr::null(), 0), |all| (all.as_ptr(), all.len()));
            lent = Some(Self {
                base: own_base,
                size: own_size,
                options: own_options,
                options_size: u32::try_from(own_length).unwrap_or(0),
            });
            // SAFETY: the kernel's memory and the options outlive its run, after which both are put back.
            unsafe {
                own.set_image(base as *const c_void, size as u64);
                own.set_load_options(options.as_ptr().cast(), bytes);
            }
        })?;
        lent.ok_or(("cannot find its own image", Status::LOAD_ERROR))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _ = with_own_image(|own| {
            // SAFETY: as the firmware had set them.
            unsafe {
                own.set_image(self.base, self.size);
                own.set_load_options(self.options, self.options_size);
            }
        });
    }
}

/// Gives `work` the stub's own LoadedImage.
pub fn with_own_image<T>(work: impl FnOnce(&mut LoadedImage) -> T) -> Result<T, Failure> {
    let parameters = OpenProtocolParams { handle: boot::image_handle(), agent: boot::image_handle(), controller: None };
    // SAFETY: the image is not unloaded while it runs, and it alone looks at this protocol meanwhile.
    let own = unsafe { boot::open_protocol::<LoadedImage>(parameters, OpenProtocolAttributes::GetProtocol) };
    let mut own = own.map_err(|error| ("cannot find its own image", error.status()))?;
    Ok(work(&mut own))
}

/// Makes code that was written as data visible to instruction fetch.
#[cfg(target_arch = "aarch64")]
fn synchronise_code(start: usize, length: usize) {
    use core::arch::asm;
    let sizes: usize;
    // SAFETY: reads the sizes of cache lines, changes nothing.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) sizes, options(nomem, nostack, preserves_flags)) };
    let (data_line, code_line) = (4usize << (sizes >> 16 & 0xf), 4usize << (sizes & 0xf));
    let lines = |size: usize| (start & !(size - 1)..start + length).step_by(size);
    for line in lines(data_line) {
        // SAFETY: cleans one line of memory that is ours; its content stays.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    for line in lines(code_line) {
        // SAFETY: forgets one line of the instruction cache.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// Elsewhere the caches keep themselves coherent. (A kernel for arm64 is refused before it comes to that.)
#[cfg(not(target_arch = "aarch64"))]
fn synchronise_code(_: usize, _: usize) {}
