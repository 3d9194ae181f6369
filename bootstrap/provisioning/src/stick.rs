//! A mounted stick.

use crate::survey::{START_BYTES, file_system};
use crate::world::Stick;
use belvedere_provisioning_archive::{Listed, is_archive_name};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The folder that is ours.
const OURS: &str = "panorama";
/// What an archive is called from the moment that it is used up until it is overwritten and gone.
const RETIRED: &str = "belvedere-used-archive";
/// Entries of a root folder; FAT32 has no more.
const MAX_ENTRIES: usize = 65_536;
/// Archives of a root folder that are told of: two are too many already.
const MAX_ARCHIVES: usize = 16;
/// Never more is overwritten.
const MAX_WIPE: u64 = 64 << 20;
/// The permission that FAT's read-only attribute takes away.
const OWNER_WRITES: u32 = 0o200;
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// What a FAT volume of a stick may do to us: nothing.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC).union(MountFlags::NOATIME);

/// A stick whose files are under a directory.
pub struct DirectoryStick {
    root: PathBuf,
    /// Makes it writable before the first write.
    make_writable: Box<dyn FnMut() -> Result<(), String>>,
    writable: bool,
}

impl DirectoryStick {
    /// `make_writable` is called once, before the first write.
    pub fn new(root: &Path, make_writable: impl FnMut() -> Result<(), String> + 'static) -> Self {
        Self { root: root.to_owned(), make_writable: Box::new(make_writable), writable: false }
    }

    fn need_writable(&mut self) -> Result<(), String> {
        if !self.writable {
            (self.make_writable)()?;
            self.writable = true;
        }
        Ok(())
    }

    fn failed<'a>(&self, operation: &'a str, name: &'a str) -> impl Fn(std::io::Error) -> String + use<'a> {
        move |error| format!("{operation} {name} on the stick: {error}")
    }

    fn open(&self, name: &str, options: &mut OpenOptions) -> std::io::Result<File> {
        // FAT has no links; the check costs nothing and holds for whatever may be mounted one day.
        options.custom_flags(NO_LINK).open(self.root.join(name))
    }
}

/// Takes the read-only attribute away, which copies from some systems have: what is ours, or used up, is written all the same.
fn allow_writing(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(NO_LINK).open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & OWNER_WRITES == 0 {
        permissions.set_mode(permissions.mode() | OWNER_WRITES);
        file.set_permissions(permissions)?;
    }
    Ok(())
}

impl Stick for DirectoryStick {
    fn list(&mut self) -> Result<Vec<Listed>, String> {
        let failed = self.failed("list the root folder", "");
        let mut listed = Vec::new();
        for (number, entry) in fs::read_dir(&self.root).map_err(&failed)?.enumerate() {
            if number >= MAX_ENTRIES {
                return Err(format!("the stick's root folder holds more than {MAX_ENTRIES} files: use a stick with fewer"));
            }
            let entry = entry.map_err(&failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_archive_name(name)) else { continue };
            let is_file = entry.file_type().map_err(&failed)?.is_file();
            listed.push(Listed { name: name.to_owned(), is_file });
            if listed.len() >= MAX_ARCHIVES {
                break;
            }
        }
        Ok(listed)
    }

    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        self.open(name, OpenOptions::new().read(true))
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .map_err(self.failed("read", name))?;
        Ok(bytes)
    }

    fn has_ours(&mut self, name: &str) -> bool {
        self.root.join(OURS).join(name).is_file()
    }

    fn write_ours(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.need_writable()?;
        let folder = self.root.join(OURS);
        #[expect(
            clippy::disallowed_methods,
            reason = "synchronised here, and written anew when power failed: the archive is marked as used after it"
        )]
        let write = || {
            if !folder.is_dir() {
                fs::create_dir(&folder)?;
            }
            let path = folder.join(name);
            if path.is_file() {
                allow_writing(&path)?;
            }
            let mut file = File::create(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(self.failed("write", name))
    }

    #[expect(clippy::disallowed_methods, reason = "the directory is synchronised behind it")]
    fn retire(&mut self, name: &str) -> Result<(), String> {
        self.need_writable()?;
        // Overwriting it under its own name would leave a damaged archive after a power cut, and an error light with it.
        fs::rename(self.root.join(name), self.root.join(RETIRED))
            .and_then(|()| File::open(&self.root)?.sync_all())
            .map_err(self.failed("mark as used", name))
    }

    fn erase_retired(&mut self) -> Result<(), String> {
        if fs::symlink_metadata(self.root.join(RETIRED)).is_err() {
            return Ok(());
        }
        self.need_writable()?;
        let erase = || {
            allow_writing(&self.root.join(RETIRED))?;
            let mut file = self.open(RETIRED, OpenOptions::new().write(true))?;
            let mut left = file.metadata()?.len().min(MAX_WIPE);
            file.seek(SeekFrom::Start(0))?;
            let zeros = [0; 4096];
            while left > 0 {
                let part = left.min(zeros.len() as u64) as usize;
                file.write_all(&zeros[..part])?;
                left -= part as u64;
            }
            // The zeros must reach the medium before the name goes, or they never will.
            file.sync_all()?;
            drop(file);
            fs::remove_file(self.root.join(RETIRED))?;
            File::open(&self.root)?.sync_all()
        };
        erase().map_err(self.failed("erase", RETIRED))
    }
}

/// A mount that ends with this value.
pub struct Mounted {
    target: PathBuf,
}

impl Mounted {
    /// Mounts a FAT volume read-only.
    ///
    /// # Errors
    /// One line for the operator: it is no FAT volume, or it cannot be read.
    pub fn mount(device: &Path, target: &Path) -> Result<Self, String> {
        fs::create_dir_all(target).map_err(|error| format!("make {}: {error}", target.display()))?;
        let options = options()?;
        match mount(device, target, "vfat", FLAGS | MountFlags::RDONLY, options.as_c_str()) {
            Ok(()) => Ok(Self { target: target.to_owned() }),
            Err(rustix::io::Errno::INVAL) => {
                let mut start = Vec::new();
                let read = File::open(device).and_then(|file| file.take(START_BYTES as u64).read_to_end(&mut start));
                let is = match read.ok().and_then(|_| file_system(&start)) {
                    Some(name) => format!("formatted with {name}, not with FAT32"),
                    None => "not formatted with FAT32".into(),
                };
                Err(format!("the stick is {is}: format it with FAT32, copy the archive again and plug it in again"))
            }
            Err(error) => Err(format!("the stick cannot be read ({}: {error}): try another one", device.display())),
        }
    }

    /// The stick's files.
    pub fn stick(&self) -> DirectoryStick {
        let target = self.target.clone();
        DirectoryStick::new(&self.target, move || {
            let options = options()?;
            mount_remount(&target, FLAGS, options.as_c_str())
                .map_err(|error| format!("make the stick writable: {error}; is it write-protected?"))
        })
    }
}

/// Files of a FAT volume belong to whoever runs this, and names are UTF-8.
fn options() -> Result<CString, String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    CString::new(format!("uid={user},gid={group},umask=0077,utf8=1")).map_err(|error| error.to_string())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Writes are synchronised one by one; this waits for the directory's.
        if let Ok(root) = File::open(&self.target)
            && let Err(error) = rustix::fs::syncfs(&root)
        {
            log::warn!("synchronise the stick: {error}");
        }
        if unmount(&self.target, UnmountFlags::NOFOLLOW).is_err() {
            // The stick is gone, or something of it is still open: out of the tree at least.
            if let Err(error) = unmount(&self.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                log::warn!("unmount {}: {error}", self.target.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_limit_and_one_byte_more() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), [7; 100]).unwrap();
        let mut stick = DirectoryStick::new(root.path(), || Err("read-only".into()));
        assert_eq!(stick.read("a", 100).unwrap().len(), 100);
        assert_eq!(stick.read("a", 99).unwrap().len(), 100);
        assert_eq!(stick.read("a", 10).unwrap().len(), 11);
        assert!(stick.read("b", 10).unwrap_err().contains("read b on the stick"));
    }

    #[test]
    fn field_case_4200_photographs_before_the_archive() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..4200 {
            File::create(root.path().join(format!("IMG_{number:04}.JPG"))).unwrap();
        }
        fs::write(root.path().join("certificates-omni_x.zip"), "PK").unwrap();
        let listed = DirectoryStick::new(root.path(), || Ok(())).list().unwrap();
        assert_eq!(listed, [Listed { name: "certificates-omni_x.zip".into(), is_file: true }]);
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("certificates-omni_x.zip")).unwrap();
        let mut stick = DirectoryStick::new(root.path(), || Ok(()));
        assert!(stick.read("certificates-omni_x.zip", 10).is_err());
        assert!(!stick.list().unwrap()[0].is_file);
    }

    #[test]
    fn a_stick_is_made_writable_only_when_it_is_written() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("x.zip"), "secret").unwrap();
        let mut stick = DirectoryStick::new(root.path(), || Err("write-protected".into()));
        stick.list().unwrap();
        assert_eq!(stick.write_ours("r.txt", b"x"), Err("write-protected".into()));
        assert_eq!(stick.retire("x.zip"), Err("write-protected".into()));
        let mut stick = DirectoryStick::new(root.path(), || Ok(()));
        stick.write_ours("r.txt", b"x").unwrap();
        stick.write_ours("r.txt", b"yz").unwrap();
        assert!(stick.has_ours("r.txt"));
        assert_eq!(fs::read(root.path().join("panorama/r.txt")).unwrap(), b"yz");
        // The file's bytes are overwritten in place: a second name for them shows it.
        fs::hard_link(root.path().join("x.zip"), root.path().join("same")).unwrap();
        stick.retire("x.zip").unwrap();
        assert!(!root.path().join("x.zip").exists() && root.path().join(RETIRED).exists());
        stick.erase_retired().unwrap();
        assert!(!root.path().join(RETIRED).exists());
        stick.erase_retired().unwrap();
        assert_eq!(fs::read(root.path().join("same")).unwrap(), [0; 6]);
    }
    /// FAT's read-only attribute shows as a lack of write permission, which binds whoever has no right to pass over it.
    #[test]
    fn field_case_everything_on_the_stick_is_read_only() {
        let root = tempfile::tempdir().unwrap();
        let ours = root.path().join("panorama");
        fs::create_dir(&ours).unwrap();
        for (file, content) in [(root.path().join("x.zip"), "secret"), (ours.join("r.txt"), "of an earlier try")] {
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o500)).unwrap();
        }
        fs::hard_link(root.path().join("x.zip"), root.path().join("same")).unwrap();
        let wipe = || {
            let mut bound = rustix::thread::capabilities(None).unwrap();
            bound.effective.remove(rustix::thread::CapabilitySet::DAC_OVERRIDE);
            rustix::thread::set_capabilities(None, bound).unwrap();
            let mut stick = DirectoryStick::new(root.path(), || Ok(()));
            stick.write_ours("r.txt", b"yz")?;
            stick.retire("x.zip")?;
            stick.erase_retired()
        };
        // A thread of its own takes the lack of the right with it.
        assert_eq!(std::thread::scope(|scope| scope.spawn(wipe).join().unwrap()), Ok(()));
        assert!(!root.path().join(RETIRED).exists());
        assert_eq!(fs::read(root.path().join("same")).unwrap(), [0; 6]);
        assert_eq!(fs::read(ours.join("r.txt")).unwrap(), b"yz");
    }
}
