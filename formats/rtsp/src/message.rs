//! RTSP 1.0 on the wire (RFC 2326): answers, requests and interleaved packets, told apart in a stream of bytes.
//!
//! Cameras put bytes between these that belong to nothing. [`Reader`] skips them and goes on at the next place where
//! something begins for certain, so that garbage costs at most what it lies in, and never the session.

/// Bytes of a start line and its headers.
pub const MAXIMUM_HEAD: usize = 16 << 10;
/// Bytes of a body; the bodies that count are session descriptions.
pub const MAXIMUM_BODY: usize = 64 << 10;
/// Headers of a message; further ones are left out.
pub const MAXIMUM_HEADERS: usize = 128;
/// Bytes that belong to nothing, between two things that do.
pub const MAXIMUM_NOISE: usize = 1 << 20;

/// Bytes before an interleaved packet: `$`, channel, length.
const FRAMING: usize = 4;
/// What a request from the camera begins with.
const METHODS: [&[u8]; 12] = [
    b"OPTIONS ", b"GET_PARAMETER ", b"SET_PARAMETER ", b"ANNOUNCE ", b"REDIRECT ", b"TEARDOWN ", b"PLAY_NOTIFY ", b"PLAY ",
    b"PAUSE ", b"DESCRIBE ", b"SETUP ", b"RECORD ",
];
const ANSWER: &[u8] = b"RTSP/";

/// Why a connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// More headers than [`MAXIMUM_HEAD`].
    #[error("the camera's answer has more than {MAXIMUM_HEAD} bytes of headers")]
    Head,
    /// A body of more than [`MAXIMUM_BODY`].
    #[error("the camera's answer has a body of more than {MAXIMUM_BODY} bytes")]
    Body,
    /// More than [`MAXIMUM_NOISE`] that belongs to nothing.
    #[error("what answers there does not speak RTSP: is the port right?")]
    Noise,
}

/// Names in lower case, values as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// The first value of a header; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// All values of a header, in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// As text; what is no UTF-8 becomes replacement characters.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Such as 200; zero when there was none.
    pub status: u16,
    /// Such as `OK`.
    pub reason: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

/// A request; cameras send them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Such as `OPTIONS`.
    pub method: String,
    /// Its headers.
    pub headers: Headers,
}

/// What comes over the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// An answer to a request of ours.
    Answer(Answer),
    /// A request of the camera's.
    Request(Request),
    /// An interleaved packet.
    Packet {
        /// On which channel.
        channel: u8,
        /// The packet.
        bytes: &'a [u8],
    },
}

/// What is known about the packets to come: the more, the surer is the way back after garbage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// The channel of the pictures; the one after it is their RTCP's.
    pub channel: Option<u8>,
    /// Their RTP payload type.
    pub payload_type: Option<u8>,
}

impl Expected {
    /// Whether an interleaved packet begins here for certain. `None`: too few bytes to say.
    fn begins(&self, bytes: &[u8]) -> Option<bool> {
        let Some(expected) = self.channel else { return Some(false) };
        let rtcp = match bytes.get(1) {
            None => return None,
            Some(channel) if *channel == expected => false,
            Some(channel) if *channel == expected.wrapping_add(1) => true,
            Some(_) => return Some(false),
        };
        let (Some(high), Some(low), Some(first), Some(second)) = (bytes.get(2), bytes.get(3), bytes.get(4), bytes.get(5))
        else {
            return None;
        };
        let length = u16::from_be_bytes([*high, *low]);
        Some(if rtcp {
            first >> 6 == 2 && (192..=223).contains(second) && length >= 4
        } else {
            first >> 6 == 2 && length >= 12 && self.payload_type.is_none_or(|expected| second & 0x7f == expected)
        })
    }
}

enum Begin {
    Packet {
        length: usize,
    },
    Message,
    /// More bytes are needed to say.
    Unknown,
    /// Up to the next thing that may be one, so many bytes belong to nothing.
    Noise(usize),
}

/// Whether `bytes` begin with `word`. `None`: they may, when there are more of them.
fn starts(bytes: &[u8], word: &[u8]) -> Option<bool> {
    let common = bytes.len().min(word.len());
    match bytes[..common] == word[..common] {
        false => Some(false),
        true if common == word.len() => Some(true),
        true => None,
    }
}

/// Whether a message begins here. `None`: more bytes are needed.
fn message_begins(bytes: &[u8]) -> Option<bool> {
    let mut answer = Some(false);
    for word in std::iter::once(ANSWER).chain(METHODS) {
        match starts(bytes, word) {
            Some(true) => return Some(true),
            None => answer = None,
            Some(false) => {}
        }
    }
    answer
}

/// Tells things apart in what was pushed into it.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
    /// Of a packet or message that may be garbage, so many bytes were searched for a certain packet.
    searched: usize,
    noise: usize,
    heard: bool,
}

impl Reader {
    /// Where to put bytes as they arrive: behind what is there. At most `MAXIMUM_HEAD + MAXIMUM_BODY` bytes are kept
    /// when everything was taken out that [`Reader::next`] gives.
    pub fn space(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        &mut self.buffer
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.space().extend_from_slice(bytes);
    }

    /// Whether anything came that belongs here.
    pub fn heard(&self) -> bool {
        self.heard
    }

    /// Whether bytes came that belong to nothing since the last thing that did.
    pub fn noisy(&self) -> bool {
        self.noise > 0
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.searched = 0;
    }

    /// The next thing, if it is there as a whole.
    pub fn next(&mut self, expected: &Expected) -> Result<Option<Item<'_>>, Broken> {
        loop {
            match self.begin(expected) {
                Begin::Unknown => return Ok(None),
                Begin::Noise(bytes) => self.noise(bytes)?,
                Begin::Packet { length } => {
                    let from = self.start;
                    self.skip(FRAMING + length);
                    (self.noise, self.heard) = (0, true);
                    let channel = self.buffer[from + 1];
                    return Ok(Some(Item::Packet { channel, bytes: &self.buffer[from + FRAMING..from + FRAMING + length] }));
                }
                Begin::Message => match message(&self.buffer[self.start..], &mut self.searched, expected)? {
                    Message::Whole(item, length) => {
                        self.skip(length);
                        (self.noise, self.heard) = (0, true);
                        return Ok(Some(item));
                    }
                    Message::More => return Ok(None),
                    Message::Noise(bytes) => self.noise(bytes)?,
                },
            }
        }
    }

    fn noise(&mut self, bytes: usize) -> Result<(), Broken> {
        self.skip(bytes);
        self.noise += bytes;
        if self.noise > MAXIMUM_NOISE { Err(Broken::Noise) } else { Ok(()) }
    }

    fn begin(&mut self, expected: &Expected) -> Begin {
        let rest = &self.buffer[self.start..];
        let Some(first) = rest.first() else { return Begin::Unknown };
        if *first != b'$' {
            return match message_begins(rest) {
                Some(true) => Begin::Message,
                None => Begin::Unknown,
                Some(false) => Begin::Noise(search(rest, 1, expected)),
            };
        }
        if rest.len() < FRAMING {
            return Begin::Unknown;
        }
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let whole = rest.len() >= FRAMING + length;
        match expected.begins(rest) {
            Some(true) if whole => return Begin::Packet { length },
            Some(true) => return Begin::Unknown,
            // Shorter than any RTP packet: there will never be enough bytes to say.
            None if !whole => return Begin::Unknown,
            None | Some(false) => {}
        }
        // A packet of something else (another channel, an empty packet, not RTP), or garbage that begins with `$`. It is
        // a packet when something begins behind it; and garbage when something certain begins inside.
        if whole {
            let behind = &rest[FRAMING + length..];
            let followed = match behind.first() {
                None => return Begin::Unknown,
                Some(b'$' | b'\r' | b'\n') => true,
                Some(_) => message_begins(behind) != Some(false),
            };
            return if followed { Begin::Packet { length } } else { Begin::Noise(search(rest, 1, expected)) };
        }
        let certain = search(rest, self.searched.max(1), expected);
        if certain < rest.len() && matches!(certain_at(&rest[certain..], expected), Some(true)) {
            return Begin::Noise(certain);
        }
        // The last bytes may be the first ones of something certain: they are looked at again.
        self.searched = certain;
        Begin::Unknown
    }
}

/// Whether something begins here for certain. `None`: more bytes are needed.
fn certain_at(bytes: &[u8], expected: &Expected) -> Option<bool> {
    match bytes.first() {
        None => None,
        Some(b'$') => expected.begins(bytes),
        Some(_) => message_begins(bytes),
    }
}

/// The first place from `from` on where something certain begins or may begin.
fn search(bytes: &[u8], from: usize, expected: &Expected) -> usize {
    (from..bytes.len()).find(|at| certain_at(&bytes[*at..], expected) != Some(false)).unwrap_or(bytes.len())
}

/// What begins like a message.
enum Message {
    /// It is one, of so many bytes.
    Whole(Item<'static>, usize),
    /// More bytes are needed.
    More,
    /// So many bytes belong to nothing.
    Noise(usize),
}

/// Reads a message. While packets are expected, it ends at the latest where one begins for certain: a message is text, and what
/// was garbage, or says that it is longer, must not take the pictures with it. Where a packet cuts it, of its body there is what there is, and without the end of its head it is none.
/// While packets are expected, a head or body that is too large is none, for it must not end the session; as noise it is
/// bounded, too. `searched`: up to there no packet begins for certain in the body.
///
/// Nothing is looked at that lies behind the message: it would be looked at again for each of many small ones.
fn message(bytes: &[u8], searched: &mut usize, expected: &Expected) -> Result<Message, Broken> {
    let playing = expected.channel.is_some();
    let end = match head(bytes, expected) {
        Head::Whole(end) => end,
        Head::Cut(place) => return Ok(Message::Noise(place)),
        Head::Open(_) if bytes.len() < MAXIMUM_HEAD => return Ok(Message::More),
        Head::Open(place) if playing => return Ok(Message::Noise(place)),
        Head::Open(_) => return Err(Broken::Head),
    };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let headers = headers(lines);
    let length = headers.text("content-length").and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let mut length = match usize::try_from(length).ok().filter(|length| *length <= MAXIMUM_BODY) {
        Some(length) => length,
        None if playing => 0,
        None => return Err(Broken::Body),
    };
    let until = bytes.len().min(end + length);
    let place = ((*searched).max(end)..until).find(|at| packet_begins(bytes, *at, expected) != Some(false));
    // The last bytes may be the first ones of a packet: they are looked at again.
    *searched = place.unwrap_or(until);
    if let Some(place) = place.filter(|place| packet_begins(bytes, *place, expected) == Some(true)) {
        length = place - end;
    }
    let Some(body) = bytes.get(end..end + length) else { return Ok(Message::More) };
    let mut words = first.splitn(3, ' ');
    let (one, two, three) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
    let item = if one.starts_with("RTSP/") {
        Item::Answer(Answer {
            status: two.trim().parse().unwrap_or(0),
            reason: three.trim().chars().filter(|letter| !letter.is_control()).take(64).collect(),
            headers,
            body: body.to_vec(),
        })
    } else {
        Item::Request(Request { method: one.to_owned(), headers })
    };
    Ok(Message::Whole(item, end + length))
}

/// Whether a packet begins at a place in a message for certain. `None`: too few bytes to say.
fn packet_begins(bytes: &[u8], at: usize, expected: &Expected) -> Option<bool> {
    #[cfg(test)]
    cost_tests::look();
    if bytes[at] == b'$' { expected.begins(&bytes[at..]) } else { Some(false) }
}

/// How far the head of a message goes.
enum Head {
    /// Up to here, behind the empty line.
    Whole(usize),
    /// It has no end before this place, where a packet begins for certain.
    Cut(usize),
    /// No end is there yet; up to here no packet begins for certain.
    Open(usize),
}

/// Looks for the end of a message's head; lines end with CR LF, as they should, or with LF alone.
fn head(bytes: &[u8], expected: &Expected) -> Head {
    let within = bytes.len().min(MAXIMUM_HEAD);
    let (mut line, mut open) = (0, within);
    for at in 0..within {
        match packet_begins(bytes, at, expected) {
            Some(true) => return Head::Cut(at),
            None => open = open.min(at),
            Some(false) => {}
        }
        if bytes[at] == b'\n' {
            if line > 0 && matches!(bytes[line..at], [] | [b'\r']) {
                return Head::Whole(at + 1);
            }
            line = at + 1;
        }
    }
    Head::Open(open)
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Headers {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    for line in lines {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            // A long header goes on.
            if let Some((_, value)) = headers.last_mut() {
                value.push(b' ');
                value.extend_from_slice(line.trim_ascii());
            }
        } else if let Some(colon) = line.iter().position(|byte| *byte == b':')
            && headers.len() < MAXIMUM_HEADERS
        {
            let name = String::from_utf8_lossy(line[..colon].trim_ascii()).to_ascii_lowercase();
            headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }
    Headers(headers)
}

#[cfg(test)]
#[path = "message_cost_tests.rs"]
mod cost_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPECTED: Expected = Expected { channel: Some(0), payload_type: Some(96) };

    fn packet(channel: u8, number: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![b'$', channel];
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend([0x80, 96, 0, number].into_iter().chain(std::iter::repeat(number)).take(length));
        bytes
    }

    /// Everything in `bytes`, pushed in pieces of `piece` bytes: what it is, in short.
    fn all(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(item) = reader.next(&EXPECTED).unwrap() {
                found.push(match item {
                    Item::Answer(answer) => format!("{} {} {}", answer.status, answer.reason, answer.body.len()),
                    Item::Request(request) => request.method,
                    Item::Packet { channel, bytes } => format!("{channel}:{}:{}", bytes.len(), bytes.get(3).unwrap_or(&0)),
                });
            }
        }
        found
    }

    #[test]
    fn messages_and_packets_are_told_apart_however_they_are_cut() {
        let mut bytes = packet(0, 1, 40);
        bytes.extend(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\nv=0\r\n");
        bytes.extend(packet(1, 2, 28));
        bytes.extend(b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n");
        bytes.extend(packet(7, 3, 20));
        bytes.extend(packet(0, 4, 0));
        bytes.extend(packet(0, 5, 1400));
        let wanted = ["0:40:1", "200 OK 5", "1:28:2", "OPTIONS", "7:20:3", "0:0:0", "0:1400:5"];
        for piece in [1, 2, 3, 5, 7, 64, 100_000] {
            assert_eq!(all(&bytes, piece), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn headers_come_in_every_shape() {
        for text in [
            "RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession:  77 ; timeout=5\r\n\r\n",
            "RTSP/1.0 200 OK\ncseq:3\nSESSION : 77 ; timeout=5\n\n",
            "RTSP/2.0 200\r\nsession: 77 ;\r\n  timeout=5\r\nno colon here\r\nCSeq: 3\r\n\r\n",
            "RTSP/1.0 200 OK\r\nCSeq: 3\nSession: 77 ; timeout=5\n\r\n",
        ] {
            let mut reader = Reader::default();
            reader.push(text.as_bytes());
            let Ok(Some(Item::Answer(answer))) = reader.next(&EXPECTED) else { panic!("{text:?}") };
            assert_eq!((answer.status, answer.headers.text("cseq").as_deref()), (200, Some("3")));
            assert_eq!(answer.headers.text("session").as_deref(), Some("77 ; timeout=5"), "{text:?}");
        }
    }

    /// Field case garbage: 37 bytes between two packets.
    #[test]
    fn after_garbage_the_next_packet_is_found() {
        let garbages: [&[u8]; 7] = [
            &[7; 37],
            b"$",
            b"$$$$$$$",
            b"$\x00\xff\xff garbage that begins like a packet of 65535 bytes",
            b"$\x05\x40\x00 the same on another channel",
            b"RT RTSP OPTIONS GET_ \r\n\r\n",
            b"\r\n\0\0",
        ];
        for garbage in garbages {
            let mut bytes = packet(0, 1, 40);
            bytes.extend_from_slice(garbage);
            for number in 2..40 {
                bytes.extend(packet(0, number, 200));
            }
            for piece in [1, 44, 1000, 100_000] {
                let found = all(&bytes, piece);
                assert_eq!(found.first().map(String::as_str), Some("0:40:1"));
                assert_eq!(
                    found.iter().filter(|item| item.starts_with("0:200:")).count(),
                    38,
                    "{garbage:?} by {piece}: {found:?}"
                );
            }
        }
    }

    /// Of the kind of field case garbage: what begins like a message and does not end costs itself alone.
    #[test]
    fn after_the_beginning_of_a_message_the_next_packet_is_found() {
        let beginnings: [&[u8]; 12] = [
            b"RTSP/1.0 200 OK\r\nCSeq: 4\r\n",
            b"RTSP/1.0 200 OK\rCSeq: 4\r\r",
            b"RTSP/1.0 200 OK\r\nPublic: OPTIONS PLAY RTSP/",
            b"RTSP/",
            b"RTSP/RTSP/RTSP/",
            b"OPTIONS ",
            b"PLAY ",
            b"OPTIONS * RTSP/1.0\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 60000\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\nhalf a body",
        ];
        for beginning in beginnings {
            let mut bytes = packet(0, 1, 40);
            bytes.extend_from_slice(beginning);
            for number in 2..40 {
                bytes.extend(packet(0, number, 200));
            }
            bytes.extend(b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nContent-Length: 5\r\n\r\nv=0\r\n");
            bytes.extend(packet(0, 41, 200));
            for piece in [1, 44, 1000, 100_000] {
                let found = all(&bytes, piece);
                let packets = found.iter().filter(|item| item.starts_with("0:200:")).count();
                assert_eq!(packets, 39, "{:?} by {piece}: {found:?}", String::from_utf8_lossy(beginning));
                assert_eq!(found[found.len() - 2], "200 OK 5", "what follows is read as ever");
            }
        }
    }

    /// While pictures come, no message ends the session: it is noise, and that is bounded.
    #[test]
    fn a_message_that_is_too_large_between_pictures_is_noise() {
        let mut head = b"RTSP/1.0 200 OK\r\nX: ".to_vec();
        head.resize(MAXIMUM_HEAD + 100, b'x');
        let mut bytes = [packet(0, 1, 40), head.clone()].concat();
        bytes.extend(packet(0, 2, 200));
        assert_eq!(all(&bytes, 1448), ["0:40:1", "0:200:2"]);
        let mut reader = Reader::default();
        let broken = (0..=MAXIMUM_NOISE / MAXIMUM_HEAD).find_map(|_| {
            reader.push(&head);
            reader.next(&EXPECTED).err()
        });
        assert_eq!(broken, Some(Broken::Noise));
    }

    #[test]
    fn amounts_are_bounded() {
        // Before pictures are expected: there the answer is what the camera is asked for.
        let next = |bytes: &[u8]| {
            let mut reader = Reader::default();
            reader.push(bytes);
            reader.next(&Expected::default()).map(|item| item.is_some())
        };
        let answer = |headers: usize| {
            let mut text = b"RTSP/1.0 200 OK\r\nX: ".to_vec();
            text.resize(headers - 4, b'x');
            text.extend_from_slice(b"\r\n\r\n");
            text
        };
        assert_eq!(next(&answer(MAXIMUM_HEAD)), Ok(true));
        assert_eq!(next(&answer(MAXIMUM_HEAD + 1)), Err(Broken::Head));
        let body = |length: u64| format!("RTSP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        assert_eq!(next(&body(MAXIMUM_BODY as u64)), Ok(false));
        assert_eq!(next(&body(MAXIMUM_BODY as u64 + 1)), Err(Broken::Body));
        assert_eq!(next(&body(u64::MAX)), Err(Broken::Body));
        assert_eq!(next(&vec![b'x'; MAXIMUM_NOISE]), Ok(false));
        assert_eq!(next(&vec![b'x'; MAXIMUM_NOISE + 1]), Err(Broken::Noise));
        let many = format!("RTSP/1.0 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAXIMUM_HEADERS + 9));
        let mut reader = Reader::default();
        reader.push(many.as_bytes());
        let Ok(Some(Item::Answer(answer))) = reader.next(&EXPECTED) else { panic!() };
        assert_eq!(answer.headers.all("a").count(), MAXIMUM_HEADERS);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Any bytes between two packets, and the third packet behind them is always found.
        #[test]
        fn no_garbage_hides_what_follows(garbage in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..300) {
            let mut bytes = packet(0, 1, 40);
            bytes.extend_from_slice(&garbage);
            // Enough to fill whatever length the garbage may claim.
            for _ in 0..60 {
                bytes.extend(packet(0, 2, 1400));
            }
            prop_assert!(all(&bytes, piece).iter().filter(|item| *item == "0:1400:2").count() >= 57);
        }
    }
}
