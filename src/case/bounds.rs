//! How much of other people's words a record may hold. Submitters, workers and mail servers choose their words freely; a record has room for a sentence,
//! not for a flood. What grows with the data (class names, results per class, mails) lies in a file of the case, see [`Kept`]; here every text gets its
//! bound, so that no record comes near [`MAX_WRITTEN`](crate::journal::frame::MAX_WRITTEN).

use super::event::{Event, TraceSummary};
use super::{Approval, Claim, Message};
use crate::policy::{Decision, GateVerdict};
use delta_guard_contract::job::{Accuracy, CertifyResult, FitResult, Prediction};
use delta_guard_contract::{Digest, TraceVerdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most characters of a label in a sidecar.
pub const LABEL: usize = 200;
/// Most bytes of a class name, as JSON. File systems allow names of 255 bytes.
pub const CLASS_NAME: usize = 1 << 10;
/// Most bytes of a training example's id, as JSON. Linux allows paths of 4,096 bytes.
pub const TRAIN_ID: usize = 8 << 10;
/// Most characters of what a submitter notes.
pub const NOTE: usize = 2000;
/// Most characters of what happened, in a fault, a hold or an end.
pub const REASON: usize = 4000;
/// Most characters of what to do about it.
pub const HELP: usize = 2000;
/// Most characters of a sentence among several.
pub const SENTENCE: usize = 400;
/// Most sentences of a kind.
pub const SENTENCES: usize = 10;
/// Bytes of JSON that a list of names, or of results per class, may take in a record.
pub const LIST: usize = 8 << 10;
/// Most predictions of a kind in a record; a case asks for one.
const PREDICTIONS: usize = 2;

/// A result that is too long for a record: the record holds its short form, this file the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its path below the case's folder; the name is the digest.
    pub file: String,
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// Bytes.
    pub bytes: u64,
}

/// Bytes of a text inside a JSON string.
pub fn json_bytes(text: &str) -> usize {
    text.chars().map(json_char).sum()
}

fn json_char(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// The text, or as much of its beginning as fits into `most` characters (and four bytes of JSON for each), with an ellipsis for the rest.
pub fn cut(text: &str, most: usize) -> String {
    if fits(text, most) {
        return text.into();
    }
    let (mut end, mut bytes) = (0, '…'.len_utf8());
    for (at, c) in text.char_indices().take(most.saturating_sub(1)) {
        bytes += json_char(c);
        if bytes > 4 * most {
            break;
        }
        end = at + c.len_utf8();
    }
    format!("{}…", &text[..end])
}

/// The same with the rest taken out of the middle: a fault says at its beginning what happened, and the worker's last words are at its end.
pub fn cut_middle(text: &str, most: usize) -> String {
    if fits(text, most) {
        return text.into();
    }
    let half = most / 2;
    let backwards: String = text.chars().rev().take(half).collect();
    let end: String = cut(&backwards, half).trim_end_matches('…').chars().rev().collect();
    format!("{}{end}", cut(text, half))
}

fn fits(text: &str, most: usize) -> bool {
    text.chars().nth(most).is_none() && json_bytes(text) <= 4 * most
}

impl Claim {
    /// With every text cut to its bound.
    pub fn bounded(self) -> Self {
        let cut = |text: Option<String>, most| text.map(|text| cut(&text, most));
        Self {
            predicted_label: cut(self.predicted_label, LABEL),
            true_label: cut(self.true_label, LABEL),
            source: cut(self.source, LABEL),
            note: cut(self.note, NOTE),
            // Half an address is none.
            mail: self.mail.filter(|address| fits(address, RECIPIENT)),
        }
    }
}

impl Event {
    /// With every text and list cut to its bound: what is recorded. What must not be lost of them was kept in a file before ([`Kept`]).
    pub fn bounded(self) -> Self {
        match self {
            Event::Accepted(mut accepted) => {
                accepted.claim = accepted.claim.bounded();
                // 255 bytes are a name's limit; escaped, each may take six.
                accepted.name = cut(&accepted.name, NOTE);
                accepted.name_base64 = cut(&accepted.name_base64, SENTENCE);
                Event::Accepted(accepted)
            }
            Event::StageFailed {
                stage,
                kind,
                code,
                message,
                help,
            } => Event::StageFailed {
                stage,
                kind,
                code,
                message: cut_middle(&message, REASON),
                help: cut(&help, HELP),
            },
            Event::Held { kind, reason, help, cause } => Event::Held {
                kind,
                cause,
                reason: cut_middle(&reason, REASON),
                help: cut(&help, HELP),
            },
            Event::Resumed { why, by } => Event::Resumed { why: cut(&why, REASON), by },
            Event::Proposed { reason, help } => Event::Proposed {
                reason: cut(&reason, REASON),
                help: cut(&help, HELP),
            },
            Event::Approved(approval) => Event::Approved(Approval {
                why: cut(&approval.why, NOTE),
                ..approval
            }),
            Event::Declined { by, why } => Event::Declined { by, why: cut(&why, NOTE) },
            Event::Ended { end, reason, help } => Event::Ended {
                end,
                reason: cut_middle(&reason, REASON),
                help: cut(&help, HELP),
            },
            Event::Predicted { prediction, whole, seconds } => Event::Predicted {
                prediction: short_prediction(prediction, &[]),
                whole,
                seconds,
            },
            Event::Fitted { fit, whole, seconds } => Event::Fitted {
                fit: short_fit(fit),
                whole,
                seconds,
            },
            Event::Certified {
                result,
                whole,
                gate,
                seconds,
            } => Event::Certified {
                result: short_certify(result),
                whole,
                gate: gate.bounded(),
                seconds,
            },
            Event::Traced { mut trace, seconds } => {
                trace.bound();
                Event::Traced { trace, seconds }
            }
            Event::Retraced {
                found,
                trace,
                doubt,
                seconds,
            } => Event::Retraced {
                found,
                trace: trace.map(|mut trace| {
                    trace.bound();
                    trace
                }),
                doubt: doubt.map(|doubt| cut(&doubt, SENTENCE)),
                seconds,
            },
            Event::Decided(decision) => Event::Decided(decision.bounded()),
            Event::PromoteIntent { from, to } => Event::PromoteIntent {
                from: from.map(|from| cut(&from, SENTENCE)),
                to: cut(&to, SENTENCE),
            },
            // Made of our own words and of digests, or divided into parts before (`flagged`, `queued`).
            Event::StageStarted { .. }
            | Event::FitSkipped { .. }
            | Event::Flagged { .. }
            | Event::CandidateGiven { .. }
            | Event::Outdated { .. }
            | Event::Retried(_)
            | Event::Unlearned { .. }
            | Event::Published { .. }
            | Event::Queued { .. }
            | Event::Told { .. } => self,
        }
    }
}

impl TraceSummary {
    fn bound(&mut self) {
        if let TraceVerdict::Undecided { why } = &mut self.found.verdict {
            *why = why.clone().bounded(&|text| cut(text, 2 * SENTENCE));
        }
        self.found.merge_small();
        self.found.notes = sentences(std::mem::take(&mut self.found.notes));
    }
}

impl Decision {
    fn bounded(mut self) -> Self {
        self.reason = cut(&self.reason, REASON);
        self.over_caps = sentences(self.over_caps);
        self
    }
}

impl GateVerdict {
    fn bounded(mut self) -> Self {
        self.reasons = sentences(self.reasons);
        self.notes = sentences(self.notes);
        self.doubts = sentences(self.doubts);
        self
    }
}

/// At most a fixed number of them, each of a fixed length; the last one counts those that are left out.
fn sentences(all: Vec<String>) -> Vec<String> {
    let left = all.len().saturating_sub(SENTENCES - 1);
    let rest = (left > 1).then(|| format!("and {left} more"));
    let shown = if rest.is_some() { SENTENCES - 1 } else { SENTENCES };
    all.iter().take(shown).map(|one| cut(one, SENTENCE)).chain(rest).collect()
}

/// A prediction with the class names that matter to the case, where all of them are too many: the predicted one, those of `wanted`, and the first ones.
pub fn short_prediction(mut prediction: Prediction, wanted: &[&str]) -> Prediction {
    prediction.top.truncate(5);
    if prediction.classes.iter().map(|name| json_bytes(name) + 3).sum::<usize>() <= LIST {
        return prediction;
    }
    let needed = |name: &str| name == prediction.label || wanted.contains(&name);
    let room = LIST - (wanted.len() + 1) * (CLASS_NAME + 3);
    let mut bytes = 0;
    let mut seen = BTreeSet::new();
    prediction.classes = std::mem::take(&mut prediction.classes)
        .into_iter()
        .filter(|name| {
            bytes += json_bytes(name) + 3;
            (bytes <= room || needed(name)) && seen.insert(name.clone())
        })
        .collect();
    prediction
}

/// A fit's result with at most a fixed number of layers and steps.
pub fn short_fit(mut fit: FitResult) -> FitResult {
    let mut bytes = 0;
    fit.layers.retain(|(name, ..)| {
        bytes += json_bytes(name) + 50;
        bytes <= LIST
    });
    fit.seconds.retain(|name, _| {
        bytes += json_bytes(name) + 30;
        bytes <= 2 * LIST
    });
    fit
}

/// A measurement with its class names and the classes' figures only where all of them fit.
pub fn short_certify(mut result: CertifyResult) -> CertifyResult {
    for prediction in result.anomalies_before.iter_mut().chain(&mut result.anomalies_after) {
        prediction.top.truncate(5);
        if prediction.classes.iter().map(|name| json_bytes(name) + 3).sum::<usize>() > LIST / 4 {
            prediction.classes.clear();
        }
    }
    if let Some(flagged) = &mut result.flagged {
        flagged.read_as.truncate(5);
    }
    result.anomalies_before.truncate(PREDICTIONS);
    result.anomalies_after.truncate(PREDICTIONS);
    let bytes = |classes: &BTreeMap<String, _>| classes.keys().map(|name| json_bytes(name) + 30).sum::<usize>();
    let changed = result.paired.as_ref().map_or(0, |paired| bytes(&paired.classes));
    if bytes(&result.before.classes) + bytes(&result.after.classes) + changed > LIST {
        if let Some(paired) = &mut result.paired {
            paired.classes.clear();
        }
        for Accuracy { classes, .. } in [&mut result.before, &mut result.after] {
            classes.clear();
        }
    }
    result
}

/// A list in parts that fit into a record each; at least one part, which may be empty.
pub fn in_parts<T: Serialize>(list: Vec<T>) -> serde_json::Result<Vec<Vec<T>>> {
    /// The rest of a record is its frame and what it says beside the list.
    const MOST: usize = 48 << 10;
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for item in list {
        let size = serde_json::to_vec(&item)?.len() + 1;
        if bytes + size > MOST && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    Ok(parts)
}

/// Is it the hexadecimal form of a BLAKE3 digest? A worker may say anything.
pub fn is_digest(digest: &Digest) -> bool {
    digest.0.len() == 64 && digest.0.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Most characters of a recipient.
pub const RECIPIENT: usize = 320;

/// Is a message short enough for a record? Its content lies in a file.
pub fn message_fits(message: &Message) -> bool {
    message.kept.is_some() && fits(&message.to, 2 * RECIPIENT) && message.id.len() <= 128 && message.channel.len() <= 64
}

#[cfg(test)]
mod tests;
