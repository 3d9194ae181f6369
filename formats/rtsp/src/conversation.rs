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
#[path = "conversation_tests.rs"]
mod tests;
