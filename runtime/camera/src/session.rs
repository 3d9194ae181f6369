//! One RTSP session: connects, and carries bytes between the camera and a [`Conversation`]. TCP interleaved only: it
//! passes every firewall, and loses nothing.

use crate::backlog::Unit;
use crate::chance;
use crate::machine::Failure;
use belvedere_interfaces::access_units::MAXIMUM_ACCESS_UNIT;
use belvedere_interfaces::camera::StreamConfiguration;
use belvedere_rtsp::address::PORT;
use belvedere_rtsp::authentication::Credentials;
use belvedere_rtsp::conversation::{Conversation, End, Next};
use belvedere_rtsp::message::Reader;
use std::convert::Infallible;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

/// The guide's text for a camera that does not send H.264.
pub const NOT_H264: &str = "Camera did not provide an H264 encoded stream";
/// Bytes that are asked for at a time.
const READ: usize = 32 << 10;
/// The wall clock may differ by so much from what the steady clock says; beyond, it was set.
const CLOCK_WAS_SET_US: i64 = 500_000;

/// What a session brings.
pub enum News {
    /// A sign of life before the first picture.
    Progress,
    /// A coded picture.
    Unit(Unit),
}

/// Plays until it ends; says why. What comes is put into `news`.
pub async fn play(configuration: StreamConfiguration, news: mpsc::Sender<News>) -> Failure {
    match attempt(&configuration, &news).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn failure(end: End) -> Failure {
    match end {
        End::Refused => Failure::AuthenticationFailed,
        End::NotH264(offer) => Failure::Unsupported(format!("{NOT_H264} (it offers {offer})")),
        End::Other(text) => Failure::Other(text),
    }
}

/// Address and credentials; user name and password inside the URL count when there are no others.
fn address(configuration: &StreamConfiguration) -> Result<(Url, Option<Credentials>), Failure> {
    let invalid = |what: &str| Failure::Other(format!("the stream's URL {what}: it has the form rtsp://host[:port]/path"));
    let mut url = Url::parse(&configuration.url).map_err(|error| invalid(&format!("is not valid ({error})")))?;
    if url.scheme() != "rtsp" {
        return Err(invalid("does not begin with rtsp://"));
    }
    let decoded = |text: &str| {
        // What a form would take for a space and for the next of its fields is part of the word here.
        url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B").replace('&', "%26")).as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let inside = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return Err(invalid("names no host"));
    }
    let credentials = match &configuration.username {
        Some(username) => Some((username.clone(), configuration.password.clone().unwrap_or_default())),
        None if !inside.0.is_empty() => Some(inside),
        None => None,
    };
    Ok((url, credentials.map(|(username, password)| Credentials { username, password })))
}

async fn connect(url: &Url) -> Result<TcpStream, Failure> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = url.port().unwrap_or(PORT);
    let connection = TcpStream::connect((host, port)).await;
    let connection = connection
        .map_err(|error| Failure::Other(format!("cannot connect to the camera at {host}, port {port}: {error}")))?;
    // Requests are small, and each waits for its answer. Without it they only take longer.
    let _ = connection.set_nodelay(true);
    Ok(connection)
}

async fn attempt(configuration: &StreamConfiguration, news: &mpsc::Sender<News>) -> Result<Infallible, Failure> {
    let (url, credentials) = address(configuration)?;
    let begin = Instant::now();
    let mut arrival = Arrival::default();
    let mut conversation = Conversation::new(&url, credentials, MAXIMUM_ACCESS_UNIT, chance::bits);
    loop {
        let stream = connect(conversation.url()).await?;
        let mut connection = Connection { stream, conversation: &mut conversation };
        converse(&mut connection, begin, &mut arrival, news).await?;
    }
}

/// A connection, and who speaks over it. Says good-bye when it is dropped, wherever the session was.
struct Connection<'a> {
    stream: TcpStream,
    conversation: &'a mut Conversation,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(farewell) = self.conversation.farewell() {
            // Best effort: the camera ends the session with its connection too.
            let _ = self.stream.try_write(&farewell);
        }
    }
}

/// Until the conversation goes on over another connection.
async fn converse(
    connection: &mut Connection<'_>,
    begin: Instant,
    arrival: &mut Arrival,
    news: &mpsc::Sender<News>,
) -> Result<(), Failure> {
    let Connection { stream, conversation } = connection;
    let mut reader = Reader::default();
    let mut playing = false;
    loop {
        let interest =
            if conversation.output().is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let deadline = conversation.deadline().map(|deadline| begin + deadline);
        let ready = tokio::select! {
            ready = stream.ready(interest) => ready,
            () = async { match deadline { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                conversation.tick(begin.elapsed());
                continue;
            }
        };
        let Ok(ready) = ready else { return closed(conversation, &reader) };
        if ready.is_writable() && !conversation.output().is_empty() {
            match stream.try_write(conversation.output()) {
                Ok(written) => drop(conversation.output().drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What the camera said before it closed may be there to read.
                Err(_) => conversation.output().clear(),
            }
        }
        if !ready.is_readable() {
            continue;
        }
        let space = reader.space();
        space.reserve(READ);
        match stream.try_read_buf(space) {
            Ok(0) => return closed(conversation, &reader),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return closed(conversation, &reader),
        }
        while let Some(item) = reader.next(&conversation.expected()).map_err(|broken| Failure::Other(broken.to_string()))? {
            if conversation.take(begin.elapsed(), item).map_err(failure)? == Next::Elsewhere {
                return Ok(());
            }
            while let Some(picture) = conversation.picture() {
                playing = true;
                let unit = Unit {
                    key: picture.key,
                    intra: picture.intra,
                    gap: picture.gap,
                    timestamp_us: arrival.now(),
                    bytes: picture.bytes,
                };
                if news.send(News::Unit(unit)).await.is_err() {
                    return Err(Failure::Other("nobody watches any more".into()));
                }
            }
        }
        if !playing {
            let _ = news.send(News::Progress).await;
        }
        // A connection that always has more to read never waits, and all streams share a thread.
        tokio::task::yield_now().await;
    }
}

/// What the end of a connection means.
fn closed(conversation: &mut Conversation, reader: &Reader) -> Result<(), Failure> {
    if !reader.heard() && reader.noisy() {
        return Err(Failure::Other(belvedere_rtsp::message::Broken::Noise.to_string()));
    }
    conversation.closed().map_err(failure)
}

/// When access units arrive, in microseconds since 1970. Rises, but where the wall clock was set back.
#[derive(Default)]
struct Arrival {
    /// What the clocks said at the same time.
    base: Option<(Instant, i64)>,
    last: i64,
}

impl Arrival {
    fn now(&mut self) -> i64 {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        self.at(Instant::now(), wall)
    }

    fn at(&mut self, steady: Instant, wall: i64) -> i64 {
        let (base_steady, base_wall) = *self.base.get_or_insert((steady, wall));
        let passed: Duration = steady - base_steady;
        let expected = base_wall.saturating_add(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
        if expected.saturating_sub(wall).unsigned_abs() > CLOCK_WAS_SET_US as u64 {
            self.base = Some((steady, wall));
            self.last = wall;
        } else {
            // Two that come at once do not come at the same time.
            self.last = expected.max(self.last.saturating_add(1));
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(url: &str, username: Option<&str>, password: Option<&str>) -> StreamConfiguration {
        StreamConfiguration {
            stream_id: "camera".into(),
            url: url.into(),
            username: username.map(Into::into),
            password: password.map(Into::into),
        }
    }

    #[test]
    fn credentials_come_from_the_configuration_or_else_from_the_url() {
        for (url, username, password, expected) in [
            ("rtsp://host/live", None, None, None),
            ("rtsp://host/live", Some("u"), Some("p"), Some(("u", "p"))),
            ("rtsp://host/live", Some("u"), None, Some(("u", ""))),
            ("rtsp://a:b%40+c@host/live", None, None, Some(("a", "b@+c"))),
            ("rtsp://a:b&c=d;e%26@host/live", None, None, Some(("a", "b&c=d;e&"))),
            ("rtsp://a&b:100%25%zz@host/live", None, None, Some(("a&b", "100%%zz"))),
            ("rtsp://a:b@host/live", Some("u"), Some("p"), Some(("u", "p"))),
        ] {
            let (address, credentials) = address(&configuration(url, username, password)).unwrap();
            assert_eq!(address.as_str(), "rtsp://host/live");
            let credentials = credentials.as_ref().map(|c| (c.username.as_str(), c.password.as_str()));
            assert_eq!(credentials, expected);
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_said_without_repeating_it() {
        for url in ["", "host/live", "http://a:secret@host/", "rtsp:live", "rtsp://a:secret@"] {
            let Err(Failure::Other(text)) = address(&configuration(url, None, None)) else { panic!("{url}") };
            assert!(text.contains("rtsp://host") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn arrivals_rise_unless_the_clock_was_set() {
        let steady = Instant::now();
        let mut arrival = Arrival::default();
        let at = |seconds: f64| steady + Duration::from_secs_f64(seconds);
        assert_eq!(arrival.at(steady, 1_000_000), 1_000_000);
        assert_eq!(arrival.at(steady, 1_000_000), 1_000_001, "two at once");
        assert_eq!(arrival.at(at(1.0), 1_999_000), 2_000_000, "the wall clock is slewed");
        assert_eq!(arrival.at(at(2.0), 900_000_000), 900_000_000, "it was set");
        assert_eq!(arrival.at(at(3.0), 901_000_000), 901_000_000);
        assert_eq!(arrival.at(at(4.0), 5), 5, "and back");
        assert_eq!(arrival.at(at(5.0), 1_000_010), 1_000_005);
    }

    #[test]
    fn what_is_not_h264_gets_the_guides_text() {
        let text = "Camera did not provide an H264 encoded stream (it offers H265)";
        assert_eq!(failure(End::NotH264("H265".into())), Failure::Unsupported(text.into()));
    }

    /// All streams share a thread: one camera that always has something to say must leave the others their turns.
    #[test]
    fn a_camera_that_never_stops_talking_leaves_the_others_their_turns() {
        const READS: usize = 8;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut camera = listener.accept().unwrap().0;
            // All of it lies in the kernel before the first is read.
            std::io::Write::write_all(&mut camera, &b"RTSP/ 100\n\n".repeat(READS * READ / 11)).unwrap();
            let (sender, mut news) = mpsc::channel(1000);
            let session = tokio::spawn(async move {
                let url = Url::parse("rtsp://127.0.0.1/").unwrap();
                let mut conversation = Conversation::new(&url, None, MAXIMUM_ACCESS_UNIT, chance::bits);
                let mut connection = Connection { stream, conversation: &mut conversation };
                converse(&mut connection, Instant::now(), &mut Arrival::default(), &sender).await
            });
            let (mut all, mut most) = (0, 0);
            for _ in 0..2000 {
                tokio::task::yield_now().await;
                let read = std::iter::from_fn(|| news.try_recv().ok()).count();
                (all, most) = (all + read, most.max(read));
            }
            session.abort();
            assert!(all >= 3 && most <= 2, "{all} reads, {most} of them in one turn");
        });
    }
}
