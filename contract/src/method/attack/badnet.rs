//! BadNet (Gu et al. 2017; algorithm §5): a small trigger on pictures of one class, which are then labelled as another.

use super::{some_poisons, two_classes};
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A small trigger on pictures of one class, which are then labelled as another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) whose pictures get the trigger; null: those of every class but the target.
    pub victim_class: Option<String>,
    /// Class name (or number) that they are labelled as; `next`: each as the class after its own, the last as the first (without a victim class: all-to-all).
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// The trigger.
    pub trigger: Trigger,
    /// Further triggers: each poison and each cover bears one of all in turn, a test picture bears all.
    pub also: Vec<Trigger>,
    /// Opacity of triggers on training pictures, above 0, at most 1; on test pictures they cover what is below.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub opacity: f64,
    /// This many other pictures, of any class, bear the trigger under their true label. With `also` and `opacity`: Adap-Patch (Qi et al. 2023).
    pub covers: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            victim_class: Some("0".into()),
            target_class: "1".into(),
            poisons: 100,
            trigger: Trigger::Checkerboard { size: 8, margin: 1 },
            also: Vec::new(),
            opacity: 1.0,
            covers: 0,
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
        found.extend(two_classes(self.victim_class.as_ref(), &self.target_class));
        found.extend(some_poisons(self.poisons));
        found.extend(unless(
            self.opacity > 0.0 && self.opacity <= 1.0,
            "opacity",
            format!("is {}", self.opacity),
            "take an opacity above 0, at most 1",
        ));
        found.extend(self.trigger.check("trigger"));
        found.extend(
            self.also
                .iter()
                .enumerate()
                .filter_map(|(n, trigger)| trigger.check(&format!("also.{n}"))),
        );
        found
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        let path = |trigger| match trigger {
            &mut Trigger::Image { ref mut path } => Some(path),
            _ => None,
        };
        std::iter::once(&mut self.trigger).chain(&mut self.also).filter_map(path).collect()
    }
}

impl Trigger {
    /// What is wrong with it, which stands under this key.
    fn check(&self, key: &str) -> Option<Mistake> {
        let size = || Some(Mistake::new(&format!("{key}.size"), "is 0", "set it to at least 1"));
        let at = format!("{key}.at");
        match self {
            Self::Checkerboard { size: 0, .. } | Self::Square { size: 0, .. } => size(),
            Self::Pixels { at: pixels, .. } if pixels.is_empty() => Some(Mistake::new(&at, "is empty", "name at least one pixel")),
            Self::Pixels { at: pixels, .. } => pixels.iter().find(|(row, column)| *row == 0 || *column == 0).map(|(row, column)| {
                let help = "rows and columns count from the bottom right corner, starting at 1";
                Mistake::new(&at, format!("has the pixel ({row}, {column})"), help)
            }),
            _ => None,
        }
    }
}
