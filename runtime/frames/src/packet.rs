//! One packet of a channel: a JSON message and the file descriptors beside it, over a Unix `SOCK_SEQPACKET` socket.
//!
//! What the packets say is in `formats/interfaces/src/channel.rs`; this is only how they travel. Used by every program
//! that serves or opens a channel (`decoder`, `inference`, `display`, `applications`).
//!
//! ```no_run
//! # use belvedere_frames::packet; use belvedere_interfaces::channel::frames::{Event, Request};
//! let socket = packet::connect(belvedere_interfaces::paths::FRAMES)?;
//! packet::send(&socket, &Request::Subscribe { stream_id: "camera".into(), owner: "application".into() }, &[])?;
//! let (event, descriptors): (Event, _) = packet::receive(&socket)?;
//! # Ok::<(), packet::Error>(())
//! ```
//!
//! On a non-blocking socket `send` and `receive` fail with an error for which [`Error::would_block`] is true. Both
//! ignore signals (`EINTR` is retried) and never raise `SIGPIPE`.

use belvedere_interfaces::channel::{MAXIMUM_DESCRIPTORS, MAXIMUM_PACKET};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Why a packet could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system call failed; see also [`Error::would_block`].
    #[error("cannot {operation}: {source}")]
    System {
        /// Such as `receive a packet`.
        operation: &'static str,
        /// What the system said.
        source: Errno,
    },
    /// The other side closed the connection.
    #[error("the other side closed the channel")]
    Closed,
    /// More than [`MAXIMUM_PACKET`] bytes or [`MAXIMUM_DESCRIPTORS`] descriptors.
    #[error("a packet exceeds {MAXIMUM_PACKET} bytes or {MAXIMUM_DESCRIPTORS} file descriptors")]
    TooLarge,
    /// Not the JSON message that belongs here.
    #[error("a packet does not hold the expected message: {0}")]
    Malformed(#[source] serde_json::Error),
}

impl Error {
    /// Whether a non-blocking socket merely has nothing to read, or no room to write, now.
    pub fn would_block(&self) -> bool {
        matches!(self, Error::System { source, .. } if *source == Errno::AGAIN)
    }

    /// Whether a failed `accept` may go well later: it was this connection that failed, or there is a shortage.
    pub fn passes(&self) -> bool {
        let Error::System { source, .. } = self else { return matches!(self, Error::Closed) };
        [Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM].contains(source)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::System { source, .. } => source.into(),
            Error::Closed => std::io::Error::new(std::io::ErrorKind::UnexpectedEof, error),
            _ => std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        }
    }
}

fn system(operation: &'static str) -> impl Fn(Errno) -> Error {
    move |source| match source {
        Errno::PIPE | Errno::CONNRESET => Error::Closed,
        source => Error::System { operation, source },
    }
}

/// Sends one message, with file descriptors beside it. The descriptors stay the caller's.
pub fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
    send_with(socket, message, descriptors, SendFlags::empty())
}

/// As [`send`], but never waits, whatever the socket's own mode: see [`Error::would_block`].
pub fn try_send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
    send_with(socket, message, descriptors, SendFlags::DONTWAIT)
}

fn send_with(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Error> {
    let bytes = serde_json::to_vec(message).map_err(Error::Malformed)?;
    if bytes.len() > MAXIMUM_PACKET || descriptors.len() > MAXIMUM_DESCRIPTORS {
        return Err(Error::TooLarge);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS))];
    let mut beside = net::SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        // There is room: the buffer is made for MAXIMUM_DESCRIPTORS.
        beside.push(net::SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::io::retry_on_intr(|| {
        net::sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut beside, flags | SendFlags::NOSIGNAL)
    })
    .map_err(system("send a packet"))?;
    Ok(())
}

/// Receives one message and the descriptors beside it (close-on-exec). A packet that is too large, carries too many
/// descriptors, or does not hold a `T`, is an error, and whatever descriptors came with it are closed.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), Error> {
    receive_with(socket, RecvFlags::empty())
}

/// As [`receive`], but never waits, whatever the socket's own mode: see [`Error::would_block`].
pub fn try_receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), Error> {
    receive_with(socket, RecvFlags::DONTWAIT)
}

fn receive_with<T: DeserializeOwned>(socket: impl AsFd, flags: RecvFlags) -> Result<(T, Vec<OwnedFd>), Error> {
    let mut bytes = vec![0; MAXIMUM_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS))];
    let mut beside = net::RecvAncillaryBuffer::new(&mut space);
    let mut once = || {
        rustix::io::retry_on_intr(|| {
            net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags | RecvFlags::CMSG_CLOEXEC)
        })
    };
    let received = match once() {
        // The other side closed without having read everything. That is told once, before what it had sent.
        Err(Errno::CONNRESET) => once(),
        received => received,
    }
    .map_err(system("receive a packet"))?;
    // Taken out first, so that they are closed on every way out of here.
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let net::RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    if received.flags.contains(net::ReturnFlags::TRUNC) || received.flags.contains(net::ReturnFlags::CTRUNC) {
        return Err(Error::TooLarge);
    }
    // A JSON object is never empty: on SEQPACKET no bytes are the end of the connection.
    if received.bytes == 0 {
        return Err(Error::Closed);
    }
    let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(Error::Malformed)?;
    Ok((message, descriptors))
}

fn socket() -> Result<OwnedFd, Error> {
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(system("make a socket"))
}

/// Connects to the channel served at `path`.
pub fn connect(path: impl AsRef<Path>) -> Result<OwnedFd, Error> {
    let address = net::SocketAddrUnix::new(path.as_ref()).map_err(system("name a socket"))?;
    let socket = socket()?;
    rustix::io::retry_on_intr(|| net::connect(&socket, &address)).map_err(system("connect to a channel"))?;
    Ok(socket)
}

/// Serves a channel at `path` (what stood there from an earlier run is removed). Accept with [`accept`]. Every user who
/// can reach the directory may connect: the other services have users of their own, and applications have no way into it.
pub fn listen(path: impl AsRef<Path>) -> Result<OwnedFd, Error> {
    let path = path.as_ref();
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(source) => return Err(Error::System { operation: "remove the old socket", source }),
    }
    let address = net::SocketAddrUnix::new(path).map_err(system("name a socket"))?;
    let socket = socket()?;
    net::bind(&socket, &address).map_err(system("bind a channel"))?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o666)).map_err(system("open a channel to other users"))?;
    net::listen(&socket, 64).map_err(system("listen on a channel"))?;
    Ok(socket)
}

/// Waits for the next connection.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Error> {
    rustix::io::retry_on_intr(|| net::accept_with(listener.as_fd(), SocketFlags::CLOEXEC))
        .map_err(system("accept a connection"))
}

/// Lets no send on the connection wait longer than this for the other side to read ([`Error::would_block`] then), and,
/// if `receive` is given, no receive either.
pub fn limit_waiting(connection: impl AsFd, send: Duration, receive: Option<Duration>) -> Result<(), Error> {
    net::sockopt::set_socket_timeout(connection.as_fd(), net::sockopt::Timeout::Send, Some(send))
        .map_err(system("set the time that a send may take"))?;
    net::sockopt::set_socket_timeout(connection.as_fd(), net::sockopt::Timeout::Recv, receive)
        .map_err(system("set the time that a receive may take"))
}

/// Sends bytes as one packet that is no JSON (results of models).
pub fn send_bytes(socket: impl AsFd, bytes: &[u8]) -> Result<(), Error> {
    rustix::io::retry_on_intr(|| net::send(socket.as_fd(), bytes, SendFlags::NOSIGNAL)).map_err(system("send a packet"))?;
    Ok(())
}

/// Receives one packet that is no JSON into the beginning of `bytes`: how many there were.
pub fn receive_bytes(socket: impl AsFd, bytes: &mut [u8]) -> Result<usize, Error> {
    let (_, received) = rustix::io::retry_on_intr(|| net::recv(socket.as_fd(), &mut *bytes, RecvFlags::TRUNC))
        .map_err(system("receive a packet"))?;
    match received {
        0 => Err(Error::Closed),
        received if received > bytes.len() => Err(Error::TooLarge),
        received => Ok(received),
    }
}

/// A connected pair, to hand one end to somebody.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(system("make a pair of sockets"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_message_arrives_with_its_descriptor() {
        let (near, far) = pair().unwrap();
        let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        std::fs::File::from(memory.try_clone().unwrap()).write_all(b"picture").unwrap();
        send(&near, &json!({"kind": "ring"}), &[memory.as_fd()]).unwrap();
        let (message, mut descriptors): (Value, _) = receive(&far).unwrap();
        assert_eq!(message, json!({"kind": "ring"}));
        let mut file = std::fs::File::from(descriptors.pop().unwrap());
        assert!(descriptors.is_empty());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "picture");
    }

    #[test]
    fn packets_keep_their_borders_and_the_end_is_told() {
        let (near, far) = pair().unwrap();
        send(&near, &json!({"kind": "a"}), &[]).unwrap();
        send(&near, &json!({"kind": "b"}), &[]).unwrap();
        drop(near);
        assert_eq!(receive::<Value>(&far).unwrap().0["kind"], "a");
        assert_eq!(receive::<Value>(&far).unwrap().0["kind"], "b");
        assert!(matches!(receive::<Value>(&far), Err(Error::Closed)));
        assert!(matches!(send(&far, &json!({}), &[]), Err(Error::Closed)));
    }

    #[test]
    fn the_last_words_of_a_side_that_did_not_listen_are_heard() {
        let (near, far) = pair().unwrap();
        send(&near, &json!("never read"), &[]).unwrap();
        send(&far, &json!("refused"), &[]).unwrap();
        drop(far);
        assert_eq!(receive::<Value>(&near).unwrap().0, "refused");
        assert!(matches!(receive::<Value>(&near), Err(Error::Closed)));
    }

    #[test]
    fn the_largest_packet_passes_and_one_byte_more_does_not() {
        let (near, far) = pair().unwrap();
        let largest = "x".repeat(MAXIMUM_PACKET - 2);
        send(&near, &largest, &[]).unwrap();
        assert_eq!(receive::<String>(&far).unwrap().0.len(), MAXIMUM_PACKET - 2);
        assert!(matches!(send(&near, &format!("{largest}x"), &[]), Err(Error::TooLarge)));
        // A sender that does not keep to it.
        let raw = vec![b' '; MAXIMUM_PACKET + 1];
        net::send(&near, &raw, SendFlags::empty()).unwrap();
        assert!(matches!(receive::<Value>(&far), Err(Error::TooLarge)));
    }

    #[test]
    fn descriptors_of_a_refused_packet_are_closed() {
        let (near, far) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&near, &json!("not the message"), &[writer.as_fd()]).unwrap();
        drop(writer);
        assert!(matches!(receive::<Vec<u8>>(&far), Err(Error::Malformed(_))));
        // The last writer is gone, so that the reader sees the end at once.
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (near, far) = pair().unwrap();
        let many = [near.as_fd(); MAXIMUM_DESCRIPTORS + 1];
        assert!(matches!(send(&near, &json!({}), &many), Err(Error::TooLarge)));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS + 3))];
        let mut beside = net::SendAncillaryBuffer::new(&mut space);
        let many = [near.as_fd(); MAXIMUM_DESCRIPTORS + 3];
        assert!(beside.push(net::SendAncillaryMessage::ScmRights(&many)));
        net::sendmsg(&near, &[IoSlice::new(b"{}")], &mut beside, SendFlags::empty()).unwrap();
        assert!(matches!(receive::<Value>(&far), Err(Error::TooLarge)));
    }

    #[test]
    fn nothing_to_read_is_told_from_an_error() {
        let (near, far) = pair().unwrap();
        assert!(try_receive::<Value>(&far).unwrap_err().would_block());
        drop(near);
        assert!(!try_receive::<Value>(&far).unwrap_err().would_block());
    }

    #[test]
    fn a_channel_is_served_at_a_path_even_after_a_crash() {
        let folder = std::env::temp_dir().join(format!("belvedere-packet-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("test.sock");
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666, "other users may connect");
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap();
        send(&client, &json!(1), &[]).unwrap();
        assert_eq!(receive::<u8>(&server).unwrap().0, 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
