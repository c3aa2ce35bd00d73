use super::*;
use tokio::io::DuplexStream;

/// A kubelet that runs "cat": stdin comes back on stdout, then a Status.
async fn cat(io: DuplexStream, expected: usize) {
    let (session, mut accept) = Session::start(io, Role::Server);
    let mut streams = std::collections::HashMap::new();
    for _ in 0..expected {
        let stream = accept.recv().await.unwrap();
        streams.insert(stream.header("streamtype").unwrap().to_owned(), stream);
    }
    let (mut stdin, _stdin_writer) = streams.remove("stdin").unwrap().split();
    let (_, stdout) = streams.remove("stdout").unwrap().split();
    while let Some(chunk) = stdin.chunk().await {
        stdout.send(chunk.unwrap()).await.unwrap();
    }
    stdout.finish().await.unwrap();
    let (_, error) = streams.remove("error").unwrap().split();
    error.send(Bytes::from_static(b"{\"status\":\"Success\"}")).await.unwrap();
    error.finish().await.unwrap();
    for (_, stream) in streams {
        stream.split().1.finish().await.unwrap();
    }
    drop(session);
}

async fn client(io: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(io, WsRole::Client, None).await
}

#[tokio::test]
async fn v5_half_closes_stdin_and_brings_output_and_status() {
    let (near, server) = tokio::io::duplex(4096);
    let (far, kubelet) = tokio::io::duplex(4096);
    let asked = ExecStreams { stdin: true, stdout: true, stderr: true, tty: false };
    let relay = tokio::spawn(relay_channels(server, WebSocketProtocol::V5, far, asked));
    let command = tokio::spawn(cat(kubelet, 4));
    let (mut sink, mut source) = client(near).await.split();
    let input = tokio::spawn(async move {
        for n in 0..200u8 {
            sink.send(Message::binary([&[STDIN][..], &[n; 1000]].concat())).await.unwrap();
        }
        sink.send(Message::binary(vec![CLOSE, STDIN])).await.unwrap();
        sink
    });
    let (mut output, mut status) = (Vec::new(), Vec::new());
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) if bytes[0] == STDOUT => output.extend_from_slice(&bytes[1..]),
            Message::Binary(bytes) if bytes[0] == ERROR => status.extend_from_slice(&bytes[1..]),
            Message::Close(frame) => {
                assert_eq!(frame.unwrap().code, CloseCode::Normal);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<u8> = (0..200u8).flat_map(|n| [n; 1000]).collect();
    assert!(output == expected, "{} bytes", output.len());
    assert_eq!(status, b"{\"status\":\"Success\"}");
    relay.await.unwrap().unwrap();
    command.await.unwrap();
    drop(input.await.unwrap());
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_session() {
    let (near, server) = tokio::io::duplex(4096);
    let (far, kubelet) = tokio::io::duplex(4096);
    let asked = ExecStreams { stdin: true, stdout: true, ..Default::default() };
    let relay = tokio::spawn(relay_channels(server, WebSocketProtocol::V4, far, asked));
    let (_session, mut accept) = Session::start(kubelet, Role::Server);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(accept.recv().await.unwrap());
    }
    drop(client(near).await);
    relay.await.unwrap().unwrap();
    assert!(accept.recv().await.is_none());
}

#[tokio::test]
async fn base64_channels_and_the_tunnel() {
    let (near, server) = tokio::io::duplex(4096);
    let (far, mut kubelet) = tokio::io::duplex(4096);
    let relay = tokio::spawn(tunnel(server, far));
    let (mut sink, mut source) = client(near).await.split();
    sink.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    let mut read = [0; 3];
    kubelet.read_exact(&mut read).await.unwrap();
    assert_eq!(read, [1, 2, 3]);
    kubelet.write_all(&[4, 5]).await.unwrap();
    assert_eq!(source.next().await.unwrap().unwrap(), Message::binary(vec![4, 5]));
    drop(kubelet);
    assert!(matches!(source.next().await, Some(Ok(Message::Close(_)))));
    relay.await.unwrap().unwrap();
    let unpacked = unpack(WebSocketProtocol::V4Base64, Message::text("0aGk="));
    assert_eq!(unpacked, Some((STDIN, Bytes::from_static(b"hi"))));
    assert_eq!(unpack(WebSocketProtocol::V4, Message::binary(vec![])), None);
}

#[test]
fn the_first_protocol_we_speak_is_chosen() {
    let choose = |offered: &str| WebSocketProtocol::choose(offered.split(','));
    assert_eq!(choose("v5.channel.k8s.io, v4.channel.k8s.io"), Some(WebSocketProtocol::V5));
    assert_eq!(choose("x, v4.channel.k8s.io"), Some(WebSocketProtocol::V4));
    assert_eq!(choose("x"), None);
}
