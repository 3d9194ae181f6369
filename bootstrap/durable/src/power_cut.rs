//! A disk whose power goes off before step N, and what must hold afterwards.

use crate::directory::write_directory_on;
use crate::file::{read_file_on, remove_file_on, write_file_on};
use crate::{Disk, read_file, remove_file, stage_directory, write_directory, write_file};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a medium may make of what was not synchronised.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unsynchronised {
    /// All of it is gone.
    Lost,
    /// All of it got there anyway.
    Kept,
    /// Names got there, file contents did not: what ext4 calls delayed allocation.
    NamesOnly,
    /// Names got there, and half of the bytes.
    Torn,
}

const FATES: [Unsynchronised; 4] =
    [Unsynchronised::Lost, Unsynchronised::Kept, Unsynchronised::NamesOnly, Unsynchronised::Torn];

#[derive(Clone, Debug, PartialEq)]
struct Content {
    now: Vec<u8>,
    /// `None`: never synchronised.
    medium: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    File(usize),
    Directory,
}

#[derive(Clone, Default)]
struct FakeDisk {
    contents: Vec<Content>,
    now: BTreeMap<PathBuf, Node>,
    medium: BTreeMap<PathBuf, Node>,
    steps: usize,
    cut_before: Option<usize>,
}

impl FakeDisk {
    fn step(&mut self) -> io::Result<()> {
        if self.cut_before == Some(self.steps) {
            return Err(io::Error::other("power cut"));
        }
        self.steps += 1;
        Ok(())
    }

    /// The next start.
    fn power_on(&self, fate: Unsynchronised) -> FakeDisk {
        let names = if fate == Unsynchronised::Lost { &self.medium } else { &self.now };
        let contents = self.contents.iter().map(|content| {
            let bytes = match (fate, &content.medium) {
                (Unsynchronised::Kept, _) => content.now.clone(),
                (_, Some(medium)) => medium.clone(),
                (Unsynchronised::Torn, None) => content.now[..content.now.len() / 2].to_vec(),
                (_, None) => Vec::new(),
            };
            Content { now: bytes.clone(), medium: Some(bytes) }
        });
        FakeDisk { contents: contents.collect(), now: names.clone(), medium: names.clone(), ..FakeDisk::default() }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.now.get(path) {
            Some(Node::File(number)) => Ok(*number),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn moved(names: &mut BTreeMap<PathBuf, Node>, from: &Path) -> Vec<(PathBuf, Node)> {
        let keys: Vec<PathBuf> = names.keys().filter(|key| key.starts_with(from)).cloned().collect();
        keys.into_iter()
            .map(|key| {
                let node = names.remove(&key).unwrap();
                (key.strip_prefix(from).unwrap().to_owned(), node)
            })
            .collect()
    }

    fn put(names: &mut BTreeMap<PathBuf, Node>, to: &Path, nodes: Vec<(PathBuf, Node)>) {
        for (rest, node) in nodes {
            names.insert(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) }, node);
        }
    }
}

impl Disk for FakeDisk {
    fn create(&mut self, path: &Path, bytes: &[u8], _mode: u32) -> io::Result<()> {
        self.step()?;
        if self.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.contents.push(Content { now: bytes.to_vec(), medium: None });
        self.now.insert(path.to_owned(), Node::File(self.contents.len() - 1));
        Ok(())
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        let number = self.file(path)?;
        self.contents[number].medium = Some(self.contents[number].now.clone());
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let nodes = Self::moved(&mut self.now, from);
        if nodes.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::put(&mut self.now, to, nodes);
        Ok(())
    }

    fn exchange(&mut self, one: &Path, other: &Path) -> io::Result<()> {
        self.step()?;
        let first = Self::moved(&mut self.now, one);
        let second = Self::moved(&mut self.now, other);
        Self::put(&mut self.now, other, first);
        Self::put(&mut self.now, one, second);
        Ok(())
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        // The names directly inside. What a renamed directory holds goes with its inode: when its new name is on the
        // medium, everything that was on the medium inside it is there too.
        let inside = |key: &PathBuf| key.starts_with(path) && key != path;
        let before: Vec<Node> = self.medium.values().cloned().collect();
        let mut next: BTreeMap<PathBuf, Node> =
            self.medium.iter().filter(|(key, _)| !inside(key)).map(|(key, node)| (key.clone(), node.clone())).collect();
        for (key, node) in self.now.iter().filter(|(key, _)| inside(key)) {
            let direct = key.parent() == Some(path);
            if direct || before.contains(node) {
                next.insert(key.clone(), node.clone());
            }
        }
        self.medium = next;
        Ok(())
    }

    fn sync_all(&mut self, _path: &Path) -> io::Result<()> {
        self.step()?;
        self.medium = self.now.clone();
        for content in &mut self.contents {
            content.medium = Some(content.now.clone());
        }
        Ok(())
    }

    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.step()?;
        Ok(self.file(path).ok().map(|number| self.contents[number].now.iter().copied().take(limit + 1).collect()))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.now.remove(path);
        Ok(())
    }

    fn make_directory(&mut self, path: &Path, _mode: u32) -> io::Result<()> {
        self.step()?;
        self.now.insert(path.to_owned(), Node::Directory);
        Ok(())
    }

    fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        Self::moved(&mut self.now, path);
        Ok(())
    }

    fn is_directory(&mut self, path: &Path) -> io::Result<bool> {
        self.step()?;
        Ok(self.now.get(path) == Some(&Node::Directory))
    }
}

const OLD: &[u8] = b"the old content";
const NEW: &[u8] = b"the new content, which is longer";

fn state() -> &'static Path {
    Path::new("/state")
}

/// Runs `work` on `disk` with a power cut before every step, hands every possible next start to `check` with whether
/// `work` had succeeded, and says how many cuts there were.
fn cut_everywhere(
    disk: &FakeDisk,
    mut work: impl FnMut(&mut FakeDisk) -> bool,
    mut check: impl FnMut(FakeDisk, bool, &str),
) -> usize {
    for cut in 0.. {
        let mut attempt = FakeDisk { steps: 0, cut_before: Some(cut), ..disk.clone() };
        let succeeded = work(&mut attempt);
        for fate in FATES {
            check(attempt.power_on(fate), succeeded, &format!("cut before step {cut}, the rest {fate:?}"));
        }
        if succeeded {
            return cut;
        }
    }
    unreachable!()
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_file_or_the_new_one() {
    let mut disk = FakeDisk::default();
    write_file_on(&mut disk, state(), "identity", OLD, 0o600).unwrap();
    let (mut olds, mut news) = (0, 0);
    let cuts = cut_everywhere(
        &disk,
        |disk| write_file_on(disk, state(), "identity", NEW, 0o600).is_ok(),
        |mut disk, succeeded, when| {
            let found = read_file_on(&mut disk, state(), "identity", 100).unwrap();
            match found.as_deref() {
                Some(NEW) => news += 1,
                Some(OLD) if !succeeded => olds += 1,
                other => panic!("{when}: {other:?}"),
            }
            // And whatever is left over does not stand in the way.
            write_file_on(&mut disk, state(), "identity", NEW, 0o600).unwrap();
        },
    );
    assert!(cuts >= 5 && olds > 0 && news > 0, "{cuts} {olds} {news}");
}

#[test]
fn a_power_cut_during_the_first_write_leaves_no_file_or_the_whole_file() {
    cut_everywhere(
        &FakeDisk::default(),
        |disk| write_file_on(disk, state(), "identity", NEW, 0o600).is_ok(),
        |mut disk, succeeded, when| match read_file_on(&mut disk, state(), "identity", 100).unwrap().as_deref() {
            Some(NEW) => {}
            None if !succeeded => {}
            other => panic!("{when}: {other:?}"),
        },
    );
}

#[test]
fn a_removed_file_stays_removed() {
    let mut disk = FakeDisk::default();
    write_file_on(&mut disk, state(), "claim", OLD, 0o600).unwrap();
    cut_everywhere(
        &disk,
        |disk| remove_file_on(disk, state(), "claim").is_ok(),
        |mut disk, succeeded, when| match read_file_on(&mut disk, state(), "claim", 100).unwrap().as_deref() {
            None => {}
            Some(OLD) if !succeeded => {}
            other => panic!("{when}: {other:?}"),
        },
    );
}

#[test]
fn a_power_cut_at_any_step_leaves_all_old_files_or_all_new_ones() {
    let old: &[(&str, &[u8], u32)] = &[("key", b"old key", 0o600), ("certificate", b"old certificate", 0o644)];
    let new: &[(&str, &[u8], u32)] = &[("key", b"new key", 0o600), ("certificate", b"new certificate", 0o644)];
    let mut disk = FakeDisk::default();
    for first in [true, false] {
        let before = disk.clone();
        cut_everywhere(
            &before,
            |disk| write_directory_on(disk, state(), "identity", 0o700, new).is_ok(),
            |mut disk, succeeded, when| {
                let directory = state().join("identity");
                let found: Vec<Option<Vec<u8>>> =
                    new.iter().map(|(name, _, _)| read_file_on(&mut disk, &directory, name, 100).unwrap()).collect();
                let is = |set: &[(&str, &[u8], u32)]| {
                    found.iter().zip(set).all(|(found, (_, bytes, _))| found.as_deref() == Some(*bytes))
                };
                let none = first && found.iter().all(Option::is_none);
                assert!(is(new) || (!succeeded && (is(old) || none)), "{when}: {found:?}");
                write_directory_on(&mut disk, state(), "identity", 0o700, new).unwrap();
            },
        );
        write_directory_on(&mut disk, state(), "identity", 0o700, old).unwrap();
    }
}

/// The tests above can fail: writing in place, or renaming before synchronising, is caught by this disk.
#[test]
fn the_fake_disk_catches_the_usual_mistakes() {
    let torn = |work: fn(&mut FakeDisk) -> io::Result<()>| {
        let mut disk = FakeDisk::default();
        write_file_on(&mut disk, state(), "identity", OLD, 0o600).unwrap();
        let mut bad = 0;
        cut_everywhere(
            &disk,
            |disk| work(disk).is_ok(),
            |mut disk, succeeded, _| match read_file_on(&mut disk, state(), "identity", 100).unwrap().as_deref() {
                Some(NEW) => {}
                Some(OLD) if !succeeded => {}
                _ => bad += 1,
            },
        );
        bad
    };
    let in_place = torn(|disk| {
        disk.remove(Path::new("/state/identity"))?;
        disk.create(Path::new("/state/identity"), NEW, 0o600)?;
        disk.sync_file(Path::new("/state/identity"))
    });
    let unsynchronised = torn(|disk| {
        disk.create(Path::new("/state/new"), NEW, 0o600)?;
        disk.rename(Path::new("/state/new"), Path::new("/state/identity"))?;
        disk.sync_directory(state())
    });
    let directory_forgotten = torn(|disk| {
        disk.create(Path::new("/state/new"), NEW, 0o600)?;
        disk.sync_file(Path::new("/state/new"))?;
        disk.rename(Path::new("/state/new"), Path::new("/state/identity"))
    });
    assert!(in_place > 0 && unsynchronised > 0 && directory_forgotten > 0);
}

#[test]
fn real_files_and_directories() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    assert_eq!(read_file(at, "state", 10).unwrap(), None);
    write_file(at, "state", b"0123456789", 0o640).unwrap();
    assert_eq!(read_file(at, "state", 10).unwrap().unwrap(), b"0123456789");
    assert!(matches!(read_file(at, "state", 9), Err(crate::DurableError::TooLarge { .. })));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(at.join("state")).unwrap().permissions().mode() & 0o7777, 0o640);
    remove_file(at, "state").unwrap();
    remove_file(at, "state").unwrap();
    assert_eq!(read_file(at, "state", 10).unwrap(), None);

    write_directory(at, "set", 0o700, &[("a", b"1", 0o600)]).unwrap();
    write_directory(at, "set", 0o700, &[("b", b"2", 0o600)]).unwrap();
    assert_eq!(read_file(at.join("set"), "a", 10).unwrap(), None);
    assert_eq!(read_file(at.join("set"), "b", 10).unwrap().unwrap(), b"2");
    let staged = stage_directory(at, "set", 0o755).unwrap();
    std::fs::create_dir(staged.path().join("deep")).unwrap();
    std::fs::write(staged.path().join("deep/file"), "3").unwrap();
    staged.commit().unwrap();
    assert_eq!(read_file(at.join("set/deep"), "file", 10).unwrap().unwrap(), b"3");
    assert_eq!(std::fs::read_dir(at).unwrap().count(), 1);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", &"x".repeat(201)] {
        assert!(matches!(write_file(directory.path(), name, b"", 0o600), Err(crate::DurableError::Name(_))), "{name}");
        assert!(read_file(directory.path(), name, 1).is_err());
    }
    std::os::unix::fs::symlink("/etc/hostname", directory.path().join("link")).unwrap();
    assert!(read_file(directory.path(), "link", 1000).is_err());
}
