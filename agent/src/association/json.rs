//! The JSON of files that people write, read with all that is wrong in it.
//!
//! Owns: that members of an object keep their order and a name that stands twice is noticed; serde_json alone
//! would keep the last one. Must not know: what is written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value. Its size is bounded by that of the file, its depth by serde_json (128).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Members in the order of the text, names as often as they stand there.
    Object(Vec<(String, Self)>),
    /// Elements.
    Array(Vec<Self>),
    /// A text.
    Text(String),
    /// A whole number that is not negative.
    Number(u64),
    /// `true` or `false`.
    Bool(bool),
    /// Null, and any other number.
    Other,
}

/// The object that is all of these bytes.
///
/// # Errors
/// What is wrong, in one sentence.
pub(super) fn object(bytes: &[u8]) -> Result<Vec<(String, Value)>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    let value = serde_json::from_str(text).map_err(|error| format!("the file is not JSON: {error}"))?;
    match value {
        Value::Object(members) => Ok(members),
        Value::Array(_) | Value::Text(_) | Value::Number(_) | Value::Bool(_) | Value::Other => {
            Err("the file must be one JSON object".to_owned())
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Value::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, object};

    #[test]
    fn a_name_that_stands_twice_is_there_twice_and_no_array_is_an_object() {
        let members = object(br#" {"b":"1","a":{"c":2},"b":[true,null,-1,0.5]} "#).unwrap();
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a", "b"]);
        let elements = vec![Value::Bool(true), Value::Other, Value::Other, Value::Other];
        assert_eq!(members[2].1, Value::Array(elements));
        assert_eq!(members[1].1, Value::Object(vec![("c".to_owned(), Value::Number(2))]));
        for (bytes, says) in [
            (&b"[]"[..], "one JSON object"),
            (b"null", "one JSON object"),
            (b"", "not JSON"),
            (b"{\"a\":1", "not JSON"),
            (b"{} {}", "not JSON"),
            (b"{\"a\":\"\xff\"}", "not UTF-8"),
            ("[".repeat(100_000).as_bytes(), "not JSON"),
        ] {
            let said = object(bytes).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }
}
