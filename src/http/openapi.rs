//! `GET /openapi.json`: what the calls take and answer, for programs (OpenAPI 3.1). It is written by hand and embedded;
//! that it is true is tested from outside (tests/e2e/openapi.rs).

/// The document.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{super::calls::CALLS, *};

    const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn it_has_the_calls_that_there_are_and_no_others() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str())) {
                documented.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut known = BTreeSet::new();
        for (methods, path) in CALLS {
            let methods = if methods == "ANY" { METHODS.join(", ") } else { methods.to_owned() };
            known.extend(methods.split(", ").map(|method| format!("{} {path}", method.to_uppercase())));
        }
        assert_eq!(documented, known);
    }

    #[test]
    fn all_that_it_refers_to_is_there() {
        fn look(value: &Value, document: &Value, seen: &mut usize) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(place)) = map.get("$ref") {
                        let pointer = place.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{place}");
                        *seen += 1;
                    }
                    map.values().for_each(|value| look(value, document, seen));
                }
                Value::Array(list) => list.iter().for_each(|value| look(value, document, seen)),
                _ => {}
            }
        }
        let (document, mut seen) = (document(), 0);
        look(&document, &document, &mut seen);
        assert!(seen > 100);
    }
}
