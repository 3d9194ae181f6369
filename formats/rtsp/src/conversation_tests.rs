//! Conversations with cameras that answer as they are told.

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
    talk.answer("401 Unauthorized", &["WWW-Authenticate: Digest realm=\"r\", nonce=\"1\", algorithm=SHA-256"], "").unwrap();
    assert!(talk.asked().contains("Authorization: Digest username=\"viewer\", realm=\"r\", nonce=\"1\""));
    talk.described(&[]).unwrap();
    assert!(talk.asked().contains("SETUP"));
    for nonce in 2..=crate::authentication::MAXIMUM_ATTEMPTS {
        let stale = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=TRUE");
        talk.answer("401 Unauthorized", &[&stale], "").unwrap();
        let again = talk.asked();
        assert!(again.starts_with("SETUP") && again.contains(&format!("nonce=\"{nonce}\"")) && again.contains("Transport"));
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
    assert!(matches!(round.answer("302 Found", &["Location: /live"], ""), Err(End::Other(text)) if text.contains("/live")));
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
