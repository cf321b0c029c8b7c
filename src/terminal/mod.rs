//! A program behind a PTY and the terminal it believes to have; knows no UI.
