//! The daemon's log: one line an event, a sentence and then its fields as logfmt. Under journald each line carries its priority.

use super::{Exit, Failure};
use jiff::Timestamp;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// A field's value is cut at this many bytes: journald cuts whole lines at 48 KiB, and what follows would be a line without a priority.
const MOST: usize = 8 << 10;

/// Log to standard error, as `RUST_LOG` says.
///
/// # Errors
/// When `RUST_LOG` cannot be understood.
pub(super) fn to_stderr(json: bool) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("RUST_LOG={text:?} cannot be understood: {error}"),
                "for example RUST_LOG=info or RUST_LOG=delta_guard=debug",
            )
        })?,
        _ => EnvFilter::new("info"),
    };
    let journal = is_journal();
    // https://no-color.org
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // A closed standard error must not end the daemon: what cannot be written is lost, silently.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr { journal })
        .with_ansi(!journal && !plain && io::stderr().is_terminal())
        .log_internal_errors(false);
    let set = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.event_format(Line { journal }).try_init()
    };
    set.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))?;
    // Its own words would be several lines without a priority.
    std::panic::set_hook(Box::new(|panic| {
        error!(message = "Guard met a defect: please report it.", what = %panic);
    }));
    Ok(())
}

/// Is standard error a stream of the journal? `JOURNAL_STREAM` names one by device and inode; a program that sends its errors elsewhere inherits the variable.
pub(super) fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(rustix::stdio::stderr()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The prefix by which journald knows a line's priority (sd-daemon(3)).
pub(super) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Standard error, each line with its priority where the journal reads it.
struct Stderr {
    journal: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Prefixed;

    fn make_writer(&'a self) -> Prefixed {
        Prefixed(if self.journal { prefix(Level::INFO) } else { "" })
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Prefixed {
        Prefixed(if self.journal { prefix(*meta.level()) } else { "" })
    }
}

/// Puts a prefix before each line, in one write. An event is one line, and is written at once.
struct Prefixed(&'static str);

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&[self.0.as_bytes(), bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// `TIME LEVEL Sentence. key=value …`; in the journal, which knows time and level, without the two.
struct Line {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        if !self.journal {
            let level = *event.metadata().level();
            let color = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                _ => 34,
            };
            let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
            if out.has_ansi_escapes() {
                write!(out, "\u{1b}[2m{time}\u{1b}[0m \u{1b}[{color}m{level:>5}\u{1b}[0m ")?;
            } else {
                write!(out, "{time} {level:>5} ")?;
            }
        }
        writeln!(out, "{}{}", said.sentence, said.fields)
    }
}

/// The sentence of an event and its fields, ` key=value` each.
#[derive(Default)]
struct Said {
    sentence: String,
    fields: String,
}

impl Said {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.sentence = crate::text::escape(value.as_bytes());
        } else {
            let _ = write!(self.fields, " {}={}", field.name(), logfmt(value));
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    // Numbers and truth values come here too; errors and what was given with % as they are displayed.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// A value as logfmt has it: quoted where it is not a plain word, always on one line, of bounded length.
fn logfmt(value: &str) -> String {
    let end = value.floor_char_boundary(MOST);
    let rest = value.len() - end;
    let value = &value[..end];
    let shown = crate::text::escape(value.as_bytes());
    let plain = !value.is_empty() && rest == 0 && shown == value && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
    if plain {
        return shown;
    }
    let more = if rest > 0 { format!("… ({rest} more bytes)") } else { String::new() };
    format!("\"{}{more}\"", shown.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_word_or_stands_in_quotes() {
        for (value, shown) in [
            ("animals-v7", "animals-v7"),
            ("12.5", "12.5"),
            ("Füchse.png", "Füchse.png"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a=b", "\"a=b\""),
            ("a\"b", "\"a\\\"b\""),
            ("a\nb", "\"a\\nb\""),
            ("a\\b", "\"a\\\\b\""),
            ("\u{1b}[2J", "\"\\u{1b}[2J\""),
        ] {
            assert_eq!(logfmt(value), shown);
        }
        let long = logfmt(&"ü".repeat(MOST));
        assert!(long.len() < MOST + 40 && long.ends_with("… (8192 more bytes)\""), "{}", long.len());
    }
}
