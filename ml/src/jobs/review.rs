//! What a person may look at where a detector is undecided: examples of the wrong label whose own label is doubtful. Label errors without a trigger are what users meet most often, and the
//! guard, which needs a group that stands apart, does not decide them. Nothing of this list is ever removed by itself.

use super::case::{Case, name};
use crate::certify;
use crate::detect::{Detection, Suspect};
use crate::error::Result;
use crate::progress::Report;
use delta_guard_contract::finding::{Doubtful, Review};
use delta_guard_contract::job::Anomaly;

/// What the model makes of an example: probabilities of all classes.
type Read = Vec<f64>;

/// The list, by position. None where the detector is decided, or says nothing of the examples.
///
/// # Errors
/// libtorch's.
pub(super) fn review(case: &Case<'_>, anomalies: &[Anomaly], detection: &Detection, report: &mut dyn Report) -> Result<Option<Review<usize>>> {
    if detection.support.is_empty() {
        return Ok(None);
    }
    let train = &case.train;
    let positions: Vec<usize> = detection.support.iter().map(|s| s.position).collect();
    let read = certify::probabilities(&case.model, train, case.image, &positions, "look", report)?;
    // Of several pictures that show unlike things none says what the examples show.
    let mut said = anomalies.iter().map(|anomaly| anomaly.true_label.as_deref());
    let first = said.next().flatten().filter(|first| said.all(|other| other == Some(first)));
    let shown = first.and_then(|label| train.classes().iter().position(|class| class == label));
    let shown = shown.filter(|shown| *shown != case.wrong as usize);
    let rows = ranked(&detection.support, &read, case.wrong as usize, shown);
    let wrong = name(train, case.wrong);
    let how = match shown {
        Some(shown) => format!(
            "ranked by the probability of “{}”, which the picture is said to show",
            train.classes()[shown]
        ),
        None => "ranked by how much each speaks for the wrong prediction and how unsure the model is of its label".into(),
    };
    let doubtful = |(place, suggested): (usize, usize)| Doubtful {
        id: positions[place],
        label: wrong.clone(),
        probability: read[place][case.wrong as usize],
        suggested: name(train, suggested as u32),
        suggested_probability: read[place][suggested],
    };
    Ok(Some(Review {
        title: "To look at by hand".into(),
        caption: format!(
            "Training examples with the label “{wrong}” that may be labelled wrongly, {how}. Many of them are right: nothing is removed because it stands here. The label beside each is what the production model would rather say."
        ),
        rows: rows.into_iter().map(doubtful).collect(),
    }))
}

/// Places of the most doubtful, with the class that the model would rather say of each: by the probability of the class that the picture shows, or by support × (1 − p_ŷ), of those
/// that speak for the wrong label at all (docs/algorithm.md §3). Equal ones in their order.
fn ranked(support: &[Suspect], read: &[Read], wrong: usize, shown: Option<usize>) -> Vec<(usize, usize)> {
    let doubt = |place: usize| match shown {
        Some(shown) => read[place][shown],
        None => support[place].score * (1.0 - read[place][wrong]),
    };
    let mut places: Vec<usize> = (0..support.len()).filter(|&place| support[place].score > 0.0).collect();
    places.sort_by(|&a, &b| doubt(b).total_cmp(&doubt(a)).then(a.cmp(&b)));
    places.truncate(Review::<usize>::MOST);
    let rather = |place: usize| {
        let others = (0..read[place].len()).filter(|class| *class != wrong);
        others
            .reduce(|best, class| if read[place][class] > read[place][best] { class } else { best })
            .unwrap_or(wrong)
    };
    places.into_iter().map(|place| (place, rather(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_doubtful_come_first() {
        let support: Vec<Suspect> = [2.0, 1.0, -1.0, 4.0, 1.0]
            .into_iter()
            .zip(10..)
            .map(|(score, position)| Suspect { position, score })
            .collect();
        // Class 1 is the wrong label.
        let read = [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.9, 0.0, 0.1], [0.04, 0.95, 0.01], [0.3, 0.1, 0.6]].map(Read::from);
        // Support × (1 − p): 0.4, 0.9, –, 0.2, 0.9; the third does not speak for the wrong label.
        assert_eq!(ranked(&support, &read, 1, None), [(1, 2), (4, 2), (0, 0), (3, 0)]);
        // The picture shows class 0.
        assert_eq!(ranked(&support, &read, 1, Some(0)), [(4, 2), (0, 0), (1, 2), (3, 0)]);
        let many: Vec<Suspect> = (0..50).map(|position| Suspect { position, score: 1.0 }).collect();
        let alike = vec![vec![0.5, 0.5]; 50];
        let listed = ranked(&many, &alike, 1, None);
        assert_eq!((listed.len(), listed[0], listed[19]), (20, (0, 0), (19, 0)));
        assert!(ranked(&[], &[], 1, None).is_empty());
    }
}
