//! Real processes in the real sandbox: what must work works, what must not ends or fails.
//!
//! A test starts this program again with the name of a deed; the second process enters the sandbox and does it.

use belvedere_sandbox::{Profile, enter};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

const DEED: &str = "BELVEDERE_SANDBOX_DEED";
const DONE: i32 = 42;
const REFUSED: i32 = 43;

fn profile(name: &str) -> Profile {
    Profile::ALL.into_iter().find(|profile| format!("{profile:?}") == name).unwrap()
}

/// Does it, inside. Never returns.
fn perform(deed: &str) -> ! {
    let (name, deed) = deed.split_once(' ').unwrap();
    enter(profile(name)).unwrap();
    use rustix::net::{AddressFamily, SocketType, socket};
    let refused = |error: rustix::io::Errno| error == rustix::io::Errno::NOSYS;
    let outcome = match deed {
        "ordinary work" => {
            ordinary_work();
            DONE
        }
        "run a program" => {
            let marker = std::env::temp_dir().join(format!("belvedere-sandbox-marker-{}", std::process::id()));
            // Its end cannot even be waited for.
            let _ = Command::new("/bin/touch").arg(&marker).status();
            std::thread::sleep(std::time::Duration::from_millis(300));
            if marker.exists() { 1 } else { DONE }
        }
        "exec" => {
            use std::os::unix::process::CommandExt;
            let _ = Command::new("/bin/true").exec();
            DONE
        }
        "internet" => match socket(AddressFamily::INET, SocketType::STREAM, None) {
            Ok(_) => DONE,
            Err(error) if refused(error) => REFUSED,
            Err(_) => 1,
        },
        "raw packets" => match socket(AddressFamily::PACKET, SocketType::RAW, None) {
            Err(error) if refused(error) => REFUSED,
            _ => DONE,
        },
        "become root" => {
            let _ = rustix::thread::set_thread_uid(rustix::process::Uid::ROOT);
            DONE
        }
        "mount" => {
            let _ = rustix::mount::unmount("/tmp", rustix::mount::UnmountFlags::DETACH);
            DONE
        }
        // SAFETY: one thread, and the call is refused.
        "new user name space" => match unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) } {
            Ok(()) | Err(_) => DONE,
        },
        "kill another" => {
            match rustix::process::kill_process(rustix::process::getppid().unwrap(), rustix::process::Signal::CONT) {
                Err(error) if refused(error) => REFUSED,
                _ => DONE,
            }
        }
        _ => 2,
    };
    std::process::exit(outcome)
}

/// What decoder, inference, camera and display all do.
fn ordinary_work() {
    use std::io::{Read, Write};
    let directory = std::env::temp_dir().join(format!("belvedere-sandbox-{}", std::process::id()));
    let _ = std::fs::remove_file(&directory);
    let listener = std::os::unix::net::UnixListener::bind(&directory).unwrap();
    let path = directory.clone();
    let client = std::thread::spawn(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(b"hello").unwrap();
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    client.join().unwrap();
    std::fs::remove_file(&directory).unwrap();
    assert_eq!(text, "hello");
    let memory = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, 1 << 20).unwrap();
    rustix::fs::fcntl_add_seals(&memory, rustix::fs::SealFlags::SHRINK).unwrap();
    assert!(!std::fs::read_to_string("/proc/self/status").unwrap().is_empty());
    assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() > 2);
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert!(std::thread::available_parallelism().unwrap().get() > 0);
    assert!(vec![1u8; 16 << 20].iter().all(|&byte| byte == 1));
}

fn outcome(profile: Profile, deed: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--nocapture", "--test-threads=1"])
        .env(DEED, format!("{profile:?} {deed}"))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap()
}

/// Does nothing unless started by another test.
#[test]
fn inside() {
    if let Ok(deed) = std::env::var(DEED) {
        perform(&deed);
    }
}

#[test]
fn ordinary_work_goes_on() {
    for profile in Profile::ALL {
        assert_eq!(outcome(profile, "ordinary work").code(), Some(DONE), "{profile:?}");
    }
}

#[test]
fn what_no_service_does_ends_it() {
    for profile in Profile::ALL {
        for deed in ["exec", "become root", "mount", "new user name space"] {
            let status = outcome(profile, deed);
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{profile:?} {deed}: {status}");
        }
    }
}

#[test]
fn a_child_process_cannot_become_another_program() {
    // It is the child that the kernel ends; whoever started it learns that.
    assert_eq!(outcome(Profile::Decoder, "run a program").code(), Some(DONE));
}

#[test]
fn sockets_are_those_of_the_profile() {
    for profile in Profile::ALL {
        let expected = if profile == Profile::Camera { DONE } else { REFUSED };
        assert_eq!(outcome(profile, "internet").code(), Some(expected), "{profile:?}");
        assert_eq!(outcome(profile, "raw packets").code(), Some(REFUSED), "{profile:?}");
    }
}

#[test]
fn other_processes_get_no_signals() {
    assert_eq!(outcome(Profile::Inference, "kill another").code(), Some(REFUSED));
}
