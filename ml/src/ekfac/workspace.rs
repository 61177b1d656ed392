//! Where and how a pass computes.

use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Working precision, device and the memory that a pass may use for its intermediate tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workspace {
    /// Working precision: `Float` or `Double`. Sums over batches are kept in float64 whatever it is (group sums: every 1,024 examples).
    pub kind: Kind,
    /// Where batches are and products are computed.
    pub device: Device,
    /// Bound on intermediates in bytes (unfolded patches, per-example gradients): a batch is cut into chunks of examples that stay under it,
    /// one example at least.
    pub budget_bytes: usize,
}

impl Workspace {
    /// Budget that measured best on a CPU: tensors of this size are re-used by the allocator instead of being mapped afresh.
    pub const CPU_BUDGET_BYTES: usize = 32 << 20;
    /// Budget on a GPU, where large products are what counts.
    pub const GPU_BUDGET_BYTES: usize = 1 << 30;

    /// The usual budget for a device.
    pub fn new(kind: Kind, device: Device) -> Self {
        let budget_bytes = if device.is_cuda() {
            Self::GPU_BUDGET_BYTES
        } else {
            Self::CPU_BUDGET_BYTES
        };
        Self { kind, device, budget_bytes }
    }

    /// The budget in elements of working precision.
    pub(super) fn elements(&self) -> i64 {
        i64::try_from(self.budget_bytes / self.kind.elt_size_in_bytes()).unwrap_or(i64::MAX)
    }

    /// The tensor in working precision on the device, outside any autograd graph.
    pub(super) fn take(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.f_detach()?.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    /// Zeros in working precision.
    pub(super) fn zeros(&self, size: &[i64]) -> Result<Tensor> {
        Ok(Tensor::f_zeros(size, (self.kind, self.device))?)
    }

    /// Zeros in float64: an accumulator over batches.
    pub(super) fn accumulator(&self, size: &[i64]) -> Result<Tensor> {
        Ok(Tensor::f_zeros(size, (Kind::Double, self.device))?)
    }

    /// Consecutive (start, length) ranges of `examples`, each of `bytes_per_element`-sized `elements` per example, under the budget.
    pub(super) fn chunks(&self, examples: i64, elements_per_example: i64) -> Vec<(i64, i64)> {
        let bytes = elements_per_example.max(1).saturating_mul(self.kind.elt_size_in_bytes() as i64);
        let fit = i64::try_from(self.budget_bytes)
            .unwrap_or(i64::MAX)
            .checked_div(bytes)
            .unwrap_or(1)
            .max(1);
        // Even chunks: a short rest would run at a poor rate.
        let pieces = examples.div_euclid(fit) + i64::from(examples.rem_euclid(fit) != 0);
        let length = if pieces == 0 {
            1
        } else {
            examples.div_euclid(pieces) + i64::from(examples.rem_euclid(pieces) != 0)
        };
        (0..examples)
            .step_by(length.max(1) as usize)
            .map(|start| (start, length.min(examples - start)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_once_and_stay_under_the_budget() {
        for (examples, budget, elements) in [(0, 100, 1), (1, 1, 1000), (7, 16, 1), (100, 4 * 33, 1), (5, 1 << 20, 3)] {
            let workspace = Workspace {
                kind: Kind::Float,
                device: Device::Cpu,
                budget_bytes: budget,
            };
            let chunks = workspace.chunks(examples, elements);
            let mut next = 0;
            for (start, length) in chunks {
                assert_eq!(start, next);
                assert!(length == 1 || (length * elements * 4) as usize <= budget);
                next += length;
            }
            assert_eq!(next, examples);
        }
    }
}
