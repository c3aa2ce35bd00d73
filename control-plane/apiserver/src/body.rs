//! Bodies of requests and responses. A response body is bytes where it can be: no boxing for a whole answer, a queue of
//! shared slices for a list, a stream for a watch, an upstream body for a relay.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request, whichever way it came.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// The largest body that is read whole, as upstream's (3 MiB).
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How much of a body that is too large is still taken in, and for how long, so that its sender reads the refusal.
const DISCARD_BYTES: usize = 16 * MAX_BODY;
const DISCARD_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// The body of a response.
pub enum Body {
    /// Nothing.
    Empty,
    /// One piece.
    Full(Option<Bytes>),
    /// Several pieces whose total length is known.
    Chunks { queue: VecDeque<Bytes>, left: u64 },
    /// Pieces made when they are asked for; the length where it is known.
    Lazy { pieces: Box<dyn Iterator<Item = Bytes> + Send>, left: Option<u64> },
    /// Pieces as they come.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    /// Another body, passed on.
    Relay(RequestBody),
}

impl Body {
    /// One piece.
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::Empty } else { Body::Full(Some(bytes)) }
    }

    /// Several pieces.
    pub fn chunks(pieces: impl IntoIterator<Item = Bytes>) -> Body {
        let queue: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let left = queue.iter().map(|piece| piece.len() as u64).sum();
        Body::Chunks { queue, left }
    }

    /// The length, where it is known before the body is sent.
    pub fn len(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Full(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Chunks { left, .. } => Some(*left),
            Body::Lazy { left, .. } => *left,
            Body::Stream(_) | Body::Relay(_) => None,
        }
    }

    /// Whether the body is known to hold nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Chunks { queue, left } => Poll::Ready(queue.pop_front().map(|piece| {
                *left -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Body::Lazy { pieces, left } => Poll::Ready(pieces.next().map(|piece| {
                *left = left.map(|left| left.saturating_sub(piece.len() as u64));
                Ok(Frame::data(piece))
            })),
            Body::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|item| item.map(|piece| piece.map(Frame::data)))
            }
            Body::Relay(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_none(),
            Body::Chunks { queue, .. } => queue.is_empty(),
            Body::Lazy { left, .. } => *left == Some(0),
            Body::Stream(_) => false,
            Body::Relay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Relay(body) => body.size_hint(),
            known => known.len().map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    #[error("reading the request's body: {0}")]
    Broken(BoxError),
}

/// A request's body that is read to its end behind an answer that did not wait for it: dropped earlier, the stream is reset
/// while its client still sends, and some clients (curl) then take the answer for lost.
pub struct Unread(Option<hyper::body::Incoming>);

/// So much of it, for so long.
const UNREAD_BYTES: usize = 64 * 1024;
const UNREAD_TIME: std::time::Duration = std::time::Duration::from_secs(1);

impl Unread {
    pub fn new(body: hyper::body::Incoming) -> Unread {
        Unread(Some(body))
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(UNREAD_TIME, async move {
            let mut read = 0;
            while read < UNREAD_BYTES
                && let Some(Ok(frame)) = body.frame().await
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
        }));
    }
}

/// Boxes any body of a request.
pub fn request_body<B>(body: B) -> RequestBody
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Reads a body whole, up to [`MAX_BODY`].
pub async fn read_whole(mut body: RequestBody) -> Result<Bytes, ReadError> {
    let mut first: Option<Bytes> = None;
    let mut all: Vec<u8> = Vec::new();
    let mut too_large = body.size_hint().lower() > MAX_BODY as u64;
    while !too_large && let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        // Most bodies are one frame: handed on without a copy.
        match (&first, all.is_empty()) {
            (None, true) => {
                too_large = data.len() > MAX_BODY;
                first = Some(data);
                continue;
            }
            (Some(begin), true) => all.extend_from_slice(begin),
            _ => {}
        }
        too_large = all.len() + data.len() > MAX_BODY;
        all.extend_from_slice(&data);
    }
    if too_large {
        tokio::spawn(tokio::time::timeout(DISCARD_TIME, discard(body)));
        return Err(ReadError::TooLarge);
    }
    Ok(if all.is_empty() { first.unwrap_or_default() } else { all.into() })
}

/// Takes in the rest of a body that is refused: dropping it at once would reset the stream before its answer is out.
async fn discard(mut body: RequestBody) {
    let mut left = DISCARD_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_arrive_in_order_and_know_their_length() {
        let body = Body::chunks([Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused() {
        let long = request_body(http_body_util::Full::new(Bytes::from(vec![b' '; MAX_BODY + 1])));
        assert!(matches!(read_whole(long).await, Err(ReadError::TooLarge)));
        let stream = futures::stream::iter(
            (0..4).map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b' '; 1 << 20])))),
        );
        let streamed = request_body(http_body_util::StreamBody::new(stream));
        assert!(matches!(read_whole(streamed).await, Err(ReadError::TooLarge)));
        let fits = request_body(http_body_util::Full::new(Bytes::from(vec![b' '; MAX_BODY])));
        assert_eq!(read_whole(fits).await.unwrap().len(), MAX_BODY);
    }
}
