use std::sync::atomic::AtomicU64;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::descriptors::Descriptors;
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// A client and a guest with a relay between them.
struct Between {
    client: TcpStream,
    guest: TcpStream,
    relayed: JoinHandle<(End, u64, u64)>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Pipes are used where there are descriptors for them.
async fn between(descriptors: u64, silence: Option<Duration>) -> Between {
    let ((client, mut ours), (mut theirs, guest)) = (pair().await, pair().await);
    let relayed = tokio::task::spawn_local(async move {
        let tools = Tools::new(Pipes::new(Descriptors::new(descriptors)));
        let (rx, tx) = (AtomicU64::new(0), AtomicU64::new(0));
        let end = relay(&mut ours, &mut theirs, (&rx, &tx), silence, &tools, || ()).await;
        if !matches!(end, End::Closed) {
            for stream in [&ours, &theirs] {
                SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
        (end, rx.into_inner(), tx.into_inner())
    });
    Between { client, guest, relayed }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(DEADLINE, test).await.unwrap() });
}

/// Bytes that show where they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(length)
        .collect()
}

async fn exchange(descriptors: u64) {
    let Between { client, guest, relayed } = between(descriptors, None).await;
    let (up, down) = (pattern(9_000_001), pattern(17_000_003));
    let (client_has, guest_has) = tokio::join!(both(client, &up), both(guest, &down));
    assert!(client_has == down && guest_has == up);
    let (end, rx, tx) = relayed.await.unwrap();
    assert!(matches!(end, End::Closed));
    assert_eq!((rx, tx), (9_000_001, 17_000_003));
}

/// Sends, ends sending, and reads to the end.
async fn both(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let (mut read, mut write) = stream.split();
    let send = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    tokio::join!(send, async { read.read_to_end(&mut heard).await.unwrap() });
    heard
}

#[test]
fn bytes_come_out_as_they_went_in_through_pipes() {
    run(exchange(100));
}

#[test]
fn bytes_come_out_as_they_went_in_where_there_are_no_pipes() {
    run(exchange(0));
}

#[test]
fn who_has_ended_sending_still_hears_the_answer() {
    run(async {
        let Between { mut client, mut guest, relayed } = between(4, None).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        guest.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        guest.write_all(b"answer").await.unwrap();
        drop(guest);
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        assert!(matches!(relayed.await.unwrap().0, End::Closed));
    });
}

#[test]
fn who_does_not_read_holds_up_who_sends() {
    run(async {
        let Between { mut client, mut guest, relayed } = between(4, None).await;
        let chunk = pattern(1 << 20);
        let mut sent = 0;
        // It ends once nothing has moved for a while.
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), guest.write(&chunk)).await {
            sent += written.unwrap();
            assert!(sent < 64 << 20, "everything is taken from the guest, and nobody reads it");
        }
        guest.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), sent);
        drop(client);
        assert_eq!(relayed.await.unwrap().2, sent as u64);
    });
}

#[test]
fn what_a_guest_breaks_off_looks_broken_off_to_the_client() {
    run(async {
        let Between { mut client, mut guest, relayed } = between(4, None).await;
        guest.write_all(b"half").await.unwrap();
        let mut heard = [0; 4];
        client.read_exact(&mut heard).await.unwrap();
        SockRef::from(&guest).set_linger(Some(Duration::ZERO)).unwrap();
        drop(guest);
        let error = client.read(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(relayed.await.unwrap().0, End::Broken(_)));
    });
}

#[test]
fn a_guest_that_answers_early_and_reads_no_more_is_heard() {
    run(async {
        let Between { mut client, mut guest, relayed } = between(4, None).await;
        client.write_all(&pattern(1 << 20)).await.unwrap();
        guest.read_exact(&mut [0; 100]).await.unwrap();
        guest.write_all(b"too large").await.unwrap();
        let mut heard = [0; 9];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"too large");
        drop((guest, client));
        drop(relayed.await.unwrap());
    });
}

#[test]
fn a_connection_without_a_byte_for_too_long_is_ended() {
    run(async {
        let Between { mut client, guest, relayed } = between(4, Some(Duration::from_millis(100))).await;
        assert!(client.read(&mut [0]).await.is_err());
        assert!(matches!(relayed.await.unwrap().0, End::Silent));
        drop(guest);
    });
}

#[test]
fn pipes_are_given_back() {
    run(async {
        let tools = Tools::new(Pipes::new(Descriptors::new(2)));
        let pipe = tools.pipes.take().unwrap();
        assert!(tools.pipes.take().is_none());
        tools.pipes.put(pipe);
        assert_eq!(tools.pipes.take().unwrap().inside(), 0);
        assert!(tools.pipes.take().is_some());
    });
}
