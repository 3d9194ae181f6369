//! What applications leave behind, as bad as we could think of.

use super::*;
use rustix::fs::FileType;
use std::ffi::CStr;

const ALWAYS: &dyn Fn() -> bool = &|| true;

fn open(path: &Path) -> OwnedFd {
    fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// `levels` directories, one in another.
fn deep(at: &Path, levels: usize) {
    let mut here = open(at);
    for _ in 0..levels {
        fs::mkdirat(&here, c"d", Mode::RWXU).unwrap();
        here = fs::openat(&here, c"d", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    fs::openat(&here, c"bottom", OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR).unwrap();
}

fn state() -> (tempfile::TempDir, Discard, PathBuf) {
    // In memory: tens of thousands of names on a disk take half a minute.
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    let discard = Discard::new(state.path());
    let victim = state.path().join("upper");
    std::fs::create_dir(&victim).unwrap();
    (state, discard, victim)
}

fn left(state: &tempfile::TempDir) -> usize {
    std::fs::read_dir(state.path().join("discarded")).unwrap().count()
}

/// Runtime D1: `std::fs::remove_dir_all` aborts the process here. A thread has 2 MiB of stack; this one has a quarter.
#[test]
fn twenty_thousand_levels_are_removed_with_a_small_stack_and_few_descriptors() {
    let (state, discard, victim) = state();
    deep(&victim, 20_000);
    let highest = std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(move || {
            discard.take(&victim).unwrap();
            assert!(!victim.exists());
            let highest = AtomicU64::new(0);
            let calls = AtomicU64::new(0);
            let watch = || {
                if !calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(500) {
                    return true;
                }
                highest.fetch_max(std::fs::read_dir("/proc/thread-self/fd").unwrap().count() as u64, Ordering::Relaxed);
                true
            };
            let before = std::fs::read_dir("/proc/thread-self/fd").unwrap().count() as u64;
            assert_eq!(discard.empty(&watch).unwrap(), Emptied::Whole);
            // Other tests of this process open files too; a descriptor a level would be thousands.
            highest.into_inner().saturating_sub(before)
        })
        .unwrap()
        .join()
        .unwrap();
    assert!(highest < 500, "{highest} descriptors");
    assert_eq!(left(&state), 0);
}

#[test]
fn odd_names_and_odd_files_are_removed_and_what_links_lead_to_stays() {
    let (state, discard, victim) = state();
    let here = open(&victim);
    let outside = state.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    let long = CString::new(vec![b'n'; 255]).unwrap();
    for name in [c"\xff\xfe not text", c"new\nline", c"-rf", c"..hidden", &long] {
        let name: &CStr = name;
        fs::mkdirat(&here, name, Mode::RWXU).unwrap();
        let inner = fs::openat(&here, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        fs::openat(&inner, name, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR).unwrap();
    }
    std::os::unix::fs::symlink(&outside, victim.join("link to a directory")).unwrap();
    std::os::unix::fs::symlink(outside.join("precious"), victim.join("link to a file")).unwrap();
    std::os::unix::fs::symlink("link in a circle", victim.join("link in a circle")).unwrap();
    std::fs::hard_link(outside.join("precious"), victim.join("hard link")).unwrap();
    fs::mknodat(&here, c"pipe", FileType::Fifo, Mode::RUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(victim.join("socket")).unwrap());
    std::fs::File::create(victim.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    std::fs::create_dir_all(victim.join("closed/inner")).unwrap();
    fs::chmodat(&here, c"closed", Mode::empty(), AtFlags::empty()).unwrap();
    if rustix::process::geteuid().is_root() {
        fs::mknodat(&here, c"device", FileType::CharacterDevice, Mode::RUSR, fs::makedev(1, 3)).unwrap();
    }
    discard.take(&victim).unwrap();
    assert_eq!(discard.empty(ALWAYS).unwrap(), Emptied::Whole);
    assert_eq!(left(&state), 0);
    assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"x");
}

#[test]
fn wide_and_deep_trees_are_removed_and_the_memory_of_names_is_bounded() {
    let (state, discard, victim) = state();
    for number in 0..2 * REMEMBERED {
        std::fs::create_dir_all(victim.join(format!("{number}/inner"))).unwrap();
        std::fs::write(victim.join(format!("{number}/file")), "x").unwrap();
    }
    discard.take(&victim).unwrap();
    assert_eq!(discard.empty(ALWAYS).unwrap(), Emptied::Whole);
    assert_eq!(left(&state), 0);
}

#[test]
fn what_was_interrupted_is_finished_by_the_next_start() {
    let (state, discard, victim) = state();
    deep(&victim, 300);
    discard.take(&victim).unwrap();
    let steps = AtomicU64::new(0);
    let few = || steps.fetch_add(1, Ordering::Relaxed) < 100;
    assert_eq!(discard.empty(&few).unwrap(), Emptied::Interrupted);
    assert!(left(&state) > 0);
    let next = Discard::new(state.path());
    // Its names begin anew, and meet those of the run before.
    let again = state.path().join("again");
    deep(state.path(), 0);
    std::fs::create_dir(&again).unwrap();
    deep(&again, 50);
    next.take(&again).unwrap();
    assert_eq!(next.empty(ALWAYS).unwrap(), Emptied::Whole);
    assert_eq!(left(&state), 0);
}

#[test]
fn nothing_and_files_can_be_taken_too() {
    let (state, discard, _victim) = state();
    discard.take(&state.path().join("nothing")).unwrap();
    std::fs::write(state.path().join("file"), "x").unwrap();
    discard.take(&state.path().join("file")).unwrap();
    assert_eq!(discard.empty(ALWAYS).unwrap(), Emptied::Whole);
    assert_eq!(left(&state), 0);
}

/// A mount point cannot be removed, must not be emptied, and does not keep the rest.
#[test]
fn a_mount_point_is_left_with_what_is_in_it_and_the_rest_goes() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
    let (state, discard, victim) = state();
    let (mount, rest) = (victim.join("a/mount"), victim.join("a/rest"));
    std::fs::create_dir_all(&mount).unwrap();
    std::fs::create_dir_all(&rest).unwrap();
    // A name space of its own, so that no mount outlives the test.
    std::thread::spawn(move || {
        // SAFETY: only this thread's view of mounts changes (and its file system attributes, which it shares with nobody
        // after this); no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS) }
            .unwrap();
        let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        rustix::mount::mount("none", &mount, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        std::fs::write(mount.join("kept"), "x").unwrap();
        discard.take(&victim).unwrap();
        let Emptied::Left { problem } = discard.empty(ALWAYS).unwrap() else { panic!("a mount point was removed") };
        assert!(problem.contains("mount") || problem.contains("busy"), "{problem}");
        let found = std::process::Command::new("find").arg(state.path()).args(["-name", "kept"]).output().unwrap();
        assert!(String::from_utf8_lossy(&found.stdout).contains("/mount/kept") || !found.stdout.is_empty());
        let found = std::process::Command::new("find").arg(state.path()).args(["-name", "rest"]).output().unwrap();
        assert!(found.stdout.is_empty(), "the rest went");
    })
    .join()
    .unwrap();
}
