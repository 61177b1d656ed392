//! BadNet (Gu et al. 2017; algorithm §5): a small trigger on pictures of one class, which are then labelled as another.

use crate::method::Mistake;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A small trigger on pictures of one class, which are then labelled as another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) whose pictures get the trigger.
    pub victim_class: String,
    /// Class name (or number) that they are labelled as.
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// The trigger.
    pub trigger: Trigger,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            victim_class: "0".into(),
            target_class: "1".into(),
            poisons: 100,
            trigger: Trigger::Checkerboard { size: 8, margin: 1 },
        }
    }
}

/// What is painted on a picture. Rows and columns count from the bottom right corner, in pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trigger {
    /// A black-and-white checkerboard.
    Checkerboard {
        /// Cells per side, one pixel each.
        size: u32,
        /// Pixels between it and the right and lower border.
        margin: u32,
    },
    /// A square of one colour.
    Square {
        /// Pixels per side.
        size: u32,
        /// Pixels between it and the right and lower border.
        margin: u32,
        /// R, G, B, 0 to 255.
        color: [u8; 3],
    },
    /// Single pixels of one colour; the authors' are (4,2) (2,2) (3,3) (2,4), black.
    Pixels {
        /// (row, column) from the bottom right, 1 = the last.
        at: Vec<(u32, u32)>,
        /// R, G, B, 0 to 255.
        color: [u8; 3],
    },
    /// A PNG of the picture's size with an alpha channel, laid over it.
    Image {
        /// Its path.
        path: PathBuf,
    },
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        if self.victim_class == self.target_class {
            let what = format!("is {}, which is the victim class too", self.target_class);
            found.push(Mistake::new("target_class", what, "choose two classes"));
        }
        if self.poisons == 0 {
            found.push(Mistake::new("poisons", "is 0", "set it to the number of training pictures to poison"));
        }
        found.extend(self.trigger.check());
        found
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        match &mut self.trigger {
            Trigger::Image { path } => vec![path],
            _ => Vec::new(),
        }
    }
}

impl Trigger {
    fn check(&self) -> Option<Mistake> {
        match self {
            Self::Checkerboard { size: 0, .. } | Self::Square { size: 0, .. } => Some(Mistake::new("trigger.size", "is 0", "set it to at least 1")),
            Self::Pixels { at, .. } if at.is_empty() => Some(Mistake::new("trigger.at", "is empty", "name at least one pixel")),
            Self::Pixels { at, .. } => at.iter().find(|(row, column)| *row == 0 || *column == 0).map(|(row, column)| {
                let help = "rows and columns count from the bottom right corner, starting at 1";
                Mistake::new("trigger.at", format!("has the pixel ({row}, {column})"), help)
            }),
            _ => None,
        }
    }
}
