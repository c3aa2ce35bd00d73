//! Bytes from one upgraded connection to another.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

/// Relays both directions; the end of one direction is passed on, and the relay ends when both have ended. Between two
/// peers of which one has ended, the other gets `linger` to finish.
pub async fn copy_both<A, B>(mut near: A, mut far: B, linger: Duration) -> std::io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut near_read, mut near_write) = tokio::io::split(&mut near);
    let (mut far_read, mut far_write) = tokio::io::split(&mut far);
    let up = async {
        let copied = tokio::io::copy(&mut near_read, &mut far_write).await;
        far_write.shutdown().await.and(copied)
    };
    let down = async {
        let copied = tokio::io::copy(&mut far_read, &mut near_write).await;
        near_write.shutdown().await.and(copied)
    };
    tokio::pin!(up, down);
    let first = tokio::select! {
        result = &mut up => result.map(|_| true),
        result = &mut down => result.map(|_| false),
    };
    let rest = async {
        match first? {
            true => down.await,
            false => up.await,
        }
    };
    match tokio::time::timeout(linger, rest).await {
        Ok(result) => result.map(drop),
        // The other side had its time.
        Err(_) => Ok(()),
    }
}

/// A connection whose peer must read: a write that finds no room for `limit` fails with `TimedOut`.
pub struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// When the write under way is given up.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub fn new(stream: S, limit: Duration) -> Impatient<S> {
        Impatient { stream, limit, waits: None }
    }

    fn heed<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = None;
            return polled;
        }
        let limit = self.limit;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waits.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.heed(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.heed(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_left() {
        const LIMIT: Duration = Duration::from_secs(20);
        let (mut client, ours) = tokio::io::duplex(100);
        let (mut theirs, mut container) = tokio::io::duplex(100);
        let mut ours = Impatient::new(ours, LIMIT);
        let relay = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut ours, &mut theirs).await });
        // A slow reader is one.
        let begun = tokio::time::Instant::now();
        let output = tokio::spawn(async move {
            while container.write_all(&[7; 60]).await.is_ok() {}
            container
        });
        let mut bytes = [0; 50];
        for _ in 0..20 {
            client.read_exact(&mut bytes).await.unwrap();
            tokio::time::sleep(LIMIT / 2).await;
        }
        assert!(begun.elapsed() >= 10 * LIMIT && !output.is_finished());
        // One who stops is left, and the container writes to nobody.
        let error = relay.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        output.await.unwrap();
    }
}
