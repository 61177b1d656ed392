//! The memory of a job, shared out once: a batch that is computed, and what is kept between passes.

use crate::model::Model;

/// Largest batch: more examples at once are no faster.
const LARGEST: usize = 128;

/// Who may use how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Examples per batch.
    pub batch: usize,
    /// Bytes for pairs that are kept between passes.
    pub kept: u64,
}

impl Budget {
    /// Of `bytes` (`worker.memory_budget`): a batch may take half, at least one example whatever that takes; what it does not need is for what is kept.
    pub fn new(model: &Model, bytes: u64) -> Self {
        // Activations, their gradients, and the unfolded patches.
        let example = (model.graph.activation_size() as u64 * model.kind().elt_size_in_bytes() as u64 * 4).max(1);
        let batch = ((bytes / 2 / example) as usize).clamp(1, LARGEST);
        Self {
            batch,
            kept: bytes.saturating_sub(batch as u64 * example),
        }
    }

    /// This stream's and another's (the null pictures'), which goes over fewer examples: three quarters of what is kept, and one.
    pub fn shared(self) -> (Self, Self) {
        let other = self.kept / 4;
        let kept = |kept| Self { kept, ..self };
        (kept(self.kept - other), kept(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_shared_out_whole_a_quarter_to_the_other() {
        for (kept, own, others) in [(0, 0, 0), (3, 3, 0), (1000, 750, 250), (1 << 30, 3 << 28, 1 << 28)] {
            let (this, other) = Budget { batch: 7, kept }.shared();
            assert_eq!((this.kept, other.kept), (own, others));
            assert_eq!((this.batch, other.batch), (7, 7));
        }
    }
}
