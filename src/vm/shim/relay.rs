//! A client's frames, carried over to the guest agent and back.
//!
//! Each connection has session numbers of its own; credit passes end to end, so a client that does
//! not read holds up only its own sessions.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::guest::client::AgentClient;
use crate::guest::frames::{Frame, FrameKind, Reply, Request};
