//! Pure functions from a model to the screen.

pub mod task;
