//! Tenants, pools and instances: desired state, and what makes it true.

pub mod desired;
pub mod ids;
pub mod lease;
pub mod plan;
pub mod policy;
pub mod state;
