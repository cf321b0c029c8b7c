//! A client's frames, carried over to the guest agent and back.
//!
//! Each connection has session numbers of its own; credit passes end to end, so a client that does
//! not read holds up only its own sessions.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::guest::client::{AgentClient, AgentError, next_frame};
use crate::guest::frames::{Frame, FrameKind, Hello, Reply, Request};
use crate::guest::session::RawSender;

/// Frames that may wait for a client; beyond, the sessions wait, held by their windows.
const WAITING: usize = 64;

/// Serves one client until it goes away.
pub async fn relay(stream: impl AsyncRead + AsyncWrite + Unpin, agent: AgentClient) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (replies, mut outgoing) = mpsc::channel::<Frame>(WAITING);
    let read = async {
        let mut buffer = Vec::new();
        let mut sessions = HashMap::new();
        while let Ok(Some(frame)) = next_frame(&mut reader, &mut buffer).await {
            if take(frame, &agent, &mut sessions, &replies).await.is_err() {
                break;
            }
        }
    };
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            if writer.write_all(&frame.encode()).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    // Dropping `outgoing` ends the sessions' tasks, and with them the sessions.
}

async fn take(
    frame: Frame,
    agent: &AgentClient,
    sessions: &mut HashMap<u32, RawSender>,
    replies: &mpsc::Sender<Frame>,
) -> Result<(), AgentError> {
    let id = frame.session;
    match frame.kind {
        FrameKind::Hello => {
            let hello = Hello { answers: frame.as_number(), ..agent.hello().await? };
            // A client that is gone ends the reading.
            let _ = replies.send(json(0, FrameKind::Hello, &hello)).await;
        }
        FrameKind::Request => {
            let opened = match serde_json::from_slice(&frame.payload) {
                Ok(
                    Request::Personalise(_)
                    | Request::Rehearse { .. }
                    | Request::Wake { .. }
                    | Request::Poweroff,
                ) => Err("only the VM's process may ask that".to_string()),
                Ok(request) => agent.open_raw(&request).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match opened {
                Ok((sender, mut receiver)) => {
                    sessions.insert(id, sender);
                    let replies = replies.clone();
                    tokio::spawn(async move {
                        loop {
                            let frame = match receiver.recv().await {
                                Ok(frame) => Frame { session: id, ..frame },
                                Err(error) => refusal(id, error.to_string()),
                            };
                            let last = matches!(frame.kind, FrameKind::Reply | FrameKind::Exit);
                            tokio::select! {
                                sent = replies.send(frame) => if sent.is_err() || last { return },
                                () = replies.closed() => return,
                            }
                        }
                    });
                }
                Err(why) => drop(replies.send(refusal(id, why)).await),
            }
        }
        FrameKind::Close => drop(sessions.remove(&id).map(|sender| sender.send(frame))),
        // A session that has ended is no longer the agent's concern.
        _ => sessions.get(&id).map_or(Ok(()), |sender| sender.send(frame))?,
    }
    Ok(())
}

fn refusal(session: u32, why: String) -> Frame {
    json(session, FrameKind::Reply, &Reply::Error(why))
}

fn json(session: u32, kind: FrameKind, value: &impl serde::Serialize) -> Frame {
    // These types always have a JSON form.
    Frame::json(session, kind, value).unwrap_or_else(|_| Frame::new(session, kind, *b"null"))
}
