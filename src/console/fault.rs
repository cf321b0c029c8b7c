//! Panics on demand, for the tests of what a panic leaves behind.

/// Panics if `MVM_TEST_PANIC` names this place; release builds never do.
pub fn at(place: &str) {
    if cfg!(debug_assertions) && std::env::var_os("MVM_TEST_PANIC").is_some_and(|wish| wish == *place) {
        panic!("as MVM_TEST_PANIC wishes");
    }
}
