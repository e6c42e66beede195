//! The JSON of tokens and keys, read strictly.
//!
//! Owns: what an object is, and that all of a text is UTF-8. Must not know: what is read. The code that serde
//! derives takes an array for an object, its elements in the order of the fields; and serde_json skips the
//! bytes of a string that is not needed, whatever they are. Other readers refuse both, and so does this one.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value that stands as an object in JSON, never as an array.
pub(in crate::identity) struct Object<T>(pub(in crate::identity) T);

/// The object that is all of these bytes; `None`: they are not the JSON of one.
pub(in crate::identity) fn object<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Option<T> {
    let text = str::from_utf8(bytes).ok()?;
    serde_json::from_str(text).ok().map(|Object(value)| value)
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{Object, object};

    #[derive(Deserialize)]
    struct Outer {
        a: u8,
        b: Option<Object<Inner>>,
    }

    #[derive(Deserialize)]
    struct Inner {
        c: u8,
    }

    #[test]
    fn an_object_is_no_array_at_any_depth_and_all_of_it_is_utf_8() {
        let read = |bytes: &[u8]| object::<Outer>(bytes).map(|outer| (outer.a, outer.b.map(|Object(b)| b.c)));
        assert_eq!(read(br#" {"a":1,"b":{"c":2,"d":[]}} "#), Some((1, Some(2))));
        assert_eq!(read(br#"{"a":1,"b":null}"#), Some((1, None)));
        for other in
            [&br#"[1,{"c":2}]"#[..], br#"{"a":1,"b":[2]}"#, b"", b"null", b"{\"a\":1,\"d\":\"\xff\"}"]
        {
            assert_eq!(read(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
