//! What a signed request's body must be. A body is handed on while it comes; only [`Body::next`]'s `None` says that
//! all of it was right, so nobody may act on it before that.

use super::canonical::{sha256, verify};
use super::claims::SeedSignature;
use axum::body::Bytes;
use http_body_util::BodyExt;
use ring::digest::{Context, SHA256};
use std::time::Duration;

/// Longest chunk head or trailer line, bytes.
const MAX_LINE: usize = 1024;
/// Longest wait for the next piece of a body: whoever stops sending gives the connection back.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most trailers.
const MAX_TRAILERS: usize = 8;

/// Why a body is not what its signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection broke.
    #[error("the body ended early")]
    Incomplete,
    /// Not `aws-chunked`.
    #[error("the body is not aws-chunked as its headers say")]
    Malformed,
    /// Another body was signed.
    #[error("the body is not the one that was signed")]
    Mismatch,
    /// Nothing came for too long.
    #[error("the body did not come in time")]
    Slow,
    /// Longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// `x-amz-content-sha256` is not a kind that this service knows.
    #[error("this kind of signed body is not supported")]
    Unsupported,
}

/// How the body is signed.
pub enum Kind {
    /// As one piece, by its SHA-256.
    Whole(String),
    /// Not at all.
    Unsigned,
    /// In chunks, each signed or none.
    Chunked {
        /// The signature that the first chunk's follows.
        signed: Option<SeedSignature>,
        /// Whether trailers follow.
        trailers: bool,
    },
}

impl Kind {
    /// From `x-amz-content-sha256`, after the request's own signature was verified.
    pub fn of(payload: &str, seed: SeedSignature) -> Result<Kind, BodyError> {
        match payload {
            "UNSIGNED-PAYLOAD" => Ok(Kind::Unsigned),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Kind::Chunked { signed: None, trailers: true }),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Kind::Chunked { signed: Some(seed), trailers: false }),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Ok(Kind::Chunked { signed: Some(seed), trailers: true }),
            hash if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Kind::Whole(hash.to_ascii_lowercase())),
            _ => Err(BodyError::Unsupported),
        }
    }
}

enum Check {
    Whole { expected: String, digest: Context },
    Unsigned,
    Chunked(Box<Chunks>),
}

/// A body on its way in.
pub struct Body {
    inner: axum::body::Body,
    check: Check,
    left: u64,
    done: bool,
    /// What followed the body, once it is complete.
    pub trailers: Vec<(String, String)>,
}

impl Body {
    /// At most `limit` bytes of content are taken.
    pub fn new(inner: axum::body::Body, kind: Kind, limit: u64) -> Body {
        let check = match kind {
            Kind::Whole(expected) => Check::Whole { expected, digest: Context::new(&SHA256) },
            Kind::Unsigned => Check::Unsigned,
            Kind::Chunked { signed, trailers } => Check::Chunked(Box::new(Chunks::new(signed, trailers))),
        };
        Body { inner, check, left: limit, done: false, trailers: Vec::new() }
    }

    /// The next piece; `None` when the body is complete and right.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        while !self.done {
            let frame = tokio::time::timeout(PATIENCE, self.inner.frame()).await.map_err(|_| BodyError::Slow)?;
            let Some(frame) = frame else {
                self.done = true;
                self.finish()?;
                break;
            };
            let Ok(raw) = frame.map_err(|_| BodyError::Incomplete)?.into_data() else { continue };
            let piece = match &mut self.check {
                Check::Unsigned => raw,
                Check::Whole { digest, .. } => {
                    digest.update(&raw);
                    raw
                }
                Check::Chunked(chunks) => {
                    let mut out = Vec::with_capacity(raw.len());
                    chunks.feed(&raw, &mut out)?;
                    out.into()
                }
            };
            self.left = self.left.checked_sub(piece.len() as u64).ok_or(BodyError::TooLarge)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<(), BodyError> {
        match std::mem::replace(&mut self.check, Check::Unsigned) {
            Check::Unsigned => Ok(()),
            Check::Whole { expected, digest } => match hex::encode(digest.finish()) == expected {
                true => Ok(()),
                false => Err(BodyError::Mismatch),
            },
            Check::Chunked(chunks) => {
                self.trailers = chunks.finish()?;
                Ok(())
            }
        }
    }

    /// The whole body; for small ones.
    pub async fn collect(mut self) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

enum State {
    Head,
    Data(u64),
    DataEnd,
    Trailer,
    Done,
}

/// The `aws-chunked` decoder. Pure: bytes in, content out.
pub struct Chunks {
    signed: Option<SeedSignature>,
    with_trailers: bool,
    state: State,
    line: Vec<u8>,
    chunk: Context,
    chunk_signature: String,
    trailers: Vec<(String, String)>,
}

impl Chunks {
    /// A decoder that checks every chunk's signature if `signed`.
    pub fn new(signed: Option<SeedSignature>, with_trailers: bool) -> Chunks {
        let (line, trailers, chunk) = (Vec::new(), Vec::new(), Context::new(&SHA256));
        Chunks { signed, with_trailers, state: State::Head, line, chunk, chunk_signature: String::new(), trailers }
    }

    /// Takes bytes, adds content to `out`.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        while !bytes.is_empty() {
            match self.state {
                State::Data(left) => {
                    let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    out.extend_from_slice(&bytes[..now]);
                    if self.signed.is_some() {
                        self.chunk.update(&bytes[..now]);
                    }
                    bytes = &bytes[now..];
                    let left = left - now as u64;
                    self.state = if left > 0 { State::Data(left) } else { State::DataEnd };
                }
                State::Done => return Err(BodyError::Malformed),
                State::Head | State::DataEnd | State::Trailer => {
                    let end = bytes.iter().position(|b| *b == b'\n');
                    let taken = end.map_or(bytes.len(), |e| e + 1);
                    if self.line.len() + taken > MAX_LINE {
                        return Err(BodyError::Malformed);
                    }
                    self.line.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    if end.is_some() {
                        let line = std::mem::take(&mut self.line);
                        let line = line.strip_suffix(b"\r\n").ok_or(BodyError::Malformed)?;
                        let line = std::str::from_utf8(line).map_err(|_| BodyError::Malformed)?;
                        self.line(line)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), BodyError> {
        match self.state {
            State::Head => {
                let (size, extension) = line.split_once(';').unwrap_or((line, ""));
                if size.is_empty() || size.len() > 12 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(BodyError::Malformed);
                }
                let size = u64::from_str_radix(size, 16).map_err(|_| BodyError::Malformed)?;
                if self.signed.is_some() {
                    let signature = extension.strip_prefix("chunk-signature=").ok_or(BodyError::Malformed)?;
                    self.chunk_signature = signature.to_owned();
                }
                self.state = match size {
                    0 => {
                        self.chunk_done()?;
                        State::Trailer
                    }
                    n => State::Data(n),
                };
            }
            State::DataEnd if line.is_empty() => {
                self.chunk_done()?;
                self.state = State::Head;
            }
            State::Trailer if line.is_empty() => {
                self.state = State::Done;
                return self.trailers_done();
            }
            State::Trailer if self.with_trailers && self.trailers.len() < MAX_TRAILERS => {
                let (name, value) = line.split_once(':').ok_or(BodyError::Malformed)?;
                self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            _ => return Err(BodyError::Malformed),
        }
        Ok(())
    }

    fn chunk_done(&mut self) -> Result<(), BodyError> {
        let hash = hex::encode(std::mem::replace(&mut self.chunk, Context::new(&SHA256)).finish());
        let Some(seed) = &mut self.signed else { return Ok(()) };
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{}\n{hash}",
            seed.amz_date,
            seed.scope,
            seed.signature,
            sha256(b"")
        );
        if !verify(&seed.key, &text, &self.chunk_signature) {
            return Err(BodyError::Mismatch);
        }
        seed.signature = std::mem::take(&mut self.chunk_signature);
        Ok(())
    }

    fn trailers_done(&mut self) -> Result<(), BodyError> {
        let (Some(seed), true) = (&self.signed, self.with_trailers) else { return Ok(()) };
        let at = self.trailers.iter().position(|(n, _)| n == "x-amz-trailer-signature").ok_or(BodyError::Mismatch)?;
        let (_, signature) = self.trailers.remove(at);
        let lines: String = self.trailers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}",
            seed.amz_date,
            seed.scope,
            seed.signature,
            sha256(lines.as_bytes())
        );
        if verify(&seed.key, &text, &signature) { Ok(()) } else { Err(BodyError::Mismatch) }
    }

    /// The trailers, if the body was complete.
    pub fn finish(self) -> Result<Vec<(String, String)>, BodyError> {
        match self.state {
            State::Done => Ok(self.trailers),
            // Some clients leave out the empty line after the last chunk when there are no trailers.
            State::Trailer if self.line.is_empty() && self.trailers.is_empty() && !self.with_trailers => Ok(self.trailers),
            _ => Err(BodyError::Incomplete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigv4::{Scope, canonical::signing_key};

    /// "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks".
    fn published() -> (SeedSignature, Vec<u8>) {
        let scope = Scope { date: "20130524".into(), region: "us-east-1".into(), service: "s3".into() };
        let seed = SeedSignature {
            key: signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &scope),
            signature: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9".into(),
            amz_date: "20130524T000000Z".into(),
            scope,
        };
        let mut body = Vec::new();
        for (size, signature) in [
            (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
            (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
            (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ] {
            body.extend(format!("{size:x};chunk-signature={signature}\r\n").into_bytes());
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend(b"\r\n");
        }
        (seed, body)
    }

    fn decode(seed: Option<SeedSignature>, trailers: bool, body: &[u8], step: usize) -> Result<(Vec<u8>, Vec<(String, String)>), BodyError> {
        let mut chunks = Chunks::new(seed, trailers);
        let mut out = Vec::new();
        for piece in body.chunks(step) {
            chunks.feed(piece, &mut out)?;
        }
        Ok((out, chunks.finish()?))
    }

    #[test]
    fn the_published_chunked_upload_verifies_however_it_is_cut() {
        let (seed, body) = published();
        for step in [1, 7, 4096, body.len()] {
            let (content, _) = decode(Some(seed.clone()), false, &body, step).unwrap();
            assert!(content.len() == 66560 && content.iter().all(|b| *b == b'a'));
        }
    }

    #[test]
    fn a_changed_chunk_is_refused() {
        let (seed, mut body) = published();
        body[70_000 - 4000] = b'b';
        assert_eq!(decode(Some(seed), false, &body, 4096).err(), Some(BodyError::Mismatch));
    }

    #[test]
    fn unsigned_chunks_with_a_trailer() {
        let body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
        let (content, trailers) = decode(None, true, body, 3).unwrap();
        assert_eq!(content, b"hello");
        assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "NhCmhg==".to_owned())]);
    }

    #[test]
    fn damaged_bodies_are_refused() {
        for (body, expected) in [
            (&b"5\r\nhel"[..], BodyError::Incomplete),
            (b"5\r\nhelloXX0\r\n\r\n", BodyError::Malformed),
            (b"5\nhello\r\n", BodyError::Malformed),
            (b"zz\r\n", BodyError::Malformed),
            (b"-5\r\n", BodyError::Malformed),
            (b"fffffffffffffffff\r\n", BodyError::Malformed),
            (b"0\r\n\r\nmore", BodyError::Malformed),
            (b"", BodyError::Incomplete),
        ] {
            assert_eq!(decode(None, true, body, 4).err(), Some(expected), "{:?}", String::from_utf8_lossy(body));
        }
        assert_eq!(decode(None, true, &[b'1'; MAX_LINE + 1], 100).err(), Some(BodyError::Malformed));
    }
}
