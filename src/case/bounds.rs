//! How much of other people's words a record may hold. Submitters, workers and mail servers choose their words freely; a record has room for a sentence,
//! not for a flood. What grows with the data (class names, results per class, mails) lies in a file of the case, see [`Kept`]; here every text gets its
//! bound, so that no record comes near [`MAX_WRITTEN`](crate::journal::frame::MAX_WRITTEN).

use super::event::Event;
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
                if let TraceVerdict::Undecided { why } = &mut trace.found.verdict {
                    *why = why.clone().bounded(&|text| cut(text, 2 * SENTENCE));
                }
                trace.found.merge_small();
                trace.found.notes = sentences(std::mem::take(&mut trace.found.notes));
                Event::Traced { trace, seconds }
            }
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
    if bytes(&result.before.classes) + bytes(&result.after.classes) > LIST {
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
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::case::{End, Stage};
    use crate::journal::frame::MAX_WRITTEN;
    use crate::policy::{Action, Found, Mode};
    use delta_guard_contract::FaultKind;
    use delta_guard_contract::finding::Abstain;
    use proptest::prelude::*;

    /// Any text, mostly of the characters that take the most room; up to 100,000 of them.
    fn flood() -> impl Strategy<Value = String> {
        let piece = prop_oneof![Just('\u{1}'), Just('"'), Just('\u{7f}'), Just('\u{10ffff}'), Just('a'), any::<char>()];
        (proptest::collection::vec(piece, 0..8), 0usize..12_000).prop_map(|(piece, times)| piece.iter().collect::<String>().repeat(times))
    }

    fn events(text: &str, many: usize) -> Vec<Event> {
        let text = || text.to_string();
        let list: Vec<String> = (0..many).map(|n| format!("{n}{}", text())).collect();
        let short: Vec<String> = list.iter().map(|name| cut(name, 240)).collect();
        let digest = Digest("a".repeat(64));
        let prediction = Prediction {
            label: short[0].clone(),
            probability: 0.5,
            top: short.iter().map(|name| (name.clone(), 0.1)).collect(),
            classes: short.clone(),
            checkpoint: digest.clone(),
        };
        let accuracy = Accuracy {
            examples: 1,
            correct: 1,
            classes: short.iter().map(|name| (name.clone(), (u64::MAX, u64::MAX))).collect(),
        };
        let (kind, seconds) = (FaultKind::Internal, 0.1);
        let found = Found {
            verdict: TraceVerdict::Undecided {
                why: Abstain::other(&text(), text()),
            },
            predicted_label: short[0].clone(),
            flagged: short.iter().map(|name| (name.clone(), 1)).collect(),
            examples: 1,
            examples_of_label: 1,
            notes: list.clone(),
            detector: Default::default(),
        };
        vec![
            Event::StageFailed {
                stage: Stage::Trace,
                kind,
                code: None,
                message: text(),
                help: text(),
            },
            Event::Held {
                kind,
                cause: Default::default(),
                reason: text(),
                help: text(),
            },
            Event::Resumed { why: text(), by: None },
            Event::Ended {
                end: End::Refused,
                reason: text(),
                help: text(),
            },
            Event::Predicted {
                prediction: prediction.clone(),
                whole: None,
                seconds,
            },
            Event::Fitted {
                fit: FitResult {
                    factors: delta_guard_contract::finding::FactorUse {
                        key: digest.clone(),
                        reused: false,
                        examples: 1,
                    },
                    seconds: list.iter().map(|name| (name.clone(), 0.1)).collect(),
                    layers: list.iter().map(|name| (name.clone(), 1, 1)).collect(),
                    checkpoint: None,
                    manifest: None,
                },
                whole: None,
                seconds,
            },
            Event::Traced {
                trace: super::super::TraceSummary {
                    found,
                    file: "f".into(),
                    digest: digest.clone(),
                    ids: digest.clone(),
                    flagged: None,
                    manifest: None,
                },
                seconds,
            },
            Event::Decided(Decision {
                action: Action::Hold,
                mode: Mode::Enforce,
                reason: text(),
                over_caps: list.clone(),
            }),
            Event::Certified {
                result: CertifyResult {
                    anomalies_before: vec![prediction.clone(); many.min(5)],
                    anomalies_after: vec![prediction; many.min(5)],
                    before: accuracy.clone(),
                    after: accuracy,
                    candidate: digest,
                    seconds,
                    manifest: None,
                    flagged: None,
                },
                whole: None,
                gate: GateVerdict {
                    pass: false,
                    reasons: list.clone(),
                    notes: list,
                },
                seconds,
            },
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn nothing_that_is_said_makes_a_large_record(text in flood(), many in 1usize..40) {
            for event in events(&text, many) {
                let kind = event.kind();
                let bytes = serde_json::to_vec(&event.bounded()).unwrap().len();
                // The frame and the names of case and kind take a few hundred.
                prop_assert!(bytes < MAX_WRITTEN - 1000, "{kind}: {bytes}");
            }
        }

        #[test]
        fn a_text_is_cut_to_what_was_asked_and_never_otherwise(text in flood(), most in 2usize..5000) {
            for short in [cut(&text, most), cut_middle(&text, most)] {
                prop_assert!(short.chars().count() <= most && json_bytes(&short) <= 4 * most + 3, "{}", short.len());
                prop_assert!(short == text || short.contains('…'));
            }
            prop_assert!(text.starts_with(cut(&text, most).trim_end_matches('…')));
        }
    }

    #[test]
    fn of_a_long_text_both_ends_are_kept() {
        let text = format!("it failed; {} the last words", "x".repeat(10_000));
        let short = cut_middle(&text, 100);
        assert!(
            short.starts_with("it failed; ") && short.ends_with(" the last words") && short.chars().count() <= 100,
            "{short}"
        );
        assert_eq!(json_bytes("a\"\n\u{1}ä"), serde_json::to_string("a\"\n\u{1}ä").unwrap().len() - 2);
    }

    #[test]
    fn parts_hold_everything_once() {
        let list: Vec<String> = (0..3000).map(|n| format!("{n}-{}", "x".repeat(n % 300))).collect();
        let parts = in_parts(list.clone()).unwrap();
        assert!(parts.len() > 5 && parts.iter().all(|part| serde_json::to_vec(part).unwrap().len() < 50_000));
        assert_eq!(parts.concat(), list);
        assert_eq!(in_parts(Vec::<String>::new()).unwrap(), [Vec::<String>::new()]);
    }

    #[test]
    fn a_short_prediction_keeps_what_the_case_is_about() {
        let classes: Vec<String> = (0..8000).map(|n| format!("class number {n}")).collect();
        let whole = Prediction {
            label: classes[7000].clone(),
            probability: 1.0,
            top: vec![],
            classes,
            checkpoint: Digest(String::new()),
        };
        let short = short_prediction(whole.clone(), &["class number 7999", "no class"]);
        for (name, kept) in [
            ("class number 7000", true),
            ("class number 7999", true),
            ("class number 0", true),
            ("class number 7998", false),
            ("no class", false),
        ] {
            assert_eq!(short.classes.iter().any(|class| class == name), kept, "{name}");
        }
        let few = Prediction {
            classes: whole.classes[..100].to_vec(),
            ..whole
        };
        assert_eq!(short_prediction(few.clone(), &[]), few);
    }
}
