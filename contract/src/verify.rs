//! What is known of an exported model (`.pt2`) before it is guarded: that the network is read rightly, and what its owner stored with it.

use serde::{Deserialize, Serialize};

/// Logits that differ by more than this from the stored ones are another network's, or another picture's.
pub const LARGEST_DIFFERENCE: f64 = 1e-3;

/// Default of `model.min_tracked_share`. Of the models of docs/models.md the one with the least has 98.8 %.
pub const LEAST_TRACKED: f64 = 0.8;

/// Said wherever a network of the owner's is guarded that comes without proof: `check-config`, the daemon's page, reports.
pub const UNPROVED: &str =
    "nobody has proved that this is the owner's network: no pictures with its own answers are stored in it (docs/export.py stores them)";

/// The file under `extra/` of an exported model that holds what its owner stored.
pub const STORED: &str = "delta_guard.json";

/// Result of [`crate::Task::VerifyModel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// Number of logits.
    pub classes: u64,
    /// What it reads: channels, height, width.
    pub input: [i64; 3],
    /// Trained numbers.
    pub parameters: u64,
    /// What influence is computed on.
    #[serde(flatten)]
    pub tracked: Tracked,
    /// What its owner stored with it (docs/export.py); None: nothing.
    pub stored: Option<StoredByOwner>,
    /// How it answers the stored pictures; None: none are stored, and nobody has proved that this is the owner's network.
    pub proof: Option<Proof>,
    /// Largest relative difference between the gradients of three weights of three layers and finite differences.
    pub gradient_difference: f64,
    /// Seconds that forward and backward pass take for one picture.
    pub seconds_per_picture: f64,
    /// Bytes that the EK-FAC factors of all layers take.
    pub factor_bytes: u64,
    /// Most bytes that this process held.
    pub peak_memory: u64,
}

/// What of a network influence is computed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// Layers that influence is computed on.
    pub layers: u64,
    /// Share of the trained numbers that lie in them, of those that the logits depend on; 0 to 1. A part that serves in training only (GoogLeNet's auxiliary heads)
    /// counts neither way: no prediction comes from it.
    pub tracked_share: f64,
    /// Trained tensors that lie in none, with the reason; the largest first, at most twenty.
    pub untracked: Vec<(String, String)>,
    /// How many there are in all.
    pub untracked_tensors: u64,
    /// Layers that are too wide for `worker.memory_budget`: their covariances are taken in blocks. A phrase each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<String>,
}

impl Tracked {
    /// Tensors that a sentence names.
    const NAMED: usize = 3;

    /// What it is, in a sentence without an end.
    pub fn sentence(&self) -> String {
        let Self { layers, tracked_share, .. } = self;
        let tracked = format!(
            "{layers} layers with {:.1} % of the parameters that the logits depend on",
            100.0 * tracked_share
        );
        let left = match self.untracked.is_empty() {
            true => String::new(),
            false => format!("; not tracked: {}", self.names()),
        };
        let blocks = match self.blocks.is_empty() {
            true => String::new(),
            false => format!("; in blocks, to stay within worker.memory_budget: {}", self.blocks.join(", ")),
        };
        tracked + &left + &blocks
    }

    /// The largest tensors that are not tracked, each with its reason, and how many more there are.
    fn names(&self) -> String {
        let named: Vec<String> = self
            .untracked
            .iter()
            .take(Self::NAMED)
            .map(|(name, why)| format!("{name} ({why})"))
            .collect();
        match self.untracked_tensors.saturating_sub(named.len() as u64) {
            0 => named.join(", "),
            more => format!("{} and {more} smaller tensors", named.join(", ")),
        }
    }

    /// Where it is less than `least` (`model.min_tracked_share`): what is wrong, and what to do.
    pub fn lacking(&self, least: f64) -> Option<(String, String)> {
        // Not a number is too little.
        if self.tracked_share >= least {
            return None;
        }
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let message = format!(
            "influence is computed on {} of the parameters that the logits depend on, model.min_tracked_share asks for {}; not tracked: {}",
            percent(self.tracked_share),
            percent(least),
            self.names()
        );
        let help = format!(
            "what caused a prediction could lie in what is not tracked. Write these as plain convolutions or linear layers and export the model again; or set model.min_tracked_share to {:.2} to guard it as it is",
            (100.0 * self.tracked_share).floor().max(0.0) / 100.0
        );
        Some((message, help))
    }
}

/// What lies under `extra/` of an exported model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredByOwner {
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// The pipeline in torchvision's words (`data.image.transforms`).
    pub preprocess: serde_json::Value,
    /// File names of the pictures.
    pub pictures: Vec<String>,
}

/// The size of a small difference: one digit and its power of ten, and nothing more where there is none.
pub fn rough(number: f64) -> String {
    if number == 0.0 { "0".into() } else { format!("{number:.0e}") }
}

/// The network's answers beside those that its owner stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Pictures compared.
    pub pictures: u64,
    /// Largest difference of a logit.
    pub difference: f64,
    /// Of the pictures, read as the same class.
    pub same_class: u64,
    /// What would make the difference smaller, the likeliest first: a sentence each. Empty where they agree, or nothing that was tried helps.
    pub likely: Vec<String>,
}

impl Proof {
    /// Is it the owner's network on the owner's pictures?
    pub fn agrees(&self) -> bool {
        self.difference <= LARGEST_DIFFERENCE
    }

    /// What it shows, in half a sentence.
    pub fn sentence(&self) -> String {
        let Self { pictures, difference, .. } = self;
        if self.agrees() {
            format!(
                "{pictures} of {pictures} pictures are answered as their owner stored (largest difference of a logit {})",
                rough(*difference)
            )
        } else {
            format!(
                "the stored pictures are not answered as their owner's model did: a logit differs by {difference:.2e} ({LARGEST_DIFFERENCE} is allowed), {} of {pictures} pictures are read as the same class",
                self.same_class
            )
        }
    }

    /// What to do where it does not agree.
    pub fn help(&self) -> String {
        let export = "export the model again with docs/export.py, with the transform and the classes that it is evaluated with";
        match self.likely.as_slice() {
            [] => format!("none of the usual mistakes (size, mean and std, order of channels or classes, resizing) explains it: {export}"),
            likely => format!("most likely: {}. Correct it in the configuration, or {export}", likely.join("; or: ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(difference: f64, likely: &[&str]) -> Proof {
        Proof {
            pictures: 8,
            difference,
            same_class: 5,
            likely: likely.iter().map(ToString::to_string).collect(),
        }
    }

    fn tracked(tracked_share: f64, untracked: &[&str], untracked_tensors: u64) -> Tracked {
        Tracked {
            layers: 58,
            tracked_share,
            untracked: untracked.iter().map(|name| (name.to_string(), "mixed".to_string())).collect(),
            untracked_tensors,
            blocks: Vec::new(),
        }
    }

    #[test]
    fn what_is_tracked_says_what_is_not_and_what_to_do_where_it_is_too_little() {
        let whole = tracked(1.0, &[], 0);
        assert_eq!(whole.sentence(), "58 layers with 100.0 % of the parameters that the logits depend on");
        assert_eq!(whole.lacking(1.0), None);
        let blocks = Tracked {
            blocks: vec!["fc (inputs in 5 blocks of at most 5018)".into()],
            ..whole
        };
        assert!(
            blocks
                .sentence()
                .ends_with("; in blocks, to stay within worker.memory_budget: fc (inputs in 5 blocks of at most 5018)")
        );
        let half = tracked(0.5579, &["a", "b", "c", "d"], 9);
        assert!(
            half.sentence()
                .ends_with("55.8 % of the parameters that the logits depend on; not tracked: a (mixed), b (mixed), c (mixed) and 6 smaller tensors")
        );
        let (message, help) = half.lacking(LEAST_TRACKED).unwrap();
        assert!(
            message.contains("55.8 %") && message.contains("80.0 %") && message.contains("a (mixed)"),
            "{message}"
        );
        // What is advised is enough.
        assert!(help.contains("model.min_tracked_share to 0.55 "), "{help}");
        assert!(half.lacking(0.55).is_none() && half.lacking(0.5579).is_none() && half.lacking(0.56).is_some());
        assert!(tracked(f64::NAN, &[], 0).lacking(0.0).is_some());
    }

    #[test]
    fn a_proof_says_what_it_shows() {
        let good = proof(3e-6, &[]);
        assert!(good.agrees() && proof(LARGEST_DIFFERENCE, &[]).agrees());
        assert_eq!(
            good.sentence(),
            "8 of 8 pictures are answered as their owner stored (largest difference of a logit 3e-6)"
        );
        assert!(proof(0.0, &[]).sentence().ends_with("(largest difference of a logit 0)"));
        // Not a number is no agreement.
        for difference in [1.1e-3, f64::INFINITY, f64::NAN] {
            let bad = proof(difference, &["the classes are in another order"]);
            assert!(!bad.agrees() && bad.sentence().contains("5 of 8") && bad.help().contains("most likely: the classes"));
        }
        assert!(proof(2.0, &[]).help().contains("none of the usual mistakes"));
    }
}
