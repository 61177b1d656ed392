//! Mail addresses in the form in which every server takes them (the domain as punycode, the local part in ASCII), and why a server did not take a mail.

use lettre::Address;
use lettre::message::Mailbox;

/// Read `Name <local@domain>` or `local@domain`; an internationalised domain becomes its ASCII form (RFC 5891), which no server has to be able to do anything for.
///
/// # Errors
/// A sentence: what is not an address, or has a local part that only servers with SMTPUTF8 take.
pub fn mailbox(text: &str) -> Result<Mailbox, String> {
    let read: Mailbox = text.parse().map_err(|error| format!("{text:?} is not a mail address ({error})"))?;
    let local = read.email.user();
    if !local.is_ascii() {
        return Err(format!(
            "{local:?} in {text:?} is not ASCII: most mail servers take no such name before the @"
        ));
    }
    let domain = domain(read.email.domain()).ok_or_else(|| format!("{:?} in {text:?} is not a domain", read.email.domain()))?;
    let email = Address::new(local, &domain).map_err(|error| format!("{text:?} is not a mail address ({error})"))?;
    Ok(Mailbox::new(read.name, email))
}

/// The ASCII form of a domain or host name; None where there is none. What is ASCII stays as it is.
pub fn domain(name: &str) -> Option<String> {
    if name.is_ascii() {
        return Some(name.to_owned());
    }
    idna::domain_to_ascii(name).ok().filter(|ascii| !ascii.is_empty())
}

/// Why a mail was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Why {
    /// No connection, no name, no answer.
    Connection,
    /// The server did not answer in time.
    Timeout,
    /// TLS could not be had as configured.
    Tls,
    /// The server refused for now (4yz).
    Deferred,
    /// The server refused with 5yz.
    Refused,
    /// The password file cannot be read.
    Password,
}

impl Why {
    /// All, for the metric.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn domains_are_written_so_that_every_server_takes_them() {
        for (text, email) in [
            ("wache@bücher.example", "wache@xn--bcher-kva.example"),
            ("Wache <wache@BÜCHER.example>", "wache@xn--bcher-kva.example"),
            ("Größe <a@例え.jp>", "a@xn--r8jz45g.jp"),
            ("guard@example.org", "guard@example.org"),
        ] {
            assert_eq!(mailbox(text).unwrap().email.to_string(), email, "{text}");
        }
        assert!(mailbox("größe@example.org").unwrap_err().contains("größe"));
        assert!(mailbox("nobody").is_err());
        assert_eq!(domain("post.bücher.example").as_deref(), Some("post.xn--bcher-kva.example"));
    }
}
