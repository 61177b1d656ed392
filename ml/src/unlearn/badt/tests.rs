#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::teachers::Lesson;
use super::*;

/// Loss and gradients are PyTorch's, in float64; the published code's are a quarter of them, since it takes the mean over the four classes, too.
#[test]
fn the_flagged_imitate_the_random_teacher_and_the_others_the_old_one() {
    let lesson = Lesson::new();
    let loss = |flagged| BadTeaching {
        temperature: lesson.number("bad_temperature"),
        teacher: lesson.network("teacher"),
        random: lesson.network("random"),
        seed: 0,
        flagged,
    };
    let found = lesson.of(&loss(&[20, 50]), 0);
    lesson.agrees(&found, "badt", 1.0);
    lesson.agrees(&found, "badt_published", 4.0);
    // Where nobody of the batch is flagged, and where all are.
    let (old, random) = (lesson.of(&loss(&[7]), 0).0, lesson.of(&loss(&[10, 20, 30, 40, 50, 60]), 0).0);
    let against = |name: &str| {
        let swapped = BadTeaching {
            teacher: lesson.network(name),
            ..loss(&[])
        };
        lesson.of(&swapped, 0).0
    };
    let expected = (against("teacher"), against("random"));
    assert!(
        (old - expected.0).abs() < 1e-12 && (random - expected.1).abs() < 1e-12,
        "{old}, {random} for {expected:?}"
    );
    assert!((old - random).abs() > 1e-3, "{old} and {random}");
}
