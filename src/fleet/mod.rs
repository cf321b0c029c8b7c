//! Tenants, pools and instances: desired state, and what makes it true.

pub mod awake;
pub mod by_hand;
pub mod desired;
pub mod error;
pub mod execute;
pub mod ids;
pub mod instance;
pub mod lease;
pub mod plan;
pub mod policy;
pub mod pool;
mod quota;
pub mod record;
pub mod rest;
pub mod secrets;
pub mod square;
pub mod state;
pub mod step;
pub mod tenant;
pub mod vm;
pub mod work;
