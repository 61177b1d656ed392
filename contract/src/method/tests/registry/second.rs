//! A method without keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {}

impl crate::method::Keys for Keys {}

impl super::Own for Keys {
    fn size(&self) -> u32 {
        0
    }
}
