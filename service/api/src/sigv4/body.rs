//! What a signed request's body must be. A body is handed on while it comes; only [`Body::next`]'s `None` says that
//! all of it was right, so nobody may act on it before that.

use super::chunks::{ChunkError, Chunks};
use super::claims::SeedSignature;
use crate::bodies::{Full, Held};
use axum::body::Bytes;
use http_body_util::BodyExt;
use ring::digest::{Context, SHA256};
use std::time::Duration;

/// Longest wait for the next piece of a body: whoever stops sending gives the connection back.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// There is no place for it now.
    #[error("too many bodies are being read; ask again")]
    Busy,
    /// Longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// `x-amz-content-sha256` is not a kind that this service knows.
    #[error("this kind of signed body is not supported")]
    Unsupported,
}

impl From<Full> for BodyError {
    fn from(_: Full) -> Self {
        BodyError::Busy
    }
}
impl From<ChunkError> for BodyError {
    fn from(e: ChunkError) -> Self {
        match e {
            ChunkError::Incomplete => BodyError::Incomplete,
            ChunkError::Malformed => BodyError::Malformed,
            ChunkError::Mismatch => BodyError::Mismatch,
        }
    }
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
            hash if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(Kind::Whole(hash.to_ascii_lowercase()))
            }
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
    /// On whose account it is while it is in memory.
    held: Held,
    /// What followed the body, once it is complete.
    pub trailers: Vec<(String, String)>,
}

impl Body {
    /// At most `limit` bytes of content are taken.
    pub fn new(inner: axum::body::Body, kind: Kind, limit: u64, held: Held) -> Body {
        let check = match kind {
            Kind::Whole(expected) => Check::Whole { expected, digest: Context::new(&SHA256) },
            Kind::Unsigned => Check::Unsigned,
            Kind::Chunked { signed, trailers } => Check::Chunked(Box::new(Chunks::new(signed, trailers))),
        };
        Body { inner, check, left: limit, done: false, held, trailers: Vec::new() }
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
            self.held.grow(piece.len())?;
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}
