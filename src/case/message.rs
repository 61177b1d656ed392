//! Messages about a case, as they are recorded.

use super::{CaseId, Kept};
use serde::{Deserialize, Serialize};

/// A message to be sent at least once. It is recorded in the journal together with the end of its case; every repetition carries the same id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Fixed id, the same for every attempt (see [`message_id`]).
    pub id: String,
    /// How to send it (`mail`, …): the sender's own word.
    pub channel: String,
    /// To whom.
    pub to: String,
    /// What; the sender's own form, fixed here so that a repetition is the same byte for byte. In the journal it is null: `kept` names the file.
    pub content: serde_json::Value,
    /// The content's file in the case's folder. None until the message is recorded, and in journals of older versions, where the content is in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// When it was written, in Unix seconds; 0 in journals of older versions.
    #[serde(default)]
    pub written: i64,
}

/// The id of the message about a case to one recipient: equal whenever and however often it is made. `occasion` tells the messages of one case apart
/// (see the engine's `CaseView::occasion`); it is empty for the case's first end.
pub fn message_id(instance: &str, case: &CaseId, occasion: &str, channel: &str, to: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("delta-guard message v1");
    let occasion = (!occasion.is_empty()).then_some(occasion);
    for part in [instance, &case.0, channel, to].into_iter().chain(occasion) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().as_str()[..40].to_string()
}
