//! What runs inside the guest (binary `mvm-guest`) and the frames it shares with `vm`.

pub mod frames;
