//! Tenants, pools and instances: desired state, and what makes it true.

pub mod desired;
pub mod ids;
pub mod state;
