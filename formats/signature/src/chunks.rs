//! The `aws-chunked` decoder: bodies that come in chunks, each signed or none, with trailers behind them. Pure.

use crate::canonical::{sha256, verify};
use crate::claims::SeedSignature;
use ring::digest::{Context, SHA256};

/// Longest chunk head or trailer line, bytes.
const MAX_LINE: usize = 1024;
/// Most trailers.
const MAX_TRAILERS: usize = 8;

/// Why a body is not what its signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It ended early.
    #[error("the body ended early")]
    Incomplete,
    /// Not `aws-chunked`.
    #[error("the body is not aws-chunked as its headers say")]
    Malformed,
    /// Another body was signed.
    #[error("the body is not the one that was signed")]
    Mismatch,
}

enum State {
    Head,
    Data(u64),
    DataEnd,
    Trailer,
    Done,
}

/// The decoder: bytes in, content out.
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
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ChunkError> {
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
                State::Done => return Err(ChunkError::Malformed),
                State::Head | State::DataEnd | State::Trailer => {
                    let end = bytes.iter().position(|b| *b == b'\n');
                    let taken = end.map_or(bytes.len(), |e| e + 1);
                    if self.line.len() + taken > MAX_LINE {
                        return Err(ChunkError::Malformed);
                    }
                    self.line.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    if end.is_some() {
                        let line = std::mem::take(&mut self.line);
                        let line = line.strip_suffix(b"\r\n").ok_or(ChunkError::Malformed)?;
                        let line = std::str::from_utf8(line).map_err(|_| ChunkError::Malformed)?;
                        self.line(line)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), ChunkError> {
        match self.state {
            State::Head => {
                let (size, extension) = line.split_once(';').unwrap_or((line, ""));
                if size.is_empty() || size.len() > 12 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(ChunkError::Malformed);
                }
                let size = u64::from_str_radix(size, 16).map_err(|_| ChunkError::Malformed)?;
                if self.signed.is_some() {
                    let signature = extension.strip_prefix("chunk-signature=").ok_or(ChunkError::Malformed)?;
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
                let (name, value) = line.split_once(':').ok_or(ChunkError::Malformed)?;
                self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            _ => return Err(ChunkError::Malformed),
        }
        Ok(())
    }

    fn chunk_done(&mut self) -> Result<(), ChunkError> {
        let hash = hex::encode(std::mem::replace(&mut self.chunk, Context::new(&SHA256)).finish());
        let Some(seed) = &mut self.signed else { return Ok(()) };
        let text = seed.chunk_text(&seed.signature, &hash);
        if !verify(&seed.key, &text, &self.chunk_signature) {
            return Err(ChunkError::Mismatch);
        }
        seed.signature = std::mem::take(&mut self.chunk_signature);
        Ok(())
    }

    fn trailers_done(&mut self) -> Result<(), ChunkError> {
        let (Some(seed), true) = (&self.signed, self.with_trailers) else { return Ok(()) };
        let at = self.trailers.iter().position(|(n, _)| n == "x-amz-trailer-signature").ok_or(ChunkError::Mismatch)?;
        let (_, signature) = self.trailers.remove(at);
        let lines: String = self.trailers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}",
            seed.amz_date,
            seed.scope,
            seed.signature,
            sha256(lines.as_bytes())
        );
        if verify(&seed.key, &text, &signature) { Ok(()) } else { Err(ChunkError::Mismatch) }
    }

    /// The trailers, if the body was complete.
    pub fn finish(self) -> Result<Vec<(String, String)>, ChunkError> {
        match self.state {
            State::Done => Ok(self.trailers),
            // Some clients leave out the empty line after the last chunk when there are no trailers.
            State::Trailer if self.line.is_empty() && self.trailers.is_empty() && !self.with_trailers => Ok(self.trailers),
            _ => Err(ChunkError::Incomplete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scope, canonical::signing_key};

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

    fn decode(
        seed: Option<SeedSignature>,
        trailers: bool,
        body: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Vec<(String, String)>), ChunkError> {
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
        assert_eq!(decode(Some(seed), false, &body, 4096).err(), Some(ChunkError::Mismatch));
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
            (&b"5\r\nhel"[..], ChunkError::Incomplete),
            (b"5\r\nhelloXX0\r\n\r\n", ChunkError::Malformed),
            (b"5\nhello\r\n", ChunkError::Malformed),
            (b"zz\r\n", ChunkError::Malformed),
            (b"-5\r\n", ChunkError::Malformed),
            (b"fffffffffffffffff\r\n", ChunkError::Malformed),
            (b"0\r\n\r\nmore", ChunkError::Malformed),
            (b"", ChunkError::Incomplete),
        ] {
            assert_eq!(decode(None, true, body, 4).err(), Some(expected), "{:?}", String::from_utf8_lossy(body));
        }
        assert_eq!(decode(None, true, &[b'1'; MAX_LINE + 1], 100).err(), Some(ChunkError::Malformed));
    }
}
