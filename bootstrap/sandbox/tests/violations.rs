//! Real processes in the real sandbox: what must work works, what must not ends or fails.
//!
//! A test starts this program again with the name of a deed; the second process enters the sandbox and does it.

use belvedere_sandbox::launched::{Launched, enter_before_exec};
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
    match Launched::ALL.into_iter().find(|launched| format!("{launched:?}") == name) {
        Some(launched) => enter_before_exec(launched).unwrap(),
        None => enter(profile(name)).unwrap(),
    }
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
            let _ = rustix::mount::unmount("/nonexistent/belvedere", rustix::mount::UnmountFlags::DETACH);
            DONE
        }
        // SAFETY: one thread, and the call is refused.
        "new user name space" => match unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) } {
            Ok(()) | Err(_) => DONE,
        },
        "become another program" => {
            use std::os::unix::process::CommandExt;
            let _ = Command::new("/bin/sh").args(["-c", &format!("exit {DONE}")]).exec();
            1
        }
        "load a program into the kernel" => {
            // SAFETY: no memory is handed over; the call is refused, or fails for lack of it.
            let _ = unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) };
            DONE
        }
        "packets of its own making" => match socket(AddressFamily::PACKET, SocketType::DGRAM, None) {
            Err(error) if refused(error) => REFUSED,
            _ => DONE,
        },
        "crypto of the kernel" => match socket(AddressFamily::from_raw(libc::AF_ALG as u16), SocketType::SEQPACKET, None) {
            Err(error) if refused(error) => REFUSED,
            _ => DONE,
        },
        "set the clock" => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            // A time that is none: the kernel looks at it and refuses, whoever asks. What counts is who gets that far.
            let _ =
                rustix::time::clock_settime(rustix::time::ClockId::Realtime, rustix::time::Timespec { tv_nsec: -1, ..now });
            DONE
        }
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

fn outcome(profile: impl std::fmt::Debug, deed: &str) -> ExitStatus {
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

/// boot D24: whoever did not close its own sandbox had none.
#[test]
fn what_the_launcher_starts_works_and_stays_what_it_is() {
    for launched in Launched::ALL {
        for deed in ["ordinary work", "become another program"] {
            assert_eq!(outcome(launched, deed).code(), Some(DONE), "{launched:?} {deed}");
        }
        let ends = ["become root", "new user name space", "load a program into the kernel"];
        let unmounts = launched == Launched::Provisioning;
        let sets_clock = matches!(launched, Launched::Provisioning | Launched::Network);
        for (deed, ends) in
            ends.map(|deed| (deed, true)).into_iter().chain([("mount", !unmounts), ("set the clock", !sets_clock)])
        {
            let status = outcome(launched, deed);
            let signal = ends.then_some(libc::SIGSYS);
            assert_eq!(status.signal(), signal, "{launched:?} {deed}: {status}");
        }
        let internet = if launched == Launched::FrontPanel { REFUSED } else { DONE };
        assert_eq!(outcome(launched, "internet").code(), Some(internet), "{launched:?}");
        let packets = if launched == Launched::Network { DONE } else { REFUSED };
        assert_eq!(outcome(launched, "packets of its own making").code(), Some(packets), "{launched:?}");
        assert_eq!(outcome(launched, "crypto of the kernel").code(), Some(REFUSED), "{launched:?}");
    }
}

#[test]
fn other_processes_get_no_signals() {
    assert_eq!(outcome(Profile::Inference, "kill another").code(), Some(REFUSED));
}
