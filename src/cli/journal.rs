//! `journal`.

use super::{Exit, Failure, Global, lookup, say};
use crate::engine::Book;
use crate::index::witness;
use crate::journal::Witness;
use crate::journal::verify::{self, Verdict};
use crate::vfs::Disk;
use clap::{Args, Subcommand};
use std::sync::Arc;

/// Look after the journal, with or without a running daemon
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard journal verify
  delta-guard journal verify --json | jq -r .verdict")]
pub struct Journal {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand, serde::Serialize)]
enum What {
    /// Is every record as it was written? Reads the whole journal and changes nothing
    #[command(after_help = "\
Examples:
  delta-guard journal verify
  delta-guard journal verify --json

The first word of the answer:
  whole       every record is as it was written
  torn        so it is, and the last write was cut off; the next start of the guard cuts its bytes away
  damaged     something was changed or lost; the answer names segment, byte and record, or how many
              acknowledged records are missing at the end, which the index knows
  newer       a newer program wrote it
  unreadable  the system does not let it be read
  none        there is no journal yet

The index is asked where no running guard holds it; the line `index` says so.

Exit codes: 0 whole, 1 damaged, newer or unreadable, 3 torn or none")]
    Verify,
}

impl Journal {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let What::Verify = self.what;
        let config = global.load_text()?;
        let dir = config.file.paths.state.join("journal");
        // First the index: what is recorded meanwhile must not look as if the journal lacked it.
        let witness = witness::ask(&config.file.paths.state.join("index"));
        let seen = matches!(witness, Witness::Seen { seq, .. } if seq > 0);
        if !lookup::journal(&config.file.paths.state)? && !global.json && !seen {
            return Err(Failure::new(
                Exit::No,
                format!("none: there is no journal in {}", dir.display()),
                "the daemon makes it at its first start",
            ));
        }
        let mut book = Book::default();
        let found = verify::verify(Arc::new(Disk), &dir, &witness, &mut |record| {
            book.fold_record(record)?;
            Ok(())
        });
        if global.json {
            say::json(&found)?;
        } else {
            let mut facts = vec![
                ("verdict", found.verdict.as_str().to_owned()),
                ("records", found.records.to_string()),
                ("segments", found.segments.to_string()),
                ("cases", book.numbers.len().to_string()),
                ("hash", found.hash.clone()),
            ];
            facts.push(("index", found.index.clone()));
            facts.extend(found.last.map(|at| ("last", at.to_string())));
            say::out(&say::facts(&facts))?;
        }
        let help = match found.verdict {
            Verdict::Whole | Verdict::None | Verdict::Torn => "",
            Verdict::Damaged if found.index_seen.is_some_and(|seen| seen > found.records) => {
                "restore the journal's folder from a copy that has them; if an older journal was put back on purpose, remove the index folder (state/index)"
            }
            Verdict::Damaged => "keep a copy of the folder as it is, then restore it from a backup; nothing was changed or skipped",
            Verdict::Newer => "use the newer program",
            Verdict::Unreadable => "mend the disk or the rights",
        };
        match found.verdict {
            Verdict::Whole => Ok(Exit::Done),
            Verdict::None => Ok(Exit::No),
            Verdict::Torn => Err(Failure::new(Exit::No, found.what, help)),
            Verdict::Damaged | Verdict::Newer | Verdict::Unreadable => Err(Failure::new(Exit::Failed, found.what, help)),
        }
    }
}
