//! Course of the learning rate.

use delta_guard_contract::Schedule;
use std::f64::consts::PI;

/// Learning rate of a step (0-based) among `steps` in all, `per_epoch` of them an epoch.
pub fn learning_rate(schedule: &Schedule, lr: f64, step: u64, per_epoch: u64, steps: u64) -> f64 {
    let cosine = |from: f64, to: f64, share: f64| to + (from - to) * (1.0 + (PI * share.clamp(0.0, 1.0)).cos()) / 2.0;
    match schedule {
        Schedule::Constant => lr,
        Schedule::Step { milestones, gamma } => {
            let fallen = |&&milestone: &&f64| {
                // Rounded, so that 0.35 of 40 epochs is the start of the 14th.
                let first = if milestone < 1.0 {
                    milestone * steps as f64
                } else {
                    milestone * per_epoch as f64
                }
                .round();
                step as f64 >= first
            };
            lr * gamma.powi(milestones.iter().filter(fallen).count() as i32)
        }
        Schedule::WarmupCosine {
            warmup,
            start,
            least,
            by_epoch,
        } => {
            let (step, per_epoch, steps) = match by_epoch {
                true => (step / per_epoch.max(1), 1, steps / per_epoch.max(1)),
                false => (step, per_epoch, steps),
            };
            // Rounded, as milestones are.
            let warm = if *warmup < 1.0 {
                warmup * steps as f64
            } else {
                warmup * per_epoch as f64
            }
            .round();
            match step as f64 {
                rising if rising < warm => lr * (start + (1.0 - start) * rising / warm),
                falling => cosine(lr, *least, (falling - warm) / (steps as f64 - warm).max(1.0)),
            }
        }
        Schedule::Cosine => cosine(lr, 0.0, step as f64 / steps.max(1) as f64),
        Schedule::OneCycle { warmup } => {
            // PyTorch's OneCycleLR: the peak is at step warmup·steps − 1, the end at steps − 1.
            let (peak, end) = (warmup * steps as f64 - 1.0, steps as f64 - 1.0);
            let (low, last) = (lr / 25.0, lr / 25.0 / 1e4);
            let step = step as f64;
            if step <= peak {
                cosine(low, lr, step / peak.max(1e-9))
            } else {
                cosine(lr, last, (step - peak) / (end - peak).max(1e-9))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OneCycleLR(max_lr=0.1, total_steps=10) by the formula of PyTorch's documentation, computed apart from this code.
    #[test]
    fn one_cycle_is_pytorchs() {
        let expected = [0.004, 0.052, 0.1, 0.095048, 0.081174, 0.061126, 0.038874, 0.018826, 0.004952, 4e-7];
        for (step, &want) in expected.iter().enumerate() {
            let got = learning_rate(&Schedule::OneCycle { warmup: 0.3 }, 0.1, step as u64, 5, 10);
            assert!((got - want).abs() < 2e-6, "step {step}: {got} instead of {want}");
        }
    }

    #[test]
    fn steps_fall_at_the_start_of_their_epochs() {
        let schedule = Schedule::Step {
            milestones: vec![2.0, 3.0],
            gamma: 0.1,
        };
        let at = |epoch: u64| learning_rate(&schedule, 1.0, epoch * 7, 7, 35);
        assert_eq!([at(0), at(1), at(2)], [1.0, 1.0, 0.1]);
        assert!((at(3) - 0.01).abs() < 1e-12);
        assert_eq!(learning_rate(&schedule, 1.0, 13, 7, 35), 1.0, "the last step of epoch 1");
    }

    /// The paper's schedule in shares: of 40 epochs it is 14, 24, 35 to the step; of any other number it falls three times all the same.
    #[test]
    fn shares_of_the_training_are_milestones_too() {
        let shares = delta_guard_contract::Recipe::default().schedule;
        let epochs = Schedule::Step {
            milestones: vec![14.0, 24.0, 35.0],
            gamma: 0.1,
        };
        for per_epoch in [1, 3, 7, 13, 391, 1000] {
            let steps = 40 * per_epoch;
            for step in 0..steps {
                let (a, b) = (
                    learning_rate(&shares, 0.1, step, per_epoch, steps),
                    learning_rate(&epochs, 0.1, step, per_epoch, steps),
                );
                assert_eq!(a, b, "step {step} of {steps}");
            }
        }
        let fourteen = |epoch: u64| learning_rate(&shares, 1.0, epoch * 10, 10, 140);
        assert_eq!((0..14).filter(|&e| fourteen(e) == 1.0).count(), 5);
        assert!((fourteen(13) - 1e-3).abs() < 1e-12);
    }
}
