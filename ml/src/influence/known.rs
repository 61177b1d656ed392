//! Questions by their digest: scores that several processes took in parts answer exactly the questions that they were taken for.

use crate::ekfac::Scored;
use crate::error::{Error, Result};
use crate::evidence::{Question, Scores};
use delta_guard_contract::Digest;
use tch::{Device, Kind};

/// Digest of questions over examples: every pixel and label of every query, in order.
///
/// # Errors
/// When libtorch fails (memory).
pub fn plan_of_scores(questions: &[Question], examples: &[usize], self_influence: bool) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(self_influence)]);
    hasher.update(&(examples.len() as u64).to_le_bytes());
    for &example in examples {
        hasher.update(&(example as u64).to_le_bytes());
    }
    for question in questions {
        let queries = question.queries();
        hasher.update(&[u8::from(matches!(question, Question::Family { .. }))]);
        hasher.update(&(queries.len() as u64).to_le_bytes());
        for query in queries {
            let image = query.image.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
            let pixels = Vec::<f32>::try_from(&image.f_view([-1])?)?;
            hasher.update(&query.label.to_le_bytes());
            hasher.update(&(pixels.len() as u64).to_le_bytes());
            for pixel in pixels {
                hasher.update(&pixel.to_le_bytes());
            }
        }
    }
    Ok(Digest(hasher.finalize().to_hex().to_string()))
}

/// Rows in the order of the queries as answers to their questions.
///
/// # Errors
/// `Internal`: there are too few rows.
pub fn shaped(questions: &[Question], scored: Scored) -> Result<Scores> {
    let mut rows = scored.rows.into_iter();
    let answers = questions.iter().map(|question| question.answer(&mut rows)).collect::<Option<Vec<_>>>();
    Ok(Scores {
        answers: answers.ok_or_else(|| Error::internal("fewer rows of scores than queries"))?,
        self_influence: scored.self_influence,
    })
}
