//! The optional JSON beside a picture: what the submitter says of it.

use crate::case::Claim;
use serde_json::Value;

/// Most bytes of a sidecar.
pub const MAX_BYTES: u64 = 64 << 10;
/// Most bytes of a mail address (RFC 5321 §4.5.3.1.3).
const ADDRESS_BYTES: usize = 254;
const KEYS: [&str; 5] = ["predicted_label", "true_label", "source", "note", "mail"];

/// Read a sidecar. The error is a sentence for the submitter.
pub(super) fn parse(bytes: &[u8]) -> Result<Claim, String> {
    // RFC 8259 §8.1: a reader may pass over a byte order mark.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("the sidecar is not JSON: {error}"))?;
    let Value::Object(object) = value else {
        return Err("the sidecar is not a JSON object".into());
    };
    let mut claim = Claim::default();
    for (key, value) in object {
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

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn everything_else_is_refused_in_words() {
        for (bytes, word) in [
            (&b"dog"[..], "not JSON"),
            (b"", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[1]", "not a JSON object"),
            (br#"{"label": "dog"}"#, "unknown key \"label\""),
            (br#"{"note": 3}"#, "\"note\" is not a text"),
            (
                format!(r#"{{"mail": "{}@example.org"}}"#, "a".repeat(300)).as_bytes(),
                "longer than an address",
            ),
        ] {
            let said = parse(bytes).expect_err("must be refused");
            assert!(said.contains(word), "{said}");
        }
    }
}
