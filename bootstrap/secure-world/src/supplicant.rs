//! Answers what the secure world asks of the normal one. OP-TEE calls back while one of our calls is under way, so this runs in
//! a thread of its own.

use crate::device::{SharedMemory, open_device, run_on};
use crate::files::Files;
use crate::{Error, PRIVILEGED_DEVICE};
use belvedere_tee::Code;
use belvedere_tee::call::{Memory, RECEIVE, SEND};
use belvedere_tee::supplicant::{Call, FileCall, NAME, Request, Value, file_name, receive};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::BTreeMap;
use std::path::Path;

/// Most memory that the secure world is given, for one piece and in all, bytes. It asks for a few pages at a time.
const LARGEST: u64 = 256 << 10;
const MOST: u64 = 4 << 20;

/// Memory that both worlds see, by number.
trait Memories {
    fn allocate(&mut self, size: usize) -> Result<u64, Code>;
    fn free(&mut self, id: u64) -> Result<(), Code>;
    fn read(&self, id: u64, offset: usize, length: usize) -> Option<Vec<u8>>;
    fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> Option<()>;
}

/// Memory from the kernel.
struct DeviceMemories<'a> {
    device: &'a OwnedFd,
    all: BTreeMap<u64, (SharedMemory, usize)>,
}

impl Memories for DeviceMemories<'_> {
    fn allocate(&mut self, size: usize) -> Result<u64, Code> {
        let used: usize = self.all.values().map(|(_, size)| size).sum();
        if used as u64 + size as u64 > MOST {
            return Err(Code::OUT_OF_MEMORY);
        }
        let memory = SharedMemory::new(self.device.as_fd(), size).map_err(|_| Code::OUT_OF_MEMORY)?;
        let id = memory.id;
        self.all.insert(id, (memory, size));
        Ok(id)
    }

    fn free(&mut self, id: u64) -> Result<(), Code> {
        self.all.remove(&id).map(drop).ok_or(Code::NOT_FOUND)
    }

    fn read(&self, id: u64, offset: usize, length: usize) -> Option<Vec<u8>> {
        self.all.get(&id)?.0.read(offset, length)
    }

    fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> Option<()> {
        self.all.get_mut(&id)?.0.write(offset, bytes)
    }
}

/// Serves until the device fails; gives then why. Never returns while all is well.
pub fn serve(device: &Device, files: &mut dyn Files) -> Error {
    let mut memories = DeviceMemories { device: &device.0, all: BTreeMap::new() };
    loop {
        let mut message = receive();
        match run_on(device.0.as_fd(), "wait for the secure world", RECEIVE, &mut message) {
            Err(Error::Driver { source, .. }) if source.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return error,
            Ok(()) => {}
        }
        // Without its message there is no answer: whoever waits for one would wait for ever, so this ends.
        let request = match Request::decode(&message) {
            Ok(request) => request,
            Err(error) => return error.into(),
        };
        let (code, value) = match carry_out(&request.call, &mut memories, files) {
            Ok(value) => (Code::SUCCESS, value),
            Err(code) => (code, Value::None),
        };
        let mut answer = request.answer(code, value);
        match run_on(device.0.as_fd(), "answer the secure world", SEND, &mut answer) {
            // Whoever had asked is gone.
            Err(Error::Driver { source, .. }) if source.raw_os_error() == Some(2) => {}
            Err(error) => return error,
            Ok(()) => {}
        }
    }
}

/// `/dev/teepriv0`. From when it is open on, the secure world's requests wait for [`serve`].
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Opens it.
    ///
    /// # Errors
    /// When there is none, or another process has it.
    pub fn open() -> Result<Self, Error> {
        open_device(Path::new(PRIVILEGED_DEVICE)).map(Self)
    }
}

fn carry_out(call: &Call, memories: &mut dyn Memories, files: &mut dyn Files) -> Result<Value, Code> {
    let place = |memory: Memory| {
        let offset = usize::try_from(memory.offset).map_err(|_| Code::BAD_PARAMETERS)?;
        let length = usize::try_from(memory.size.min(LARGEST)).map_err(|_| Code::BAD_PARAMETERS)?;
        if memory.size > LARGEST { Err(Code::BAD_PARAMETERS) } else { Ok((memory.id, offset, length)) }
    };
    let name = |memories: &dyn Memories, memory: Memory| {
        let (id, offset, length) = place(memory)?;
        let bytes = memories.read(id, offset, length.min(NAME)).ok_or(Code::BAD_PARAMETERS)?;
        file_name(&bytes).map(str::to_owned).ok_or(Code::BAD_PARAMETERS)
    };
    let call = match *call {
        Call::Allocate(size) if size == 0 || size > LARGEST => return Err(Code::OUT_OF_MEMORY),
        Call::Allocate(size) => return memories.allocate(size as usize).map(Value::Memory),
        Call::Free(id) => return memories.free(id).map(|()| Value::None),
        Call::Unknown => return Err(Code::NOT_SUPPORTED),
        Call::File(call) => call,
    };
    match call {
        FileCall::Open(memory) => files.open(&name(memories, memory)?, false).map(Value::Handle),
        FileCall::Create(memory) => files.open(&name(memories, memory)?, true).map(Value::Handle),
        FileCall::Close(handle) => {
            files.close(handle);
            Ok(Value::None)
        }
        FileCall::Read { handle, offset, into } => {
            let (id, start, length) = place(into)?;
            let mut bytes = vec![0; length];
            let came = files.read(handle, offset, &mut bytes)?;
            let bytes = bytes.get(..came).ok_or(Code::GENERIC)?;
            memories.write(id, start, bytes).ok_or(Code::BAD_PARAMETERS)?;
            Ok(Value::Length(came as u64))
        }
        FileCall::Write { handle, offset, from } => {
            let (id, start, length) = place(from)?;
            let bytes = memories.read(id, start, length).ok_or(Code::BAD_PARAMETERS)?;
            files.write(handle, offset, &bytes).map(|()| Value::None)
        }
        FileCall::Truncate(handle, length) => files.truncate(handle, length).map(|()| Value::None),
        FileCall::Remove(memory) => files.remove(&name(memories, memory)?).map(|()| Value::None),
        FileCall::Rename { replace, from, to } => {
            let (from, to) = (name(memories, from)?, name(memories, to)?);
            files.rename(&from, &to, replace).map(|()| Value::None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Directory;

    /// Memory in this process.
    #[derive(Default)]
    struct Plain(BTreeMap<u64, Vec<u8>>);

    impl Memories for Plain {
        fn allocate(&mut self, size: usize) -> Result<u64, Code> {
            let id = self.0.len() as u64;
            self.0.insert(id, vec![0; size]);
            Ok(id)
        }

        fn free(&mut self, id: u64) -> Result<(), Code> {
            self.0.remove(&id).map(drop).ok_or(Code::NOT_FOUND)
        }

        fn read(&self, id: u64, offset: usize, length: usize) -> Option<Vec<u8>> {
            Some(self.0.get(&id)?.get(offset..offset.checked_add(length)?)?.to_vec())
        }

        fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> Option<()> {
            self.0.get_mut(&id)?.get_mut(offset..offset.checked_add(bytes.len())?)?.copy_from_slice(bytes);
            Some(())
        }
    }

    struct World {
        memories: Plain,
        files: Directory,
        _directory: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self { memories: Plain::default(), files: Directory::new(directory.path()), _directory: directory }
        }

        fn ask(&mut self, call: Call) -> Result<Value, Code> {
            carry_out(&call, &mut self.memories, &mut self.files)
        }

        fn memory(&mut self, content: &[u8]) -> Memory {
            let Value::Memory(id) = self.ask(Call::Allocate(content.len() as u64)).unwrap() else { panic!() };
            self.memories.write(id, 0, content).unwrap();
            Memory { id, offset: 0, size: content.len() as u64 }
        }
    }

    #[test]
    fn a_file_is_made_written_read_and_removed() {
        let mut world = World::new();
        let name = world.memory(b"/dirf.db\0");
        assert_eq!(world.ask(Call::File(FileCall::Open(name))), Err(Code::NOT_FOUND));
        let Ok(Value::Handle(handle)) = world.ask(Call::File(FileCall::Create(name))) else { panic!() };
        let from = world.memory(b"content");
        world.ask(Call::File(FileCall::Write { handle, offset: 4, from })).unwrap();
        let into = world.memory(&[9; 20]);
        let read = world.ask(Call::File(FileCall::Read { handle, offset: 2, into }));
        assert_eq!(read, Ok(Value::Length(9)));
        assert_eq!(world.memories.0[&into.id][..10], *b"\0\0content\x09");
        world.ask(Call::File(FileCall::Truncate(handle, 5))).unwrap();
        assert_eq!(world.ask(Call::File(FileCall::Read { handle, offset: 0, into })), Ok(Value::Length(5)));
        let other = world.memory(b"/2\0");
        world.ask(Call::File(FileCall::Rename { replace: false, from: name, to: other })).unwrap();
        world.ask(Call::File(FileCall::Close(handle))).unwrap();
        assert_eq!(world.ask(Call::File(FileCall::Read { handle, offset: 0, into })), Err(Code::BAD_PARAMETERS));
        world.ask(Call::File(FileCall::Remove(other))).unwrap();
        assert_eq!(world.ask(Call::File(FileCall::Remove(other))), Err(Code::NOT_FOUND));
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        let mut world = World::new();
        for name in [&b"/../etc/passwd\0"[..], b"/a/b\0", b"no end"] {
            let memory = world.memory(name);
            for call in [FileCall::Open(memory), FileCall::Create(memory), FileCall::Remove(memory)] {
                assert_eq!(world.ask(Call::File(call)), Err(Code::BAD_PARAMETERS));
            }
        }
    }

    #[test]
    fn memory_that_is_not_there_is_refused() {
        let mut world = World::new();
        let name = world.memory(b"/a\0");
        let Ok(Value::Handle(handle)) = world.ask(Call::File(FileCall::Create(name))) else { panic!() };
        let real = world.memory(&[1; 16]);
        for memory in [
            Memory { id: 99, ..real },
            Memory { offset: 1, ..real },
            Memory { offset: u64::MAX, ..real },
            Memory { size: u64::MAX, ..real },
        ] {
            let write = FileCall::Write { handle, offset: 0, from: memory };
            assert_eq!(world.ask(Call::File(write)), Err(Code::BAD_PARAMETERS), "{memory:?}");
        }
        assert_eq!(world.ask(Call::Allocate(0)), Err(Code::OUT_OF_MEMORY));
        assert_eq!(world.ask(Call::Allocate(LARGEST + 1)), Err(Code::OUT_OF_MEMORY));
        assert_eq!(world.ask(Call::Unknown), Err(Code::NOT_SUPPORTED));
    }
}
