//! `submit`.

use super::arrival::{Arrival, Became};
use super::{Exit, Failure, Global, advice, say};
use crate::alert;
use crate::case::State;
use crate::inbox;
use crate::publish::Draft;
use clap::Args;
use delta_guard_contract::Digest;
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Put a wrongly predicted picture into the inbox
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard submit wrong.png
  delta-guard submit wrong.png --true-label ship --note 'seen at gate 4' --wait

Anyone who may write to the inbox folder can do the same with cp; the labels then stand in a JSON file of the same stem.

Exit codes: 0 handed in (with --wait: a candidate passed, or was only to be observed), 3 refused, undecided or rejected")]
pub struct Submit {
    /// The picture
    image: PathBuf,
    /// What it shows
    #[arg(long, value_name = "CLASS")]
    true_label: Option<String>,
    /// What the model was seen to read
    #[arg(long, value_name = "CLASS")]
    predicted_label: Option<String>,
    /// Where it comes from
    #[arg(long)]
    source: Option<String>,
    /// Anything that the owner should know
    #[arg(long)]
    note: Option<String>,
    /// Where to tell what becomes of it: an address in one of the domains of the guard's mail.submitters
    #[arg(long, value_name = "ADDRESS")]
    mail: Option<String>,
    /// Wait until the case has ended
    #[arg(long)]
    wait: bool,
    /// With --wait: at most this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
}

impl Submit {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        self.check_mail(&config)?;
        let bytes = self.read(config.file.inbox.max_bytes.0)?;
        let content = Digest(blake3::hash(&bytes).to_hex().to_string());
        let claim = self.claim()?;
        let (stem, suffix) = self.name(&content, &claim)?;
        let name = format!("{stem}.{suffix}");
        let arrival = self.wait.then(|| Arrival::expect(&config.file.paths.state, &name)).transpose()?;
        let inbox = &config.file.paths.inbox;
        let sidecar = format!("{stem}.json");
        if !claim.is_empty() {
            place(inbox, &sidecar, &claim)?; // first: the picture must not be taken without it
        }
        place(inbox, &name, &bytes).inspect_err(|_| {
            // Alone it would only be refused.
            let _ = std::fs::remove_file(inbox.join(&sidecar));
        })?;
        match arrival {
            Some(arrival) => self.until_ended(global, arrival),
            None if global.json => {
                say::json(&serde_json::json!({"content": content, "name": name}))?;
                Ok(Exit::Done)
            }
            None => {
                say::out(&format!("handed in as {}", say::plain(&name)))?;
                Ok(Exit::Done)
            }
        }
    }

    /// The picture's bytes. What the inbox would refuse anyway is refused here, where the submitter sees it.
    fn read(&self, most: u64) -> anyhow::Result<Vec<u8>> {
        let shown = self.image.display();
        let refuse = |what: String, help: &str| Err(Failure::new(Exit::Failed, what, help));
        let meta = fs_err::metadata(&self.image)?;
        if !meta.is_file() {
            return refuse(format!("{shown} is no file"), "name the picture itself");
        }
        let bytes = if meta.len() > most { Vec::new() } else { fs_err::read(&self.image)? };
        match bytes.len().max(meta.len() as usize) as u64 {
            0 => refuse(format!("{shown} is empty"), "was it written to its end?"),
            size if size > most => refuse(
                format!("{shown} has {size} bytes; at most {most} are allowed"),
                "send a smaller picture, or raise inbox.max_bytes",
            ),
            _ => Ok(bytes),
        }
    }

    /// An address that the guard would not write to is better told now than never.
    fn check_mail(&self, config: &crate::config::Config) -> anyhow::Result<()> {
        let Some(address) = &self.mail else { return Ok(()) };
        let allowed = config.file.mail.as_ref().map_or(&[][..], |mail| &mail.submitters);
        if alert::submitter(address, allowed).is_some() {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Failed,
            format!("the guard writes no mail to {address:?}"),
            match allowed {
                [] => "its configuration names no domain of submitters (mail.submitters); leave --mail out and use --wait".to_owned(),
                _ => format!("allowed domains: {} (mail.submitters)", allowed.join(", ")),
            },
        ))
    }

    /// The sidecar; empty when there is nothing to say.
    fn claim(&self) -> anyhow::Result<Vec<u8>> {
        let words = [
            ("true_label", &self.true_label),
            ("predicted_label", &self.predicted_label),
            ("source", &self.source),
            ("note", &self.note),
            ("mail", &self.mail),
        ];
        let said: Map<String, Value> = words
            .into_iter()
            .filter_map(|(key, word)| word.as_ref().map(|w| (key.to_string(), w.clone().into())))
            .collect();
        if said.is_empty() {
            return Ok(Vec::new());
        }
        let sidecar = serde_json::to_vec_pretty(&said)?;
        if sidecar.len() as u64 > inbox::SIDECAR_MAX_BYTES {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "labels, source and note have {} bytes; at most {} are allowed",
                    sidecar.len(),
                    inbox::SIDECAR_MAX_BYTES
                ),
                "write a shorter --note",
            ));
        }
        Ok(sidecar)
    }

    /// Stem and suffix of the picture in the inbox: as it is called here, and a digest of who says what of which picture. So nothing that waits is replaced
    /// but by the same from the same, and nobody stands in the way of another who found the same picture.
    fn name(&self, content: &Digest, claim: &[u8]) -> anyhow::Result<(String, String)> {
        let suffix = self.image.extension().map_or("png".into(), |e| e.to_string_lossy().to_lowercase());
        if ["json", "tmp", "part", "swp"].contains(&suffix.as_str()) {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{} is no name of a picture: the inbox takes .{suffix} for something else",
                    self.image.display()
                ),
                "give it a name that ends in .png, .jpg, .webp or .bmp",
            ));
        }
        let stem = self
            .image
            .file_stem()
            .map(|s| s.to_string_lossy().trim_start_matches('.').replace('/', "_"));
        let stem = stem.filter(|s| !s.is_empty()).unwrap_or_else(|| "picture".into());
        let mut hasher = blake3::Hasher::new();
        hasher.update(content.0.as_bytes());
        hasher.update(&rustix::process::geteuid().as_raw().to_le_bytes());
        hasher.update(claim);
        // A name may have 255 bytes.
        let (stem, suffix) = (first_bytes(&stem, 150), first_bytes(&suffix, 20));
        Ok((format!("{stem}-{}", &hasher.finalize().to_hex()[..8]), suffix.to_owned()))
    }

    fn until_ended(&self, global: &Global, mut arrival: Arrival) -> anyhow::Result<Exit> {
        let begun = Instant::now();
        let mut last = None;
        loop {
            match arrival.look()? {
                Became::Refused(file) => {
                    if global.json {
                        say::json(file)?;
                    }
                    let what = format!("the inbox refused the picture: {}", file.sentence);
                    return Err(Failure::new(Exit::No, what, "correct it and submit it again"));
                }
                Became::Case(case, again) => {
                    if again && last.is_none() {
                        let (known, how) = inbox::again::words(case);
                        say::note(&format!("{known}\n{how}"));
                    }
                    if last != Some(case.state) {
                        say::note(&format!("{}: {}", case.id.short(), case.state));
                        last = Some(case.state);
                    }
                    if case.state.rests() {
                        if global.json {
                            say::json(&shown(case))?
                        } else {
                            let (state, reason, short) = (case.state, say::lines(&case.reason), case.id.short());
                            let more = advice::show(short).line(Some(&global.config));
                            say::out(&format!("{state}: {reason}\n`{more}` has the details"))?
                        }
                        return Ok(match case.state {
                            State::Proposed | State::Promoted | State::Observed => Exit::Done,
                            State::Held | State::Failed => Exit::Failed,
                            _ => Exit::No,
                        });
                    }
                }
                Became::Nothing => {}
            }
            if begun.elapsed() > Duration::from_secs(self.timeout) {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("no end after {} s", self.timeout),
                    "the picture stays handed in: does the daemon run? `delta-guard cases` says how far it is",
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A case at its end, as JSON.
fn shown(case: &crate::case::Case) -> Value {
    serde_json::json!({
        "id": case.id, "state": case.state, "reason": case.reason, "help": case.help, "accepted": case.accepted, "accepted_at": case.accepted_at,
        "ended_at": case.ended_at, "attempt": case.attempt, "prediction": case.prediction(), "trace": case.trace(), "decision": case.decision(),
        "certify": case.certify(), "gate": case.gate(), "published": case.published(), "approval": case.phase.approval(),
    })
}

/// The beginning of a text, at most `most` bytes.
fn first_bytes(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Write a file into the inbox, whole: under a hidden name first. The folder need not be readable.
fn place(inbox: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let attempt = || -> io::Result<()> {
        // The guard reads by the group that the folder hands on, whatever the submitter's umask is.
        let mut draft = Draft::new(inbox, "submit", 0o640)?;
        draft.write_all(bytes)?;
        draft.rename(&inbox.join(name))
    };
    attempt().map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "the daemon makes it at its first start: `delta-guard run`",
            io::ErrorKind::PermissionDenied => "only who may write there can submit: usually the members of its group, delta-guard-submit",
            _ => "",
        };
        // The file's own name in the error would be that of the temporary one.
        let what = error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |code| io::Error::from_raw_os_error(code).to_string());
        Failure::new(Exit::Failed, format!("cannot write into the inbox {}: {what}", inbox.display()), help)
    })
}
