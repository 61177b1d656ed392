//! The optional JSON beside a picture: what the submitter says of it.

use crate::case::Claim;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most bytes of a sidecar.
pub const MAX_BYTES: u64 = 64 << 10;
/// Most bytes of a mail address (RFC 5321 §4.5.3.1.3).
const ADDRESS_BYTES: usize = 254;
const KEYS: [&str; 5] = ["predicted_label", "true_label", "source", "note", "mail"];

/// Read a sidecar. The error is a sentence for the submitter.
pub(super) fn parse(bytes: &[u8]) -> Result<Claim, String> {
    // RFC 8259 §8.1: a reader may pass over a byte order mark.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let Said::Object(entries) = serde_json::from_slice(bytes).map_err(|error| format!("the sidecar is not JSON: {error}"))? else {
        return Err("the sidecar is not a JSON object".into());
    };
    let mut claim = Claim::default();
    let mut seen = BTreeSet::new();
    for (key, value) in entries {
        if !seen.insert(key.clone()) {
            return Err(format!(
                "the sidecar has the key {:?} twice: it is not clear which one counts",
                shorten(&key)
            ));
        }
        let field = match key.as_str() {
            "predicted_label" => &mut claim.predicted_label,
            "true_label" => &mut claim.true_label,
            "source" => &mut claim.source,
            "note" => &mut claim.note,
            "mail" => &mut claim.mail,
            _ => {
                return Err(format!(
                    "the sidecar has the unknown key {:?}; the known ones are {}",
                    shorten(&key),
                    KEYS.join(", ")
                ));
            }
        };
        match value {
            Value::String(text) if key == "mail" && text.len() > ADDRESS_BYTES => {
                return Err(format!("the sidecar's \"mail\" is longer than an address can be ({ADDRESS_BYTES} bytes)"));
            }
            Value::String(text) => *field = Some(text),
            Value::Null => {}
            _ => return Err(format!("the sidecar's {key:?} is not a text in quotes")),
        }
    }
    Ok(claim)
}

/// The mail address in a sidecar that may be wrong in any other way: whoever wrote it should hear what is wrong.
pub(super) fn mail(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let address = value.get("mail")?.as_str()?;
    (address.len() <= ADDRESS_BYTES).then(|| address.to_owned())
}

/// Is the JSON finished, or wrong in a way that no further byte would mend? A writer that pauses in the middle leaves it unfinished.
pub(super) fn has_ended(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    !serde_json::from_slice::<IgnoredAny>(bytes).is_err_and(|error| error.is_eof())
}

/// An object with its entries as they are written, a key that is there twice included; serde_json's own keeps the last one.
enum Said {
    Object(Vec<(String, Value)>),
    Other,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Said;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Said::Object(entries))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Said, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Said::Other)
            }
            fn visit_unit<E>(self) -> Result<Said, E> {
                Ok(Said::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Said, E> {
                Ok(Said::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Said, E> {
                Ok(Said::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Said, E> {
                Ok(Said::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Said, E> {
                Ok(Said::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Said, E> {
                Ok(Said::Other)
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_sidecar_that_is_wrong_otherwise() {
        for (text, found) in [
            (&br#"{"mail": "a@b.org", "what": 1}"#[..], Some("a@b.org")),
            (b"\xef\xbb\xbf{\"mail\": \"a@b.org\"}", Some("a@b.org")),
            (br#"{"mail": 7}"#, None),
            (br#"["mail"]"#, None),
            (b"{", None),
        ] {
            assert_eq!(mail(text).as_deref(), found);
        }
        assert_eq!(mail(format!("{{\"mail\": \"{}\"}}", "a".repeat(300)).as_bytes()), None);
    }

    #[test]
    fn every_key_is_optional() {
        assert_eq!(parse(b"{}"), Ok(Claim::default()));
        assert_eq!(parse(br#"{"note": null}"#), Ok(Claim::default()));
        assert_eq!(parse("\u{feff}{}".as_bytes()), Ok(Claim::default()));
        let all = parse(br#"{"predicted_label":"dog","true_label":"ship","source":"camera 3","note":"odd","mail":"ann@example.org"}"#)
            .expect("five known keys");
        let text = |text: &str| Some(text.to_string());
        assert_eq!(
            all,
            Claim {
                predicted_label: text("dog"),
                true_label: text("ship"),
                source: text("camera 3"),
                note: text("odd"),
                mail: text("ann@example.org"),
            }
        );
    }

    #[test]
    fn half_a_sidecar_has_not_ended() {
        let whole = br#"{"true_label": "dog", "note": null}"#;
        assert!(has_ended(whole) && has_ended(b"dog") && has_ended(b"[1]"));
        for cut in 1..whole.len() {
            assert!(!has_ended(&whole[..cut]), "{cut}");
        }
    }

    #[test]
    fn everything_else_is_refused_in_words() {
        for (bytes, word) in [
            (&b"dog"[..], "not JSON"),
            (b"", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[1]", "not a JSON object"),
            (br#"{"label": "dog"}"#, "unknown key \"label\""),
            (b"3", "not a JSON object"),
            (br#""dog""#, "not a JSON object"),
            (br#"{"note": 3}"#, "\"note\" is not a text"),
            (
                format!(r#"{{"mail": "{}@example.org"}}"#, "a".repeat(300)).as_bytes(),
                "longer than an address",
            ),
            (br#"{"true_label": "dog", "true_label": "cat"}"#, "\"true_label\" twice"),
            (br#"{"note": null, "note": null}"#, "\"note\" twice"),
            (br#"{"note": "a"} {}"#, "not JSON"),
        ] {
            let said = parse(bytes).expect_err("must be refused");
            assert!(said.contains(word), "{said}");
        }
    }
}
