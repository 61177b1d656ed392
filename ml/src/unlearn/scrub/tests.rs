#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::teachers::Lesson;
use super::*;

/// Loss and gradients of a max-step and of a min-step are PyTorch's, in float64; passes alternate while there are max-steps.
#[test]
fn both_kinds_of_steps_are_pytorchs() {
    let lesson = Lesson::new();
    let keys = Keys {
        epochs: 3,
        max_epochs: 2,
        alpha: lesson.number("alpha"),
        gamma: lesson.number("gamma"),
        temperature: lesson.number("temperature"),
        flagged_batch: 7,
        lr: None,
    };
    let loss = Scrub {
        keys: &keys,
        teacher: lesson.network("teacher"),
        flagged: &[20, 50],
    };
    let expected = ["scrub_max", "scrub_min", "scrub_max", "scrub_min", "scrub_min"];
    for (epoch, name) in (0..).zip(expected) {
        lesson.agrees(&lesson.of(&loss, epoch), name, 1.0);
        let over = loss.round(epoch).map(|round| (round.examples.to_vec(), round.batch_size));
        assert_eq!(over, (name == "scrub_max").then(|| (vec![20, 50], 7)), "epoch {epoch}");
    }
}
