//! Settings that differ, by their names in the file.

use serde::Serialize;
use serde_json::Value;

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name: `desired_counts.running`.
    pub field: String,
    /// What it is.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// What differs between two settings of one kind, below `path`.
pub(super) fn between<T: Serialize>(path: &str, before: &T, after: &T) -> Vec<Change> {
    let value = |settings: &T| serde_json::to_value(settings).unwrap_or_default();
    let mut changes = Vec::new();
    collect(path, &value(before), &value(after), &mut changes);
    changes
}

fn collect(path: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    if let (Value::Object(before), Value::Object(after)) = (before, after) {
        for (name, after) in after {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            collect(&path, before.get(name).unwrap_or(&Value::Null), after, changes);
        }
    } else if before != after {
        changes.push(Change { field: path.into(), from: word(before), to: word(after) });
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
