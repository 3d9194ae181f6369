//! The kernel's device for the secure world: ioctls, and memory that both worlds see.

use crate::{Argument, DEVICE, Error, SecureWorld, Session};
use belvedere_tee::call::{self, Memory, PARAMETERS, Parameter};
use belvedere_tee::{Code, Malformed, Uuid};
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

/// Bytes for each argument of a command.
const PIECE: usize = 4096;

/// An ioctl on bytes that the kernel may read and write.
struct Call<'a> {
    command: u32,
    bytes: &'a mut [u8],
}

// SAFETY: the pointer is to all of `bytes`, which stay borrowed during the call; every command of `belvedere_tee::call` reads
// and writes as many bytes as it says in its size field, which `run` compares, and may write to them, so IS_MUTATING is true.
unsafe impl Ioctl for Call<'_> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        Opcode::from(self.command)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.bytes.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

/// Runs an ioctl whose structure is `bytes`.
fn run(device: BorrowedFd<'_>, what: &'static str, command: u32, bytes: &mut [u8]) -> Result<IoctlOutput, Error> {
    let size = (command >> 16 & 0x3fff) as usize;
    if bytes.len() != size {
        return Err(Error::TooLong(what));
    }
    // SAFETY: `Call` keeps what `Ioctl` asks for, and the length was just compared.
    unsafe { rustix::ioctl::ioctl(device, Call { command, bytes }) }
        .map_err(|error| Error::Driver { what, source: error.into() })
}

/// Runs an ioctl whose structure points to `message`, which the kernel reads and writes.
pub(crate) fn run_on(device: BorrowedFd<'_>, what: &'static str, command: u32, message: &mut [u8]) -> Result<(), Error> {
    let mut reference = call::reference(message.as_mut_ptr().expose_provenance() as u64, message.len());
    run(device, what, command, &mut reference).map(drop)
}

/// Memory that both worlds see. The other one may change it at any time: it is copied from and to, and never lent out.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    pub id: u64,
    start: *mut u8,
    size: usize,
    /// The kernel keeps the memory while this is open.
    _file: OwnedFd,
}

// SAFETY: the mapping belongs to this value alone, and is only touched through `&self` and `&mut self` by plain copies.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    pub fn new(device: BorrowedFd<'_>, size: usize) -> Result<Self, Error> {
        let what = "allocate memory that both worlds see";
        let mut allocation = call::allocation(size as u64);
        let file = run(device, what, call::ALLOCATE, &mut allocation)?;
        // SAFETY: the kernel just opened this file for us, and nobody else knows of it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        let (id, given) = call::allocated(&allocation);
        let id = u64::try_from(id).map_err(|_| Malformed("memory has a negative number"))?;
        if given < size as u64 {
            return Err(Malformed("memory is smaller than asked for").into());
        }
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let start = unsafe { mmap(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0) }
            .map_err(|error| Error::Driver { what, source: error.into() })?;
        Ok(Self { id, start: start.cast(), size, _file: file })
    }

    fn place(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        // SAFETY: within the mapping, as just compared.
        (end <= self.size).then(|| unsafe { self.start.add(offset) })
    }

    /// Copies out of it; nothing when that is not within it.
    pub fn read(&self, offset: usize, length: usize) -> Option<Vec<u8>> {
        let from = self.place(offset, length)?;
        let mut bytes = vec![0; length];
        // SAFETY: `from` has `length` bytes in the mapping, which no reference of ours points to.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), length) };
        Some(bytes)
    }

    /// Copies into it; nothing happens when that is not within it.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Option<()> {
        let to = self.place(offset, bytes.len())?;
        // SAFETY: as with reading.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Some(())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // What a command carried may be secret, and the pages go back to the kernel.
        // SAFETY: the mapping is ours, as long as this, and ends here.
        unsafe {
            ptr::write_bytes(self.start, 0, self.size);
            let _ = munmap(self.start.cast(), self.size);
        }
    }
}

/// Opens one of the two devices.
pub(crate) fn open_device(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::Driver { what: "open the secure world's device", source: error.into() })
}

/// OP-TEE, behind `/dev/tee0`.
#[derive(Debug)]
pub struct OpTee {
    device: Arc<OwnedFd>,
}

impl OpTee {
    /// Opens the device.
    ///
    /// # Errors
    /// When there is none, or another secure world.
    pub fn open() -> Result<Self, Error> {
        Self::at(Path::new(DEVICE))
    }

    /// Opens the device where it is.
    ///
    /// # Errors
    /// As [`OpTee::open`].
    pub fn at(path: &Path) -> Result<Self, Error> {
        let device = open_device(path)?;
        let mut version = [0; call::VERSION_SIZE];
        run(device.as_fd(), "ask which secure world there is", call::VERSION, &mut version)?;
        if call::is_op_tee(&version) { Ok(Self { device: Arc::new(device) }) } else { Err(Error::Other) }
    }
}

impl SecureWorld for OpTee {
    type Session = DeviceSession;

    fn open(&self, application: &Uuid) -> Result<DeviceSession, Error> {
        let what = "open a session with a trusted application";
        let memory = SharedMemory::new(self.device.as_fd(), PIECE * PARAMETERS)?;
        let mut message = call::open(application);
        run_on(self.device.as_fd(), what, call::OPEN_SESSION, &mut message)?;
        let number = call::opened(&message)?.map_err(|code| Error::Refused { what, code })?;
        Ok(DeviceSession { device: Arc::clone(&self.device), number, memory })
    }
}

/// A session through the device.
#[derive(Debug)]
pub struct DeviceSession {
    device: Arc<OwnedFd>,
    number: u32,
    memory: SharedMemory,
}

impl Session for DeviceSession {
    fn command(
        &mut self,
        what: &'static str,
        number: u32,
        mut arguments: [Argument<'_>; 4],
    ) -> Result<[(u64, u64); 4], Error> {
        let mut parameters = [Parameter::None; PARAMETERS];
        for (index, (argument, parameter)) in arguments.iter().zip(&mut parameters).enumerate() {
            let (offset, id) = (index * PIECE, self.memory.id);
            let mut place = |bytes: &[u8]| {
                let fits = bytes.len() <= PIECE;
                fits.then(|| self.memory.write(offset, bytes)).flatten().ok_or(Error::TooLong(what))?;
                Ok::<_, Error>(Memory { id, offset: offset as u64, size: bytes.len() as u64 })
            };
            *parameter = match argument {
                Argument::None => Parameter::None,
                Argument::Numbers(a, b) => Parameter::Input(*a, *b, 0),
                Argument::NumbersBack => Parameter::Output(0, 0, 0),
                Argument::Read(bytes) => Parameter::Read(place(bytes)?),
                Argument::Written(bytes) => Parameter::Written(place(bytes)?),
                Argument::Shared(bytes) => Parameter::Shared(place(bytes)?),
            };
        }
        let mut message = call::invoke(self.number, number, &parameters);
        run_on(self.device.as_fd(), what, call::INVOKE, &mut message)?;
        let back = call::invoked(&message)?.map_err(|code| Error::Refused { what, code })?;

        let mut numbers = [(0, 0); 4];
        let answers = arguments.iter_mut().zip(back).zip(&mut numbers).enumerate();
        for (index, ((argument, parameter), numbers)) in answers {
            match (argument, parameter) {
                (Argument::NumbersBack, Parameter::Output(a, b, _)) => *numbers = (a, b),
                (Argument::Written(bytes), Parameter::Written(came))
                | (Argument::Shared(bytes), Parameter::Shared(came)) => {
                    let length = usize::try_from(came.size).ok().filter(|&length| length <= bytes.len());
                    let length = length.ok_or(Error::Refused { what, code: Code(0xffff_0010) })?;
                    **bytes = self.memory.read(index * PIECE, length).ok_or(Error::TooLong(what))?;
                }
                _ => {}
            }
        }
        // The next command's memory holds nothing of this one's.
        let _ = self.memory.write(0, &[0; PIECE * PARAMETERS]);
        Ok(numbers)
    }
}

impl Drop for DeviceSession {
    fn drop(&mut self) {
        // It ends with the device's file at the latest.
        let _ = run(self.device.as_fd(), "close a session", call::CLOSE_SESSION, &mut self.number.to_le_bytes());
    }
}
