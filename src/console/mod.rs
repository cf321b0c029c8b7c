//! The full-screen UI's model and views. The live inline view of one-shot commands uses them too.

pub mod model;
pub mod view;
