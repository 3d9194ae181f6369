//! The bytes of an object on their way out. The body reads them itself when its turn comes: there is no task beside it and
//! no channel whose end could be taken for the end of the object. (A channel that carries pieces, and beside it one that
//! carries an error, has two ends: `http_body_util`'s takes the second for the first while the last piece is on its way.)

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Most that is read at once.
const PIECE: usize = 128 * 1024;

/// A body of a known length. One that ends early is an error, so that the connection ends and nobody takes it for whole.
pub(super) struct ObjectBody<R> {
    reader: R,
    left: u64,
    piece: Vec<u8>,
    /// For the log.
    name: String,
}

impl<R: AsyncRead + Unpin> ObjectBody<R> {
    pub(super) fn new(reader: R, length: u64, name: String) -> ObjectBody<R> {
        ObjectBody { reader, left: length, piece: Vec::new(), name }
    }
}

impl<R: AsyncRead + Unpin> HttpBody for ObjectBody<R> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = &mut *self;
        if body.left == 0 {
            return Poll::Ready(None);
        }
        if body.piece.is_empty() {
            body.piece = vec![0; PIECE.min(usize::try_from(body.left).unwrap_or(PIECE))];
        }
        let mut buffer = ReadBuf::new(&mut body.piece);
        let read = match Pin::new(&mut body.reader).poll_read(context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => buffer.filled().len(),
            Poll::Ready(Err(e)) => return Poll::Ready(Some(Err(body.failed(e)))),
        };
        if read == 0 {
            let short = Error::new(ErrorKind::UnexpectedEof, format!("it ends {} bytes early", body.left));
            return Poll::Ready(Some(Err(body.failed(short))));
        }
        let mut piece = std::mem::take(&mut body.piece);
        piece.truncate(read);
        body.left -= read as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl<R> ObjectBody<R> {
    fn failed(&mut self, e: Error) -> Error {
        tracing::error!("cannot read the object {}: {e}", self.name);
        self.left = 0;
        e
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::collections::VecDeque;

    /// Gives its pieces one at a time, each after it was asked once in vain, as a file or a server does.
    struct Slow {
        pieces: VecDeque<Result<Vec<u8>, Error>>,
        asked: bool,
    }

    impl AsyncRead for Slow {
        fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<Result<(), Error>> {
            self.asked = !self.asked;
            if self.asked {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.pieces.pop_front() {
                Some(Ok(piece)) => to.put_slice(&piece),
                Some(Err(e)) => return Poll::Ready(Err(e)),
                None => {}
            }
            Poll::Ready(Ok(()))
        }
    }

    fn body(pieces: Vec<Result<Vec<u8>, Error>>, length: u64) -> ObjectBody<Slow> {
        ObjectBody::new(Slow { pieces: pieces.into(), asked: false }, length, "b/k".into())
    }

    /// Service x05: one of 8,000 bodies was cut when the last piece came between two looks.
    #[tokio::test]
    async fn every_piece_of_a_body_comes_and_no_more() {
        let pieces = || vec![Ok(vec![1; 3]), Ok(vec![2; 4])];
        let whole = body(pieces(), 7);
        assert_eq!((whole.size_hint().exact(), whole.is_end_stream()), (Some(7), false));
        assert_eq!(whole.collect().await.unwrap().to_bytes(), [1, 1, 1, 2, 2, 2, 2][..]);
        assert_eq!(body(Vec::new(), 0).collect().await.unwrap().to_bytes().len(), 0);
        assert_eq!(
            ObjectBody::new(&[5u8; 300_000][..], 300_000, String::new()).collect().await.unwrap().to_bytes().len(),
            300_000
        );
    }

    #[tokio::test]
    async fn a_body_that_ends_early_or_fails_is_an_error() {
        assert_eq!(body(vec![Ok(vec![1; 3])], 7).collect().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let broken = vec![Ok(vec![1; 3]), Err(Error::other("gone"))];
        assert!(body(broken, 7).collect().await.is_err());
    }
}
