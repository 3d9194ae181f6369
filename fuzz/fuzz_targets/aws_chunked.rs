//! `aws-chunked` bodies: nothing breaks the decoder, how a body is cut on its way does not matter, content is never more
//! than what came, and what a client encodes comes out as it was.
#![no_main]

use belvedere_signature::Scope;
use belvedere_signature::canonical::{sha256, signing_key};
use belvedere_signature::chunks::{ChunkError, Chunks};
use belvedere_signature::claims::SeedSignature;
use libfuzzer_sys::fuzz_target;

type Decoded = Result<(Vec<u8>, Vec<(String, String)>), ChunkError>;

fn seed() -> SeedSignature {
    let scope = Scope { date: "20130524".into(), region: "us-east-1".into(), service: "s3".into() };
    let key = signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &scope);
    SeedSignature::new(key, "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", "20130524T000000Z", scope)
}

fn decode(signed: bool, trailers: bool, body: &[u8], step: usize) -> Decoded {
    let mut chunks = Chunks::new(signed.then(seed), trailers);
    let mut out = Vec::new();
    for piece in body.chunks(step) {
        chunks.feed(piece, &mut out)?;
        assert!(out.len() <= body.len(), "more came out than went in");
    }
    Ok((out, chunks.finish()?))
}

/// A body as clients write it: chunks of the given sizes, each signed on the one before.
fn encoded(signed: bool, content: &[u8], sizes: &[u8]) -> Vec<u8> {
    let (mut body, mut left, mut sizes) = (Vec::new(), content, sizes.iter().cycle());
    let (seed, mut before) = (seed(), "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9".to_owned());
    loop {
        let size = sizes.next().map_or(1, |s| usize::from(*s) + 1).min(left.len());
        let (chunk, rest) = left.split_at(size);
        body.extend_from_slice(format!("{size:x}").as_bytes());
        if signed {
            before = seed.next(&before, &sha256(chunk));
            body.extend_from_slice(format!(";chunk-signature={before}").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(chunk);
        if size == 0 {
            body.extend_from_slice(b"\r\n");
            return body;
        }
        body.extend_from_slice(b"\r\n");
        left = rest;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[mode, step], rest)) = data.split_first_chunk::<2>() else { return };
    let (signed, trailers, step) = (mode & 1 != 0, mode & 2 != 0, usize::from(step) + 1);
    let whole = decode(signed, trailers, rest, rest.len().max(1));
    assert_eq!(decode(signed, trailers, rest, step), whole, "how it is cut matters");
    if signed {
        assert!(whole.is_err(), "a signature was guessed");
    }
    let (sizes, content) = rest.split_at(rest.len().min(4));
    let good = decode(signed, false, &encoded(signed, content, sizes), step);
    assert_eq!(good, Ok((content.to_vec(), Vec::new())), "what was encoded comes out");
});
