//! The agent's API over real QUIC on loopback: who gets in, what frames do, load, events, the end.

mod certificates;
mod events;
mod frames;
mod load;
mod place;
mod stopping;
