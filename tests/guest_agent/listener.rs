//! A channel that the guest listens on, as with Firecracker's vsock: each host connects anew.

use std::os::unix::net::UnixListener;

use super::*;

#[tokio::test]
async fn a_host_that_hangs_up_can_come_back_and_the_next_one_waits_its_turn() {
    let guest = Guest::new();
    let socket = guest.root.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (root, system) = (guest.root.path().to_path_buf(), guest.system.clone());
    // It has no end but the guest's: here, that of the test.
    std::thread::spawn(move || agent::serve(Line::Listener(listener.into()), root, system));
    let connect = async || {
        let (client, driver) = AgentClient::start(tokio::net::UnixStream::connect(&socket).await.unwrap());
        (client, tokio::spawn(driver))
    };
    for _ in 0..3 {
        let (first, channel) = connect().await;
        assert!(timeout(LONG, first.hello()).await.unwrap().unwrap().sealed);
        let (second, _) = connect().await;
        let waits = timeout(Duration::from_millis(200), second.hello()).await;
        assert!(waits.is_err(), "one host at a time");
        assert!(timeout(LONG, first.request(Request::Stats)).await.unwrap().is_ok());
        // As before a snapshot, which drops the connection.
        timeout(LONG, first.retire()).await.unwrap().unwrap();
        channel.abort();
        timeout(LONG, second.hello()).await.unwrap().unwrap();
        assert!(timeout(LONG, second.request(Request::Stats)).await.unwrap().is_ok());
    }
}
