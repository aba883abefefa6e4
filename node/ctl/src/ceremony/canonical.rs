//! JSON in one form alone: RFC 8785, of documents whose numbers are whole and whose names are ASCII.

use serde_json::Value;

/// The bytes of a document: names in order, no space, every character as it is but those that JSON must escape.
pub(super) fn to_bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(value, &mut bytes);
    bytes
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            bytes.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, bytes);
                write(item, bytes);
            }
            bytes.push(b']');
        }
        Value::Object(members) => {
            // Whether the map keeps an order of its own is decided elsewhere in the build.
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            bytes.push(b'{');
            for (at, name) in names.into_iter().enumerate() {
                separate(at, bytes);
                write(&Value::String(name.clone()), bytes);
                bytes.push(b':');
                write(&members[name], bytes);
            }
            bytes.push(b'}');
        }
        // Escapes are those of RFC 8785 section 3.2.2.2.
        scalar => bytes.extend(scalar.to_string().into_bytes()),
    }
}

fn separate(at: usize, bytes: &mut Vec<u8>) {
    if at > 0 {
        bytes.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_in_order_and_nothing_is_between() {
        let value = json!({ "b": [1, null, true, { "z": "é\u{20ac}\"\\/\n\u{1}" }], "a": "", "B": {} });
        let expected = "{\"B\":{},\"a\":\"\",\"b\":[1,null,true,{\"z\":\"é€\\\"\\\\/\\n\\u0001\"}]}";
        assert_eq!(String::from_utf8(to_bytes(&value)).unwrap(), expected);
    }
}
