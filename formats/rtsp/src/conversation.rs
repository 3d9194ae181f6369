//! A session from the first request to the last picture, as a state machine: bytes come in, bytes and pictures go out,
//! the time is given.
//!
//! ```text
//!  DESCRIBE ──▶ SETUP ──▶ PLAY ──▶ (pictures; OPTIONS or GET_PARAMETER now and then)
//!     ▲ redirects   ▲ other ways to write the same address, where cameras disagree about it
//! ```
//!
//! Each request may be sent again with a password or a new nonce. All repetitions are bounded: [`MAXIMUM_REDIRECTS`],
//! [`crate::authentication::MAXIMUM_ATTEMPTS`], the candidates of [`address::control`], and [`MAXIMUM_RECONNECTS`].

use crate::address::{self, Redirect};
use crate::authentication::{Authenticator, Credentials, Verdict};
use crate::depacketizer::{CodedPicture, Depacketizer};
use crate::description::{self, Missing};
use crate::message::{Answer, Expected, Headers, Item, Request};
use std::time::Duration;
use url::Url;

/// Redirects that are followed.
pub const MAXIMUM_REDIRECTS: u32 = 4;
/// Connections that may end before the first packet and are made again: some cameras close one after each refusal.
pub const MAXIMUM_RECONNECTS: u32 = 4;
/// Bytes that may wait to be sent: a camera that asks and does not read gets no more answers.
pub const MAXIMUM_OUTPUT: usize = 64 << 10;

/// A session's time-out when the camera says none, or none that can be (RFC 2326, 12.37).
const USUAL_TIME_OUT: Duration = Duration::from_secs(60);
/// Between two keep-alives at most, and at least.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// So many packets of the right format on another channel, and none on the right one, are the pictures.
const PACKETS_ELSEWHERE: u32 = 16;
/// The channels that we ask for; the camera may say others.
const CHANNEL: u8 = 0;

/// Why a session ended or never began; the texts are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// User name or password refused, or asked for and not there.
    Refused,
    /// Not H.264: what it is instead.
    NotH264(String),
    /// Everything else.
    Other(String),
}

/// How to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// On this connection.
    Here,
    /// On a new one, to [`Conversation::url`]; what else came over this one is of no use.
    Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Describe,
    SetUp,
    Play,
    Playing,
}

/// The request that waits for its answer.
struct Outstanding {
    method: &'static str,
    address: String,
    /// How often it was sent with a password.
    sent: u32,
    with_password: bool,
}

/// See the module.
pub struct Conversation {
    url: Url,
    limit: usize,
    chance: fn() -> u64,
    authenticator: Authenticator,
    step: Step,
    sequence: u32,
    outstanding: Option<Outstanding>,
    /// Addresses that SETUP and PLAY may still be tried with, the last one first.
    candidates: Vec<(String, bool)>,
    /// The session's own address.
    base: String,
    /// The medium's address.
    medium: String,
    aggregate: String,
    session: Option<String>,
    keep_alive: Duration,
    next_keep_alive: Option<Duration>,
    get_parameter: bool,
    expected: Expected,
    depacketizer: Option<Depacketizer>,
    packets: bool,
    /// Packets that could be pictures, on other channels than agreed on.
    elsewhere: u32,
    redirects: u32,
    /// A redirect led to another host than the one that the password is for.
    away: bool,
    reconnects: u32,
    /// A request went out on this connection after an answer that the camera may have closed it with.
    may_reconnect: bool,
    output: Vec<u8>,
}

impl Conversation {
    /// For the camera at `url`, whose user name and password are not used. Access units over `limit` bytes are left out.
    /// `chance` gives 64 random bits.
    pub fn new(url: &Url, credentials: Option<Credentials>, limit: usize, chance: fn() -> u64) -> Self {
        let mut conversation = Conversation {
            url: url.clone(),
            limit,
            chance,
            authenticator: Authenticator::new(credentials),
            step: Step::Describe,
            sequence: 0,
            outstanding: None,
            candidates: Vec::new(),
            base: String::new(),
            medium: String::new(),
            aggregate: String::new(),
            session: None,
            keep_alive: KEEP_ALIVE.1,
            next_keep_alive: None,
            get_parameter: false,
            expected: Expected::default(),
            depacketizer: None,
            packets: false,
            elsewhere: 0,
            redirects: 0,
            away: false,
            reconnects: 0,
            may_reconnect: false,
            output: Vec::new(),
        };
        conversation.describe();
        conversation
    }

    /// Where the connection leads to: the URL, or where the camera sent us.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What the reader should know.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// Bytes to send; whoever sends them takes them out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// When to call [`Conversation::tick`].
    pub fn deadline(&self) -> Option<Duration> {
        self.next_keep_alive
    }

    /// The next coded picture. To be asked after each item.
    pub fn picture(&mut self) -> Option<CodedPicture> {
        self.depacketizer.as_mut()?.picture()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        if self.next_keep_alive.is_some_and(|due| now >= due) {
            self.next_keep_alive = Some(now + self.keep_alive);
            if self.step == Step::Playing || self.packets {
                // Packets without an answer to PLAY are an answer too.
                self.step = Step::Playing;
                let method = if self.get_parameter { "GET_PARAMETER" } else { "OPTIONS" };
                self.request(method, self.aggregate.clone(), &[]);
            }
        }
    }

    /// What to say when we leave.
    pub fn farewell(&mut self) -> Option<Vec<u8>> {
        self.session.as_ref()?;
        self.output.clear();
        self.request("TEARDOWN", self.aggregate.clone(), &[]);
        Some(std::mem::take(&mut self.output))
    }

    /// The connection ended. `Ok`: make a new one to [`Conversation::url`], and go on.
    pub fn closed(&mut self) -> Result<(), End> {
        if self.packets || !self.may_reconnect || self.reconnects == MAXIMUM_RECONNECTS {
            return Err(End::Other(match self.step {
                Step::Playing => "the camera ended the stream".into(),
                _ => "the camera closed the connection before it sent a picture".into(),
            }));
        }
        self.reconnects += 1;
        self.describe();
        Ok(())
    }

    /// Takes what came over the connection.
    pub fn take(&mut self, now: Duration, item: Item<'_>) -> Result<Next, End> {
        match item {
            Item::Packet { channel, bytes } => self.packet(channel, bytes),
            Item::Request(request) => return self.asked(&request),
            // 100 and others say that an answer will come.
            Item::Answer(answer) if (100..200).contains(&answer.status) => {}
            Item::Answer(answer) => return self.answered(now, &answer),
        }
        Ok(Next::Here)
    }

    fn packet(&mut self, channel: u8, bytes: &[u8]) {
        let Some(depacketizer) = &mut self.depacketizer else { return };
        if self.expected.channel != Some(channel) {
            // Some use another channel than they said: when enough came there, and nothing where it should.
            let same =
                crate::rtp::packet(bytes).is_some_and(|packet| Some(packet.payload_type) == self.expected.payload_type);
            self.elsewhere += u32::from(same);
            if self.packets || !same || self.elsewhere < PACKETS_ELSEWHERE {
                return;
            }
            self.expected.channel = Some(channel);
        }
        self.packets = true;
        depacketizer.push(bytes);
    }

    /// A request of the camera's.
    fn asked(&mut self, request: &Request) -> Result<Next, End> {
        if self.output.len() > MAXIMUM_OUTPUT {
            return Err(End::Other("the camera asks more than it listens to".into()));
        }
        let status = match request.method.as_str() {
            "OPTIONS" | "GET_PARAMETER" | "SET_PARAMETER" | "PLAY_NOTIFY" | "REDIRECT" | "TEARDOWN" => "200 OK",
            _ => "501 Not Implemented",
        };
        let mut answer = format!("RTSP/1.0 {status}\r\n").into_bytes();
        for (name, written) in [("cseq", "CSeq"), ("session", "Session")] {
            if let Some(value) = request.headers.get(name).filter(|value| value.len() <= 256) {
                answer.extend_from_slice(format!("{written}: ").as_bytes());
                answer.extend_from_slice(value);
                answer.extend_from_slice(b"\r\n");
            }
        }
        if request.method == "OPTIONS" {
            answer.extend_from_slice(b"Public: OPTIONS, GET_PARAMETER, SET_PARAMETER\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        self.output.extend_from_slice(&answer);
        match request.method.as_str() {
            "TEARDOWN" => Err(End::Other("the camera ended the stream".into())),
            "REDIRECT" => match request.headers.text("location") {
                Some(location) => {
                    Err(End::Other(format!("the camera sends its clients to another place: {}", shown(&location))))
                }
                None => Err(End::Other("the camera ended the stream".into())),
            },
            _ => Ok(Next::Here),
        }
    }

    fn request(&mut self, method: &'static str, address: String, headers: &[(&str, &str)]) {
        let sent = Outstanding { method, address, sent: 0, with_password: false };
        self.write(sent, headers);
    }

    fn write(&mut self, mut request: Outstanding, headers: &[(&str, &str)]) {
        self.sequence += 1;
        let mut text = format!(
            "{} {} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: Belvedere\r\n",
            request.method, request.address, self.sequence
        );
        if let Some(session) = &self.session {
            text.push_str(&format!("Session: {session}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = text.into_bytes();
        let password = self.authenticator.header(request.method, &request.address, (self.chance)());
        request.with_password = password.is_some();
        if let Some(value) = password {
            request.sent += 1;
            bytes.extend_from_slice(b"Authorization: ");
            bytes.extend(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        self.outstanding = Some(request);
        // Keep-alives that nobody reads are not heaped up.
        if self.output.len() <= MAXIMUM_OUTPUT {
            self.output.extend(bytes);
        }
    }

    /// The request of the current step, with the headers that it needs.
    fn send(&mut self, request: Outstanding) {
        let headers: &[(&str, &str)] = match request.method {
            "DESCRIBE" => &[("Accept", "application/sdp")],
            "SETUP" => &[("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1")],
            "PLAY" if self.candidates.last().is_none_or(|(_, range)| *range) => &[("Range", "npt=0.000-")],
            _ => &[],
        };
        self.write(request, headers);
    }

    fn begin(&mut self, method: &'static str, address: String) {
        self.send(Outstanding { method, address, sent: 0, with_password: false });
    }

    fn describe(&mut self) {
        self.step = Step::Describe;
        self.session = None;
        self.next_keep_alive = None;
        self.depacketizer = None;
        self.expected = Expected::default();
        self.candidates.clear();
        self.output.clear();
        self.may_reconnect = false;
        self.begin("DESCRIBE", address::request_address(&self.url));
    }

    /// Tries the last candidate.
    fn try_candidate(&mut self, method: &'static str) -> bool {
        let Some((address, _)) = self.candidates.last().cloned() else { return false };
        self.begin(method, address);
        true
    }

    fn answered(&mut self, now: Duration, answer: &Answer) -> Result<Next, End> {
        // Cameras number their answers as they please; there is never more than one request without an answer, but
        // keep-alives, and what they are answered does not matter.
        let Some(request) = self.outstanding.take() else { return Ok(Next::Here) };
        if answer.status == 401 {
            return self.unauthorised(request, answer);
        }
        if request.with_password && answer.status != 403 {
            self.authenticator.accept(answer.headers.get("authentication-info"));
        }
        match (answer.status, self.step) {
            // Keep-alives: pictures say whether the session is alive.
            (_, Step::Playing) => {
                self.learn_methods(now, &request, answer);
                Ok(Next::Here)
            }
            (200..=299, Step::Describe) => self.described(&request, answer),
            (200..=299, Step::SetUp) => self.set_up(now, &request, answer),
            (200..=299, Step::Play) => {
                self.step = Step::Playing;
                self.learn_session(&answer.headers);
                // The time-out may be told only here, and may be shorter than the usual one.
                self.next_keep_alive = self.next_keep_alive.map(|due| due.min(now + self.keep_alive));
                Ok(Next::Here)
            }
            (301 | 302 | 303 | 305 | 307 | 308, _) => self.redirected(answer),
            (403, _) if self.authenticator.accepted() => Err(said(&request, answer)),
            (403, _) => Err(End::Refused),
            // 453: no room for another client; 461: not over TCP.
            (453 | 461, _) => Err(said(&request, answer)),
            (400..500, Step::SetUp | Step::Play) => {
                // Another way to write the same address.
                self.candidates.pop();
                if self.try_candidate(request.method) { Ok(Next::Here) } else { Err(said(&request, answer)) }
            }
            _ => Err(said(&request, answer)),
        }
    }

    fn unauthorised(&mut self, request: Outstanding, answer: &Answer) -> Result<Next, End> {
        let offers: Vec<&[u8]> = answer.headers.all("www-authenticate").collect();
        match self.authenticator.challenged(&offers, request.sent) {
            Verdict::Again => {
                self.may_reconnect = self.step == Step::Describe;
                if self.step == Step::Playing {
                    self.write(request, &[]);
                } else {
                    self.send(request);
                }
                Ok(Next::Here)
            }
            // The pictures go on.
            _ if self.step == Step::Playing => Ok(Next::Here),
            Verdict::Refused if self.away => Err(End::Other(format!(
                "the camera redirects to {}, which asks for a password of its own: enter that address as the stream's URL",
                address::request_address(&self.url)
            ))),
            Verdict::Refused if self.authenticator.accepted() => Err(said(&request, answer)),
            Verdict::Refused => Err(End::Refused),
            Verdict::Lost => Err(End::Other(
                "the camera asks for the password again and again: it gives out no nonce that is good for a request".into(),
            )),
            Verdict::Unknown(ways) => {
                Err(End::Other(format!("the camera wants the password in a way that is not known here ({})", shown(&ways))))
            }
        }
    }

    fn redirected(&mut self, answer: &Answer) -> Result<Next, End> {
        let location = answer.headers.text("location").unwrap_or_default();
        if self.redirects == MAXIMUM_REDIRECTS {
            return Err(End::Other(format!("the camera redirects again and again, at last to {}", shown(&location))));
        }
        self.redirects += 1;
        match address::redirect(&self.url, &location) {
            Redirect::Nowhere(place) => Err(End::Other(format!(
                "the camera redirects to {place}, where it cannot be reached: enter an rtsp:// address"
            ))),
            Redirect::SameHost(url) => {
                let here = (self.url.host_str(), self.url.port()) == (url.host_str(), url.port());
                self.url = url;
                self.describe();
                self.may_reconnect = true;
                let closes = answer.headers.text("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                Ok(if here && !closes { Next::Here } else { Next::Elsewhere })
            }
            Redirect::OtherHost(url) => {
                // Its password is for the camera that was named, and for no other host.
                self.authenticator = Authenticator::new(None);
                self.away = true;
                self.url = url;
                self.describe();
                self.may_reconnect = true;
                Ok(Next::Elsewhere)
            }
        }
    }

    fn described(&mut self, request: &Outstanding, answer: &Answer) -> Result<Next, End> {
        let video = description::video(&answer.body).map_err(|missing| match missing {
            Missing::Media => End::Other("the camera's description of its stream names no media".into()),
            Missing::Video => End::NotH264("no video".into()),
            Missing::H264(name) => End::NotH264(name),
        })?;
        let text = |name| answer.headers.text(name);
        self.base = address::base(&request.address, text("content-base").as_deref(), text("content-location").as_deref());
        // Only an absolute one counts for the whole session, as most clients have it.
        self.aggregate = address::base(&self.base, video.session_control.as_deref(), None);
        self.candidates =
            address::control(&self.aggregate, video.control.as_deref()).into_iter().rev().map(|a| (a, true)).collect();
        self.expected = Expected { channel: None, payload_type: Some(video.payload_type) };
        self.depacketizer = Some(Depacketizer::new(video.payload_type, &video.parameter_sets, self.limit));
        self.step = Step::SetUp;
        self.learn_session(&answer.headers);
        self.may_reconnect = false;
        self.try_candidate("SETUP");
        Ok(Next::Here)
    }

    fn set_up(&mut self, now: Duration, request: &Outstanding, answer: &Answer) -> Result<Next, End> {
        let transport = answer.headers.text("transport").unwrap_or_default();
        let channel = interleaved(&transport);
        if channel.is_none() && transport.to_ascii_lowercase().contains("port=") {
            return Err(End::Other("the camera sends over UDP although TCP was asked for".into()));
        }
        if self.expected.channel.is_none() {
            self.expected.channel = Some(channel.unwrap_or(CHANNEL));
        }
        self.learn_session(&answer.headers);
        self.next_keep_alive = Some(now + self.keep_alive);
        self.medium = request.address.clone();
        self.step = Step::Play;
        self.candidates =
            vec![(self.medium.clone(), false), (self.aggregate.clone(), false), (self.aggregate.clone(), true)];
        self.try_candidate("PLAY");
        Ok(Next::Here)
    }

    fn learn_session(&mut self, headers: &Headers) {
        let Some(value) = headers.text("session") else { return };
        let mut parts = value.split(';');
        // RFC 2326, 3.4, has no spaces in it; some cameras do, and want back what they said.
        let name: String =
            parts.next().unwrap_or("").chars().filter(|letter| matches!(letter, ' '..='~')).take(256).collect();
        let name = name.trim();
        if !name.is_empty() {
            self.session = Some(name.to_owned());
        }
        let time_out = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().trim_matches('"').parse::<u64>().ok())
        });
        if let Some(given) = time_out {
            // Zero, nonsense or a year are as good as nothing.
            let time_out =
                given.filter(|seconds| (1..=86_400).contains(seconds)).map_or(USUAL_TIME_OUT, Duration::from_secs);
            self.keep_alive = (time_out / 2).clamp(KEEP_ALIVE.0, KEEP_ALIVE.1);
        }
    }

    /// Which request keeps the session alive: some cameras count OPTIONS, some GET_PARAMETER, and the latter is better
    /// where it is known.
    fn learn_methods(&mut self, now: Duration, request: &Outstanding, answer: &Answer) {
        match request.method {
            "OPTIONS" => {
                let methods = answer.headers.text("public").unwrap_or_default().to_ascii_uppercase();
                if methods.contains("GET_PARAMETER") && !self.get_parameter {
                    // At once: where OPTIONS do not count, half of the time-out is over.
                    self.next_keep_alive = Some(now);
                }
                self.get_parameter = methods.contains("GET_PARAMETER");
            }
            "GET_PARAMETER" if answer.status >= 400 => self.get_parameter = false,
            _ => {}
        }
    }
}

/// The first interleaved channel of a header `Transport`.
fn interleaved(transport: &str) -> Option<u8> {
    transport.split([';', ',']).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("interleaved") {
            return None;
        }
        value.trim().trim_matches('"').split('-').next()?.trim().parse().ok()
    })
}

fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

/// The answer that ends it, in words.
fn said(request: &Outstanding, answer: &Answer) -> End {
    let what = match answer.status {
        0 => "an answer that makes no sense".to_owned(),
        404 => format!("404 {}: is the path of the URL right?", answer.reason),
        status => format!("{status} {}", answer.reason),
    };
    End::Other(format!("the camera answers {} with {}", request.method, what.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Reader;

    const SDP: &str = "v=0\r\ns=x\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n";

    /// A camera that answers as it is told, and notes what it was asked.
    struct Talk {
        conversation: Conversation,
        reader: Reader,
        now: Duration,
    }

    impl Talk {
        fn new(url: &str, password: Option<&str>) -> Self {
            let credentials = password.map(|password| Credentials { username: "viewer".into(), password: password.into() });
            let conversation = Conversation::new(&Url::parse(url).unwrap(), credentials, 1 << 20, || 7);
            Talk { conversation, reader: Reader::default(), now: Duration::ZERO }
        }

        /// The request that was sent.
        fn asked(&mut self) -> String {
            String::from_utf8(std::mem::take(self.conversation.output())).unwrap()
        }

        fn hear(&mut self, bytes: &[u8]) -> Result<Next, End> {
            self.reader.push(bytes);
            while let Some(item) = self.reader.next(&self.conversation.expected()).unwrap() {
                match self.conversation.take(self.now, item)? {
                    Next::Here => {}
                    Next::Elsewhere => {
                        self.reader = Reader::default();
                        return Ok(Next::Elsewhere);
                    }
                }
            }
            Ok(Next::Here)
        }

        fn answer(&mut self, status: &str, headers: &[&str], body: &str) -> Result<Next, End> {
            let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
            let length = body.len();
            self.hear(format!("RTSP/1.0 {status}\r\n{lines}Content-Length: {length}\r\n\r\n{body}").as_bytes())
        }

        fn described(&mut self, headers: &[&str]) -> Result<Next, End> {
            self.answer("200 OK", headers, SDP)
        }

        fn packet(&mut self, channel: u8, sequence: u8, marker: bool, payload: &[u8]) {
            let mut bytes = vec![b'$', channel, 0, 12 + payload.len() as u8, 0x80, 96 | u8::from(marker) << 7, 0, sequence];
            bytes.extend([0, 0, sequence, 0, 0, 0, 0, 1]);
            bytes.extend_from_slice(payload);
            self.hear(&bytes).unwrap();
        }

        fn first_words(&mut self) -> String {
            self.asked().split(" RTSP/1.0").next().unwrap().to_owned()
        }
    }

    #[test]
    fn the_usual_session() {
        let mut talk = Talk::new("rtsp://viewer:secret@camera:8554/live#x", None);
        assert_eq!(
            talk.asked(),
            "DESCRIBE rtsp://camera:8554/live RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: Belvedere\r\nAccept: application/sdp\r\n\r\n"
        );
        talk.described(&["Content-Base: rtsp://camera:8554/live/"]).unwrap();
        assert_eq!(
            talk.asked(),
            "SETUP rtsp://camera:8554/live/track1 RTSP/1.0\r\nCSeq: 2\r\nUser-Agent: Belvedere\r\n\
             Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
        );
        talk.answer("200 OK", &["Transport: RTP/AVP/TCP;unicast;interleaved=4-5", "Session: A;timeout=20"], "").unwrap();
        assert_eq!(
            talk.asked(),
            "PLAY rtsp://camera:8554/live/ RTSP/1.0\r\nCSeq: 3\r\nUser-Agent: Belvedere\r\nSession: A\r\nRange: npt=0.000-\r\n\r\n"
        );
        // Packets may come before the answer.
        talk.packet(4, 1, false, &[0x65, 0x88, 0x80]);
        talk.answer("200 OK", &["RTP-Info: nonsense"], "").unwrap();
        talk.packet(4, 2, true, &[0x41, 0x98, 0x80]);
        assert!(talk.conversation.picture().unwrap().key);
        assert_eq!(talk.conversation.picture(), None);

        assert_eq!(talk.conversation.deadline(), Some(Duration::from_secs(10)));
        talk.conversation.tick(Duration::from_secs(9));
        assert_eq!(talk.asked(), "");
        talk.conversation.tick(Duration::from_secs(10));
        assert_eq!(talk.first_words(), "OPTIONS rtsp://camera:8554/live/");
        talk.answer("200 OK", &["Public: PLAY, GET_PARAMETER"], "").unwrap();
        talk.conversation.tick(Duration::from_secs(20));
        assert_eq!(talk.first_words(), "GET_PARAMETER rtsp://camera:8554/live/");
        talk.answer("501 Not Implemented", &[], "").unwrap();
        talk.conversation.tick(Duration::from_secs(30));
        assert_eq!(talk.first_words(), "OPTIONS rtsp://camera:8554/live/");
        let farewell = String::from_utf8(talk.conversation.farewell().unwrap()).unwrap();
        assert!(farewell.starts_with("TEARDOWN rtsp://camera:8554/live/ RTSP/1.0") && farewell.contains("Session: A"));
        assert_eq!(talk.conversation.closed(), Err(End::Other("the camera ended the stream".into())));
    }

    /// Field cases session-timeout-zero, transport-no-interleaved, and others of the kind.
    #[test]
    fn odd_answers_to_setup() {
        for (session, seconds) in [
            ("Session: A;timeout=0", 30),
            ("session:A", 30),
            ("Session:  A ; Timeout = \"8\" ", 4),
            ("Session: A;timeout=1", 1),
            ("Session: A;timeout=-5", 30),
            ("Session: A;timeout=99999999999999999999", 30),
            ("Session: A;timeout", 30),
            ("X: no session at all", 30),
        ] {
            for (transport, channel) in [
                ("Transport: RTP/AVP/TCP;unicast", 0),
                ("transport: RTP/AVP/TCP; Interleaved = 2-3 ;ssrc=1", 2),
                ("Transport: RTP/AVP/TCP;interleaved=\"6\"", 6),
                ("Transport: RTP/AVP/TCP;interleaved=x-y", 0),
                ("Transport:", 0),
            ] {
                let mut talk = Talk::new("rtsp://camera/live", None);
                talk.described(&[]).unwrap();
                talk.answer("200 OK", &[session, transport], "").unwrap();
                assert_eq!(talk.conversation.expected().channel, Some(channel), "{transport}");
                assert_eq!(talk.conversation.deadline(), Some(Duration::from_secs(seconds)), "{session}");
                talk.asked();
                talk.answer("200 OK", &[], "").unwrap();
                // Some use another channel than they said.
                for number in 0..PACKETS_ELSEWHERE as u8 + 1 {
                    assert_eq!(talk.conversation.picture(), None);
                    talk.packet(9, number, false, &[0x65, 0x88, 0x80]);
                }
                talk.packet(9, 99, false, &[0x41, 0x98, 0x80]);
                assert_eq!(talk.conversation.expected().channel, Some(9));
            }
        }
        let mut talk = Talk::new("rtsp://camera/live", None);
        talk.described(&[]).unwrap();
        let udp = talk.answer("200 OK", &["Transport: RTP/AVP;unicast;client_port=0-1;server_port=6000-6001"], "");
        assert!(matches!(udp, Err(End::Other(text)) if text.contains("UDP")));
    }

    #[test]
    fn a_session_name_may_have_spaces() {
        let mut talk = Talk::new("rtsp://camera/live", None);
        talk.described(&[]).unwrap();
        talk.answer("200 OK", &["Session: 12 34 AB\u{7f} ;timeout=60"], "").unwrap();
        assert!(talk.asked().contains("PLAY") && talk.conversation.session.as_deref() == Some("12 34 AB"));
    }

    #[test]
    fn a_time_out_that_play_tells_counts_at_once() {
        let mut talk = Talk::new("rtsp://camera/live", None);
        talk.described(&[]).unwrap();
        talk.answer("200 OK", &["Session: A"], "").unwrap();
        assert_eq!(talk.conversation.deadline(), Some(Duration::from_secs(30)));
        talk.answer("200 OK", &["Session: A;timeout=10"], "").unwrap();
        assert_eq!(talk.conversation.deadline(), Some(Duration::from_secs(5)));
    }

    /// Where OPTIONS keep no session alive: asking what is known must not cost half of the time-out.
    #[test]
    fn get_parameter_follows_as_soon_as_it_is_known() {
        let mut talk = Talk::new("rtsp://camera/live", None);
        talk.described(&[]).unwrap();
        talk.answer("200 OK", &["Session: A;timeout=20"], "").unwrap();
        talk.answer("200 OK", &[], "").unwrap();
        talk.asked();
        talk.conversation.tick(Duration::from_secs(10));
        assert_eq!(talk.first_words(), "OPTIONS rtsp://camera/live");
        talk.now = Duration::from_secs(10);
        talk.answer("200 OK", &["Public: OPTIONS, GET_PARAMETER"], "").unwrap();
        assert_eq!(talk.conversation.deadline(), Some(Duration::from_secs(10)));
        talk.conversation.tick(Duration::from_secs(10));
        assert_eq!(talk.first_words(), "GET_PARAMETER rtsp://camera/live");
        talk.answer("200 OK", &[], "").unwrap();
        assert_eq!(talk.conversation.deadline(), Some(Duration::from_secs(20)));
    }

    /// Field cases stale-nonce and sha256-only; the camera's check of the answers is in tests/camera.
    #[test]
    fn passwords_are_said_when_they_are_asked_for_and_refused_once() {
        let mut talk = Talk::new("rtsp://camera/live", Some("secret"));
        assert!(!talk.asked().contains("Authorization"));
        talk.answer("401 Unauthorized", &["WWW-Authenticate: Digest realm=\"r\", nonce=\"1\", algorithm=SHA-256"], "")
            .unwrap();
        assert!(talk.asked().contains("Authorization: Digest username=\"viewer\", realm=\"r\", nonce=\"1\""));
        talk.described(&[]).unwrap();
        assert!(talk.asked().contains("SETUP"));
        for nonce in 2..=crate::authentication::MAXIMUM_ATTEMPTS {
            let stale = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=TRUE");
            talk.answer("401 Unauthorized", &[&stale], "").unwrap();
            let again = talk.asked();
            assert!(
                again.starts_with("SETUP") && again.contains(&format!("nonce=\"{nonce}\"")) && again.contains("Transport")
            );
        }
        let last = talk.answer("401 Unauthorized", &["WWW-Authenticate: Digest realm=\"r\", nonce=\"9\", stale=TRUE"], "");
        assert!(matches!(&last, Err(End::Other(text)) if !text.contains("refuses")), "{last:?}");

        for (password, refusal) in
            [(Some("wrong"), "401 Unauthorized"), (None, "401 Unauthorized"), (Some("x"), "403 Forbidden")]
        {
            let mut talk = Talk::new("rtsp://camera/live", password);
            let challenge = ["www-authenticate: Basic realm=\"r\""];
            let mut result = talk.answer(refusal, &challenge, "");
            if result.is_ok() {
                assert!(talk.asked().ends_with("Authorization: Basic dmlld2VyOndyb25n\r\n\r\n"));
                result = talk.answer(refusal, &challenge, "");
            }
            assert_eq!(result, Err(End::Refused));
        }
        let mut unknown = Talk::new("rtsp://camera/live", Some("x"));
        let result = unknown.answer("401 Unauthorized", &["WWW-Authenticate: Negotiate"], "");
        assert!(matches!(&result, Err(End::Other(text)) if text.contains("negotiate")), "{result:?}");
    }

    /// Field case redirect: the password goes to the same host alone.
    #[test]
    fn redirects_are_followed_and_the_password_stays_with_its_host() {
        let digest = ["WWW-Authenticate: Digest realm=\"r\", nonce=\"1\""];
        let mut talk = Talk::new("rtsp://camera:8554/live", Some("secret"));
        talk.answer("401 Unauthorized", &digest, "").unwrap();
        talk.asked();
        assert_eq!(talk.answer("302 Moved Temporarily", &["Location: rtsp://camera:8554/live/moved"], ""), Ok(Next::Here));
        let request = talk.asked();
        assert!(
            request.starts_with("DESCRIBE rtsp://camera:8554/live/moved ") && request.contains("Authorization"),
            "{request}"
        );
        assert_eq!(talk.answer("301 Moved", &["Location: rtsp://camera:9/x", "Connection: close"], ""), Ok(Next::Elsewhere));
        assert!(talk.asked().contains("Authorization"));
        assert_eq!(talk.answer("302 Moved", &["Location: rtsp://other/x"], ""), Ok(Next::Elsewhere));
        assert_eq!(talk.conversation.url().as_str(), "rtsp://other/x");
        assert!(!talk.asked().contains("Authorization"));
        let Err(End::Other(text)) = talk.answer("401 Unauthorized", &digest, "") else { panic!() };
        assert!(text.contains("rtsp://other/x"), "{text}");
        assert!(!talk.asked().contains("Authorization"));

        let mut round = Talk::new("rtsp://camera/live", None);
        for _ in 0..MAXIMUM_REDIRECTS {
            round.answer("302 Found", &["Location: /live"], "").unwrap();
        }
        assert!(
            matches!(round.answer("302 Found", &["Location: /live"], ""), Err(End::Other(text)) if text.contains("/live"))
        );
        let mut nowhere = Talk::new("rtsp://camera/live", None);
        let result = nowhere.answer("302 Found", &["Location: rtsps://u:p@camera/live"], "");
        assert!(matches!(&result, Err(End::Other(text)) if text.contains("rtsps://camera/live")), "{result:?}");
    }

    #[test]
    fn a_connection_that_is_closed_after_a_refusal_is_made_again() {
        let mut talk = Talk::new("rtsp://camera/live", Some("secret"));
        assert!(talk.conversation.closed().is_err(), "a camera that says nothing");
        let mut talk = Talk::new("rtsp://camera/live", Some("secret"));
        for nonce in 0..MAXIMUM_RECONNECTS {
            let challenge = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=true");
            talk.answer("401 Unauthorized", &[&challenge], "").unwrap();
            assert_eq!(talk.conversation.closed(), Ok(()));
            assert!(talk.asked().contains("Authorization"));
        }
        talk.answer("401 Unauthorized", &["WWW-Authenticate: Digest realm=\"r\", nonce=\"x\", stale=true"], "").unwrap();
        assert!(talk.conversation.closed().is_err(), "but not for ever");
    }

    /// Field case server-request.
    #[test]
    fn the_cameras_own_requests_are_answered_within_bounds() {
        let mut talk = Talk::new("rtsp://camera/live", None);
        talk.asked();
        talk.hear(b"OPTIONS * RTSP/1.0\r\nCSeq: 41\r\nSession: A\r\n\r\n").unwrap();
        let answer = talk.asked();
        assert!(answer.starts_with("RTSP/1.0 200 OK\r\nCSeq: 41\r\nSession: A\r\nPublic: "), "{answer}");
        talk.hear(b"ANNOUNCE rtsp://x RTSP/1.0\r\nCSeq: 42\r\nContent-Length: 3\r\n\r\nv=0").unwrap();
        assert!(talk.asked().starts_with("RTSP/1.0 501 Not Implemented\r\nCSeq: 42\r\n"));
        talk.described(&[]).unwrap();
        assert!(talk.asked().starts_with("SETUP"), "and the session goes on");
        let ended = (0..100_000).find_map(|_| talk.hear(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").err());
        assert!(ended.is_some() && talk.conversation.output().len() < 2 * MAXIMUM_OUTPUT);
        let mut talk = Talk::new("rtsp://camera/live", None);
        assert!(talk.hear(b"TEARDOWN * RTSP/1.0\r\n\r\n").is_err());
    }

    #[test]
    fn addresses_are_tried_in_the_ways_that_cameras_read_them() {
        let mut talk = Talk::new("rtsp://camera/cam?channel=1", None);
        assert_eq!(talk.first_words(), "DESCRIBE rtsp://camera/cam?channel=1");
        talk.described(&["Content-Base: *"]).unwrap();
        for address in ["rtsp://camera/cam?channel=1/track1", "rtsp://camera/track1", "rtsp://camera/cam/track1?channel=1"] {
            assert_eq!(talk.first_words(), format!("SETUP {address}"));
            if !address.ends_with("=1") {
                talk.answer("404 Not Found", &[], "").unwrap();
            }
        }
        talk.answer("200 OK", &[], "").unwrap();
        let play = talk.asked();
        assert!(play.starts_with("PLAY rtsp://camera/cam?channel=1 ") && play.contains("Range"));
        talk.answer("457 Invalid Range", &[], "").unwrap();
        assert!(!talk.asked().contains("Range"));
        talk.answer("460 Only Aggregate Operation Allowed", &[], "").unwrap();
        assert_eq!(talk.first_words(), "PLAY rtsp://camera/cam/track1?channel=1");
        let end = talk.answer("454 Session Not Found", &[], "");
        assert_eq!(end, Err(End::Other("the camera answers PLAY with 454 Session Not Found".into())));
    }

    #[test]
    fn what_cannot_be_played_is_said() {
        let end = |status: &str, body: &str| Talk::new("rtsp://camera/live", None).answer(status, &[], body).unwrap_err();
        assert_eq!(end("200 OK", "m=video 0 RTP/AVP 26\r\n"), End::NotH264("JPEG".into()));
        assert_eq!(end("200 OK", "m=audio 0 RTP/AVP 0\r\n"), End::NotH264("no video".into()));
        assert!(matches!(end("200 OK", "<html>"), End::Other(text) if text.contains("no media")));
        assert!(matches!(end("404 Not Found", ""), End::Other(text) if text.contains("404 Not Found: is the path")));
        assert!(matches!(end("OK", ""), End::Other(text) if text.contains("makes no sense")));
        assert_eq!(end("503 Busy\u{7}", ""), End::Other("the camera answers DESCRIBE with 503 Busy".into()));
    }
}
