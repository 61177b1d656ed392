//! `submit`.

use super::{Exit, Failure, Global, say};
use crate::case::State;
use crate::engine::query;
use anyhow::Context;
use clap::Args;
use delta_guard_contract::Digest;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Put a wrongly predicted picture into the inbox
#[derive(Debug, Args)]
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
    /// Wait until the case has ended
    #[arg(long)]
    wait: bool,
    /// With --wait: at most so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
}

impl Submit {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        if !fs_err::metadata(&self.image)?.is_file() {
            return Err(Failure::new(
                Exit::Failed,
                format!("{} is no file", self.image.display()),
                "name the picture itself",
            ));
        }
        let bytes = fs_err::read(&self.image)?;
        let content = Digest(blake3::hash(&bytes).to_hex().to_string());
        let inbox = &config.file.paths.inbox;
        let suffix = self.image.extension().map_or("png".into(), |e| e.to_string_lossy().to_lowercase());
        let stem = self
            .image
            .file_stem()
            .map_or("picture".into(), |s| s.to_string_lossy().trim_start_matches('.').replace('/', "_"));
        // A name of its own, so that nothing that waits is replaced.
        let stem = format!("{stem}-{}", &content.0[..8]);
        let words = [
            ("true_label", &self.true_label),
            ("predicted_label", &self.predicted_label),
            ("source", &self.source),
            ("note", &self.note),
        ];
        let sidecar: serde_json::Map<String, serde_json::Value> = words
            .into_iter()
            .filter_map(|(key, word)| word.as_ref().map(|w| (key.to_string(), w.clone().into())))
            .collect();
        if !sidecar.is_empty() {
            place(inbox, &format!("{stem}.json"), &serde_json::to_vec_pretty(&sidecar)?)?; // first: the picture must not be taken without it
        }
        place(inbox, &format!("{stem}.{suffix}"), &bytes)?;
        if !self.wait {
            if global.json {
                say::json(&serde_json::json!({"content": content, "name": format!("{stem}.{suffix}")}))?
            } else {
                say::out(&format!("handed in as {stem}.{suffix}"))?
            }
            return Ok(Exit::Done);
        }
        self.until_ended(global, &config.file.paths.state, &content)
    }

    fn until_ended(&self, global: &Global, state: &Path, content: &Digest) -> anyhow::Result<Exit> {
        let begun = Instant::now();
        let mut last = None;
        loop {
            let cases = if state.join("journal").is_dir() {
                query::read(state).context("the journal cannot be read")?.0.cases
            } else {
                Default::default()
            };
            if let Some(case) = cases.into_values().rfind(|c| c.accepted.content == *content) {
                if last != Some(case.state) {
                    say::note(&format!("{}: {}", case.id.short(), case.state));
                    last = Some(case.state);
                }
                if case.state.is_end() || case.state == State::Held {
                    if global.json {
                        say::json(&case)?
                    } else {
                        say::out(&format!(
                            "{}: {}\n`delta-guard show {}` has the details",
                            case.state,
                            case.reason,
                            case.id.short()
                        ))?
                    }
                    return Ok(match case.state {
                        State::Proposed | State::Promoted | State::Observed => Exit::Done,
                        State::Held | State::Failed => Exit::Failed,
                        _ => Exit::No,
                    });
                }
            }
            if begun.elapsed() > Duration::from_secs(self.timeout) {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("no end after {} s", self.timeout),
                    "look at `delta-guard cases`, and whether the daemon runs; a refused file lies in the refused folder with its reason",
                ));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// Write a file into the inbox, whole: under a hidden name first.
fn place(inbox: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut temp = tempfile::Builder::new()
        .prefix(".submit-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .tempfile_in(inbox)
        .with_context(|| format!("cannot write into the inbox {}", inbox.display()))?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(inbox.join(name))
        .map_err(|e| e.error)
        .with_context(|| format!("cannot write into the inbox {}", inbox.display()))?;
    Ok(())
}
