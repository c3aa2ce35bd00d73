//! Bytes from one upgraded connection to another.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

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
