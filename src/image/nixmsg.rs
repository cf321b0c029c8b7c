//! One line of Nix's `internal-json` log, as Nix 2.8 to 2.34 write it.
//!
//! Every field may be absent and every number unknown: nothing here refuses a line for it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A message; which fields mean something depends on `action`.
#[derive(Debug, Default, Deserialize)]
pub struct Message<'a> {
    /// What happened.
    #[serde(borrow, default)]
    pub action: Cow<'a, str>,
    /// The activity.
    #[serde(default)]
    pub id: u64,
    /// The activity it is part of (2.18 and later); 0 for none.
    #[serde(default)]
    pub parent: u64,
    /// Verbosity: 0 error, 1 warning, 3 information, 4 and more talk.
    #[serde(default)]
    pub level: u64,
    /// Kind of activity or result.
    #[serde(default, rename = "type")]
    pub kind: u64,
    /// Nix's own words for an activity.
    #[serde(borrow, default)]
    pub text: Cow<'a, str>,
    /// Operands.
    #[serde(borrow, default)]
    pub fields: Fields<'a>,
    /// A message as Nix would print it.
    #[serde(borrow, default)]
    pub msg: Cow<'a, str>,
}

/// The first four operands; no known kind has more.
#[derive(Debug, Default)]
pub struct Fields<'a>([Field<'a>; 4]);

/// One operand.
#[derive(Debug, Default)]
enum Field<'a> {
    Int(u64),
    Text(Cow<'a, str>),
    #[default]
    Other,
}

/// Parses what follows `@nix `.
pub fn parse(json: &[u8]) -> Option<Message<'_>> {
    serde_json::from_slice(json).ok()
}

impl Fields<'_> {
    /// The number at `index`; 0 when there is none.
    pub fn int(&self, index: usize) -> u64 {
        match self.0.get(index) {
            Some(Field::Int(value)) => *value,
            _ => 0,
        }
    }

    /// The text at `index`; empty when there is none.
    pub fn text(&self, index: usize) -> &str {
        match self.0.get(index) {
            Some(Field::Text(text)) => text,
            _ => "",
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of operands")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                for field in &mut fields.0 {
                    match seq.next_element()? {
                        Some(value) => *field = value,
                        None => return Ok(fields),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(fields)
            }
        }
        deserializer.deserialize_seq(FieldsVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Field::Int(value))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Field::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Field::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Field::Other)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Field::Other)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Field::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Field::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
        }
        deserializer.deserialize_any(FieldVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_parents_may_be_absent_and_kinds_unknown() {
        let stop = parse(br#"{"action":"stop","id":49044231553024}"#).unwrap();
        assert_eq!((&*stop.action, stop.id, stop.parent), ("stop", 49_044_231_553_024, 0));
        let new = parse(br#"{"action":"start","fields":["a",{"x":[1]},-1,null,5],"id":18446744073709551615,"level":3,"parent":7,"text":"\u001b[1m","type":4711,"new":{}}"#).unwrap();
        assert_eq!(
            (new.id, new.parent, new.kind, new.fields.text(0), new.fields.int(1)),
            (u64::MAX, 7, 4711, "a", 0)
        );
        assert_eq!(new.text, "\u{1b}[1m");
    }

    #[test]
    fn an_error_message_has_nulls_for_its_position() {
        let line = br#"{"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m thrown","raw_msg":"thrown"}"#;
        assert_eq!(parse(line).unwrap().msg, "\u{1b}[31;1merror:\u{1b}[0m thrown");
    }
}
