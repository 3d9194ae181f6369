//! What a camera sends over its connection, cut anywhere: neither a crash nor more memory than the bounds say.
#![no_main]

use belvedere_rtsp::authentication::Credentials;
use belvedere_rtsp::conversation::{Conversation, MAXIMUM_OUTPUT, Next};
use belvedere_rtsp::message::{MAXIMUM_BODY, MAXIMUM_HEAD, Reader};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use url::Url;

const LIMIT: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let credentials = Credentials { username: "viewer".into(), password: "never to be seen".into() };
    let url = Url::parse("rtsp://camera/live").expect("a URL");
    let mut conversation = Conversation::new(&url, Some(credentials), LIMIT, || 4);
    let mut reader = Reader::default();
    for (number, piece) in data.chunks(usize::from(*cut) * 8 + 1).enumerate() {
        reader.push(piece);
        loop {
            let Ok(item) = reader.next(&conversation.expected()) else { return };
            let Some(item) = item else { break };
            match conversation.take(Duration::from_secs(number as u64), item) {
                Ok(Next::Here) => {}
                Ok(Next::Elsewhere) => reader = Reader::default(),
                Err(_) => return,
            }
            while let Some(picture) = conversation.picture() {
                assert!(!picture.bytes.is_empty() && picture.bytes.len() <= LIMIT);
            }
            if conversation.url().host_str() != Some("camera") {
                assert!(!String::from_utf8_lossy(conversation.output()).contains("Authorization"));
            }
        }
        conversation.tick(Duration::from_secs(number as u64 * 60));
        // Two requests beyond the bound, of the longest addresses.
        assert!(conversation.output().len() <= MAXIMUM_OUTPUT + MAXIMUM_HEAD * 2);
        // What is kept is less than one thing and the piece that came last.
        assert!(reader.space().len() <= MAXIMUM_HEAD + MAXIMUM_BODY + piece.len());
    }
});
