//! From text to a desired state, or to all that is wrong with it.

use std::fmt;

use super::DesiredState;
use crate::event::fault::{Fault, shown, suggestion, unknown_field};

/// So many faults are printed; the rest is counted.
const SHOWN: usize = 20;

/// All that is wrong with a desired state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DesiredError {
    /// At least one fault, in the order of the file.
    pub faults: Vec<Fault>,
}

impl DesiredState {
    /// Reads a desired state. What is no JSON or not of the schema is one fault; whatever contradicts
    /// itself or cannot be is told all at once.
    pub fn parse(text: &str) -> Result<Self, DesiredError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let state: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| DesiredError { faults: vec![fault(&error)] })?;
        json.end().map_err(|error| DesiredError {
            faults: vec![Fault {
                path: String::new(),
                what: format!("something follows its end, line {} column {}", error.line(), error.column()),
                help: "the file is one JSON object".into(),
            }],
        })?;
        let faults = state.faults();
        if faults.is_empty() { Ok(state) } else { Err(DesiredError { faults }) }
    }
}

/// The fault that serde found.
fn fault(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    // A place without a name is `.` or `?`.
    let path = shown(error.path().to_string().trim_end_matches(['.', '?']));
    let json = error.inner();
    let line = json.line();
    let message = json.to_string();
    let place = format!(" at line {line} column {}", json.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    if let Some((field, known)) = unknown_field(message) {
        let what = format!("unknown field `{}`, line {line}", shown(field));
        return Fault { path, what, help: suggestion(field, &known) };
    }
    // Ids bring their own advice.
    let (what, help) = match message.split_once("\nhelp: ") {
        Some((what, help)) => (what, help.into()),
        None => (message, advice(message, json)),
    };
    Fault { path, what: format!("{}, line {line}", shown(what)), help }
}

fn advice(message: &str, json: &serde_json::Error) -> String {
    let numbers =
        [("expected u16", u16::MAX.into()), ("expected u32", u32::MAX.into()), ("expected u64", u64::MAX)];
    if let Some((_, most)) = numbers.iter().find(|(end, _)| message.ends_with(end)) {
        format!("write a whole number from 0 to {most}")
    } else if message.starts_with("missing field") {
        "add it; it has no default".into()
    } else if message.starts_with("duplicate field") {
        "keep one of the two".into()
    } else if message.contains("IPv4 network") {
        "write its first address and the length of its prefix".into()
    } else if message.contains("expected struct") {
        "write a JSON object".into()
    } else if json.is_syntax() || json.is_eof() {
        "the file is one JSON object".into()
    } else {
        "write a value of that kind".into()
    }
}

impl fmt::Display for DesiredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => write!(f, "the desired state is not valid")?,
            many => write!(f, "the desired state is not valid in {many} places")?,
        }
        self.faults.iter().take(SHOWN).try_for_each(|fault| write!(f, "\n{fault}"))?;
        match self.faults.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
