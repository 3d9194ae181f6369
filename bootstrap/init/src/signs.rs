//! What services say in the pipe of [`belvedere_varlink::READY_VARIABLE`]: that they are ready, then that they live.

use std::os::fd::OwnedFd;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Nothing is there now.
    None,
    /// The service is ready.
    Ready,
    /// It lives.
    Beat,
    /// Nobody can say anything any more.
    Closed,
}

/// Reads what lies in a pipe that does not block; a bounded part of it, for one that is filled without end. `ready`:
/// whether it was ready before.
pub fn read(pipe: &OwnedFd, ready: bool) -> Sign {
    let mut message = [0u8; 4096];
    match rustix::io::read(pipe, &mut message) {
        Ok(0) | Err(rustix::io::Errno::BADF) => Sign::Closed,
        Ok(_) if ready => Sign::Beat,
        Ok(count) if message[..count].starts_with(b"READY=1") => Sign::Ready,
        _ => Sign::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_comes_first_and_then_signs_of_life() {
        let (pipe, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let say = |bytes: &[u8]| rustix::io::write(&end, bytes).unwrap();
        assert_eq!(read(&pipe, false), Sign::None);
        // Who is not ready does not live.
        say(b"..");
        assert_eq!(read(&pipe, false), Sign::None);
        say(b"READY=1\n.");
        assert_eq!(read(&pipe, false), Sign::Ready);
        assert_eq!(read(&pipe, true), Sign::None);
        say(b"...");
        assert_eq!(read(&pipe, true), Sign::Beat);
        say(&[b'.'; 8192]);
        assert_eq!([read(&pipe, true), read(&pipe, true), read(&pipe, true)], [Sign::Beat, Sign::Beat, Sign::None]);
        drop(end);
        assert_eq!(read(&pipe, true), Sign::Closed);
    }
}
