//! The TCP front door: a client that connects to a route is carried to an instance of its pool, which is
//! woken first if it sleeps, and let go to sleep when nobody is connected.
//!
//! One thread controls: it keeps the connections to the agents, and for each route a keeper that wakes,
//! renews and lets go. The other threads carry: each accepts, takes a place at an awake instance without
//! asking anybody, and moves bytes. Only a client that finds no place asks the keeper, and waits.

pub mod admin;
pub mod config;
pub mod control;
pub mod descriptors;
mod desk;
pub mod health;
mod keeper;
mod listen;
mod member;
pub mod metrics;
pub mod node;
mod pipe;
mod relay;
mod route;
pub mod serve;
pub mod status;
mod worker;
