//! What a section `mail` must be beside its schema.

use super::{Findings, Look};
use crate::case::bounds::RECIPIENT;
use crate::config::file::{Mail, Tls};
use crate::mail::mailbox;
use std::net::IpAddr;

pub(super) fn check(mail: &Mail, look: Look, found: &mut Findings) {
    found.unless(!mail.host.trim().is_empty(), "mail.host", "is empty", "name the SMTP server");
    found.unless(
        !mail.to.is_empty(),
        "mail.to",
        "names no recipient",
        "list at least one address, or remove the section `mail`",
    );
    let address = "write an address such as guard@example.org or Delta Guard <guard@example.org>";
    if let Err(what) = mailbox(&mail.from) {
        found.add("mail.from", what, address);
    }
    let others = mail.others.iter().enumerate();
    let lists = std::iter::once(("mail.to".to_owned(), &mail.to)).chain(others.map(|(i, more)| (format!("mail.others.{i}.to"), &more.to)));
    for (key, list) in lists {
        for (i, to) in list.iter().enumerate() {
            if let Err(what) = mailbox(to) {
                found.add(&format!("{key}.{i}"), what, address);
            }
            found.unless(
                to.chars().count() <= RECIPIENT,
                &format!("{key}.{i}"),
                format!("is longer than {RECIPIENT} characters"),
                "shorten the name before the address",
            );
        }
    }
    for (i, name) in mail.submitters.iter().enumerate() {
        if mailbox(&format!("a@{name}")).is_err() {
            found.add(
                &format!("mail.submitters.{i}"),
                format!("{name:?} is not a domain"),
                "write what stands behind the @ of the submitters' addresses, such as example.org",
            );
        }
    }
    login(mail, look, found);
}

fn login(mail: &Mail, look: Look, found: &mut Findings) {
    match (&mail.username, &mail.password_file) {
        (Some(_), None) => found.add(
            "mail.username",
            "has no mail.password_file",
            "put the password into a file that only the guard can read, and name it",
        ),
        (None, Some(_)) => found.add(
            "mail.password_file",
            "has no mail.username",
            "name the user to log in as, or remove the password",
        ),
        (Some(_), Some(_)) if mail.tls == Tls::None && !is_loopback(&mail.host) => {
            found.add(
                "mail.tls",
                "a password would cross the network in clear",
                "set tls to starttls or required; none with a login is for a server on this machine only",
            );
        }
        _ => {}
    }
    if let (Some(file), Look::AtFiles) = (&mail.password_file, look)
        && let Err(error) = std::fs::File::open(file)
    {
        found.add(
            "mail.password_file",
            format!("{} cannot be read: {error}", file.display()),
            "make it readable to the guard's user and to nobody else",
        );
    }
}

/// Is the host this machine, without asking a name server?
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}
