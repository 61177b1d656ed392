//! Text as people read it: names made harmless, numbers and times.

/// Bytes as text that is safe to print: what is not UTF-8, control characters, line ends and direction marks are written as escapes; the rest stays readable.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let invisible = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
            if character.is_control() || invisible || character == '\\' {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// `1,234,567`.
pub fn thousands(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`.
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_are_made_harmless_and_stay_readable() {
        for (name, shown) in [
            (&b"cat 7.png"[..], "cat 7.png"),
            ("Füchse-狐.png".as_bytes(), "Füchse-狐.png"),
            (b"a\r\nBcc: x@y", "a\\r\\nBcc: x@y"),
            (b"\xff\xfe.png", "\\xff\\xfe.png"),
            ("gnp.\u{202e}exe".as_bytes(), "gnp.\\u{202e}exe"),
            (b"back\\slash", "back\\\\slash"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
        ] {
            assert_eq!(escape(name), shown);
        }
    }
}
