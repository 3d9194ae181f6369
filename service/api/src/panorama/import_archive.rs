//! The archive of a package version, as it is given to be imported.
//!
//! A tar file, compressed with gzip or not, that holds one `package.json` and the files that it names (assets and
//! descriptors: `<sha256>.tar.gz`, `<sha256>.json`). Folders do not matter: `tar czf version.tar.gz
//! packages/<account>-<name>-<version> assets` in a project of `panorama-cli` makes one. Everything in it is hostile
//! until checked: entries, names and bytes are bounded, nothing is ever written under a name that it gives, and what
//! the package does not name is thrown away.

use super::registration::MAX_MANIFEST;
use crate::Api;
use belvedere_store::objects::Written;
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::io::{self, Read};
use tar::EntryType;
use tokio::runtime::Handle;

/// How much is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The archive, bytes.
    pub archive: u64,
    /// What is in it, bytes.
    pub unpacked: u64,
    /// Entries, folders among them.
    pub entries: usize,
    /// An entry's name, or other description, bytes.
    pub name: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { archive: 2 << 30, unpacked: 4 << 30, entries: 1000, name: 4096 }
    }
}

/// What was in an archive.
pub struct Unpacked {
    /// `package.json`.
    pub manifest: Vec<u8>,
    /// Other files, by name without folders. Those that nobody puts into the bucket vanish.
    pub files: BTreeMap<String, Written>,
}

/// Fails when more than so many bytes were read: what is compressed may be anything.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other("it unpacks to more than is allowed"))?;
        Ok(count)
    }
}

/// Gzip says so in its first two bytes.
fn decompressed(mut reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = [0; 2];
    reader.read_exact(&mut magic)?;
    let whole = io::Cursor::new(magic).chain(reader);
    Ok(if magic == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

/// The last part of a path.
fn base_name(path: &[u8]) -> Option<String> {
    let name = path.rsplit(|b| *b == b'/').next()?;
    let name = std::str::from_utf8(name).ok()?;
    (!name.is_empty() && name.len() <= 255).then(|| name.to_owned())
}

/// What describes the next entry: short, or refused.
fn description(entry: &mut impl Read, size: u64, limits: &Limits) -> io::Result<Vec<u8>> {
    if size > limits.name {
        return Err(io::Error::other("a name in it is too long"));
    }
    let mut bytes = Vec::new();
    entry.take(limits.name).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The path in a POSIX extended header; of several the last one counts.
fn pax_path(bytes: &[u8]) -> Option<Vec<u8>> {
    let paths = tar::PaxExtensions::new(bytes).flatten().filter(|e| e.key() == Ok("path"));
    paths.last().map(|e| e.value_bytes().to_vec())
}

/// Goes through an archive; `take` gets each file's name and bytes.
fn walk(
    reader: impl Read + Send + 'static,
    limits: &Limits,
    mut take: impl FnMut(String, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let unpacked = Bounded { inner: decompressed(reader)?, left: limits.unpacked };
    let mut archive = tar::Archive::new(unpacked);
    let mut long_name: Option<Vec<u8>> = None;
    for (count, entry) in archive.entries()?.raw(true).enumerate() {
        if count >= limits.entries {
            return Err(io::Error::other(format!("it has more than {} entries", limits.entries)));
        }
        let mut entry = entry?;
        let size = entry.size();
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                let name = description(&mut entry, size, limits)?;
                long_name = Some(name.into_iter().take_while(|b| *b != 0).collect());
            }
            EntryType::XHeader => long_name = pax_path(&description(&mut entry, size, limits)?),
            EntryType::Regular | EntryType::Continuous => {
                let path = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                if let Some(name) = base_name(&path) {
                    take(name, &mut entry)?;
                }
            }
            _ => long_name = None,
        }
    }
    Ok(())
}

/// Unpacks an archive into files that nobody names yet. The error is for the one who made the archive.
pub async fn unpack(
    api: &Api,
    reader: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    limits: Limits,
) -> Result<Unpacked, String> {
    let store = api.fleet.store.clone();
    let runtime = Handle::current();
    let work = tokio::task::spawn_blocking(move || -> io::Result<Unpacked> {
        let reader = tokio_util::io::SyncIoBridge::new_with_handle(reader, runtime.clone());
        let mut manifest: Option<Vec<u8>> = None;
        let mut files = BTreeMap::new();
        walk(reader, &limits, |name, bytes| {
            if name == "package.json" {
                let mut text = Vec::new();
                bytes.take(MAX_MANIFEST + 1).read_to_end(&mut text)?;
                if text.len() as u64 > MAX_MANIFEST {
                    return Err(io::Error::other(format!("package.json is larger than {MAX_MANIFEST} bytes")));
                }
                if manifest.replace(text).is_some() {
                    return Err(io::Error::other("it has more than one package.json"));
                }
                return Ok(());
            }
            let mut writer = runtime.block_on(store.object_writer()).map_err(io::Error::other)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                match bytes.read(&mut buffer)? {
                    0 => break,
                    count => {
                        runtime.block_on(writer.write(buffer.get(..count).unwrap_or_default())).map_err(io::Error::other)?
                    }
                }
            }
            let written = runtime.block_on(writer.finish()).map_err(io::Error::other)?;
            match files.insert(name.clone(), written) {
                None => Ok(()),
                Some(_) => Err(io::Error::other(format!("it has {name} twice"))),
            }
        })?;
        let manifest = manifest.ok_or_else(|| io::Error::other("it has no package.json"))?;
        Ok(Unpacked { manifest, files })
    });
    match work.await {
        Ok(outcome) => outcome.map_err(|e| format!("the archive is refused: {e}")),
        Err(_) => Err("the archive could not be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
        let mut out = Vec::new();
        encoder.read_to_end(&mut out).unwrap();
        out
    }

    fn names(bytes: Vec<u8>, limits: Limits) -> Result<Vec<(String, usize)>, String> {
        let mut seen = Vec::new();
        walk(io::Cursor::new(bytes), &limits, |name, reader| {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            seen.push((name, content.len()));
            Ok(())
        })
        .map_err(|e| e.to_string())?;
        Ok(seen)
    }

    #[test]
    fn folders_do_not_matter_and_gzip_is_found_by_itself() {
        let long = format!("{}/{}.tar.gz", "folder/".repeat(20), "a".repeat(64));
        let plain = tarball(&[("packages/1-CODE-1.0/package.json", b"{}"), (&long, b"xyz")]);
        let expected = vec![("package.json".to_owned(), 2), (format!("{}.tar.gz", "a".repeat(64)), 3)];
        assert_eq!(names(plain.clone(), Limits::default()).unwrap(), expected);
        assert_eq!(names(gzip(&plain), Limits::default()).unwrap(), expected);
    }

    #[test]
    fn every_bound_holds() {
        let bomb = gzip(&tarball(&[("a", &vec![0; 3 << 20])]));
        let small = Limits { unpacked: 1 << 20, ..Limits::default() };
        assert!(bomb.len() < 64 << 10);
        assert!(names(bomb, small).unwrap_err().contains("more than is allowed"));
        let many: Vec<(String, &[u8])> = (0..11).map(|n| (format!("f{n}"), &b""[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(n, b)| (n.as_str(), *b)).collect();
        let few = Limits { entries: 10, ..Limits::default() };
        assert!(names(tarball(&many), few).unwrap_err().contains("more than 10 entries"));
        assert_eq!(names(tarball(&many[..10]), few).unwrap().len(), 10);
        let name = "n/".repeat(80);
        let short = Limits { name: 100, ..Limits::default() };
        assert!(names(tarball(&[(&format!("{name}f"), b"")]), short).unwrap_err().contains("too long"));
        for garbage in [&b""[..], b"x", b"\x1f\x8b", b"\x1f\x8bgarbage", &[7; 1024]] {
            assert!(names(garbage.to_vec(), Limits::default()).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn links_and_devices_are_no_files() {
        let mut builder = tar::Builder::new(Vec::new());
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo, EntryType::Directory] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_path("package.json").unwrap();
            header.set_link_name("/etc/passwd").unwrap();
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        }
        assert_eq!(names(builder.into_inner().unwrap(), Limits::default()).unwrap(), []);
    }
}
