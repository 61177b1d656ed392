//! Exhibits: what a detector shows of its finding. Each has a title and a plain caption that the detector writes; who draws one knows only its shape.
//!
//! A detector calls training examples by position ([`Exhibit<usize>`]); [`Exhibit::named`] puts ids in their place.

use crate::{Digest, TrainId};
use serde::{Deserialize, Serialize};

/// Something to show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "exhibit", rename_all = "kebab-case")]
pub enum Exhibit<Id = TrainId> {
    /// Distributions of one quantity.
    Histogram(Histogram),
    /// The case beside others.
    Strip(Strip),
    /// Further facts per flagged example.
    Table(Table),
    /// Examples in two dimensions.
    Scatter(Scatter<Id>),
    /// What the flagged share, pixel by pixel.
    Shared(SharedPixels),
    /// What another rule flagged.
    Beside(Beside<Id>),
    /// A fact in words, shown among what the result rests on.
    Note(Note),
    /// Where the flagged come from.
    Sources(Sources),
    /// Examples for a person to look at, where nothing is flagged.
    Review(Review<Id>),
}

impl<Id> Exhibit<Id> {
    /// The same with other names for training examples.
    pub fn named<To>(self, name: impl Fn(Id) -> To) -> Exhibit<To> {
        match self {
            Self::Histogram(histogram) => Exhibit::Histogram(histogram),
            Self::Strip(strip) => Exhibit::Strip(strip),
            Self::Table(table) => Exhibit::Table(table),
            Self::Scatter(scatter) => Exhibit::Scatter(scatter.named(name)),
            Self::Shared(shared) => Exhibit::Shared(shared),
            Self::Beside(beside) => Exhibit::Beside(Beside {
                title: beside.title,
                caption: beside.caption,
                flagged: beside.flagged.into_iter().map(name).collect(),
            }),
            Self::Note(note) => Exhibit::Note(note),
            Self::Sources(sources) => Exhibit::Sources(sources),
            Self::Review(review) => Exhibit::Review(review.named(name)),
        }
    }
}

/// Distributions of one quantity over common bins. Each series is drawn as shares of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Title.
    pub title: String,
    /// What one sees, in whole sentences.
    pub caption: String,
    /// What the axis shows.
    pub axis: String,
    /// `n + 1` bin edges.
    pub edges: Vec<f64>,
    /// One or more; the first is drawn in the colour of the flagged.
    pub series: Vec<Series>,
}

/// One distribution of a [`Histogram`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// What is counted.
    pub name: String,
    /// How many per bin.
    pub counts: Vec<u64>,
}

/// A few measures of the case, each beside what others (placebos) came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Strip {
    /// Title.
    pub title: String,
    /// What one sees, in whole sentences.
    pub caption: String,
    /// What would be a pass, in a sentence.
    pub pass: String,
    /// What the others are called: `placebos`.
    pub others: String,
    /// One for each measure.
    pub rows: Vec<Row>,
}

/// One measure of a [`Strip`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name: `z`.
    pub name: String,
    /// What it measures, in a few words.
    pub meaning: String,
    /// The case's value. None where there is none.
    pub own: Option<f64>,
    /// Those of the others that have one.
    pub others: Vec<f64>,
    /// About those that have none; may be empty.
    #[serde(default)]
    pub remark: String,
}

/// Further facts per flagged example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Title.
    pub title: String,
    /// What one sees, in whole sentences.
    pub caption: String,
    /// What each row holds.
    pub columns: Vec<Column>,
    /// One for each flagged example, in their order (rank 1 first).
    pub rows: Vec<Vec<Cell>>,
}

/// One column of a [`Table`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name in CSV and JSON: `mean_scaled_delta`.
    pub key: String,
    /// Its name on a page: `Δ`.
    pub name: String,
    /// What it means, in a few words.
    pub meaning: String,
    /// Decimals that mean something.
    pub decimals: u8,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// Yes or no.
    Yes(bool),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A word.
    Text(String),
    /// Not known.
    None,
}

/// Where the flagged examples come from, source by source, and how surprising that is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// Title.
    pub title: String,
    /// What one sees, in whole sentences.
    pub caption: String,
    /// The most surprising first, at most [`Self::MOST`].
    pub rows: Vec<SourceRow>,
    /// Sources that are not among the rows.
    pub further: u64,
    /// Flagged examples of these.
    pub further_flagged: u64,
}

impl Sources {
    /// At most this many rows are kept.
    pub const MOST: usize = 20;
}

/// One source of [`Sources`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceRow {
    /// Its name; empty for examples whose source is not said.
    pub source: String,
    /// Flagged examples of this source.
    pub flagged: u64,
    /// Its training examples that have a label of the flagged.
    pub examples: u64,
    /// Flagged examples that it would have if they were drawn at random within each label.
    pub expected: f64,
    /// Probability of as many or more under such a draw.
    pub p: f64,
    /// The same, corrected for the number of sources (Holm).
    pub corrected: f64,
}

/// Examples in two dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scatter<Id = TrainId> {
    /// Title.
    pub title: String,
    /// What one sees, in whole sentences.
    pub caption: String,
    /// What the axis to the right shows.
    pub x: String,
    /// What the axis upwards shows.
    pub y: String,
    /// One or more; the first is drawn in the colour of the flagged, over the others.
    pub series: Vec<Points<Id>>,
}

impl<Id> Scatter<Id> {
    /// At most this many points are kept of all series together.
    pub const MOST: usize = 2000;

    /// Thinned to [`Self::MOST`] points, each series by the same factor and evenly over its points, so that their proportions stay.
    #[must_use]
    pub fn thinned(mut self) -> Self {
        let all: usize = self.series.iter().map(|series| series.points.len()).sum();
        if all > Self::MOST {
            for series in &mut self.series {
                let (n, mut place) = (series.points.len(), 0);
                let kept = n * Self::MOST / all;
                series.points.retain(|_| {
                    place += 1;
                    place * kept / n != (place - 1) * kept / n
                });
            }
        }
        self
    }

    fn named<To>(self, name: impl Fn(Id) -> To) -> Scatter<To> {
        let point = |point: Point<Id>| Point {
            x: point.x,
            y: point.y,
            id: point.id.map(&name),
        };
        let points = |series: Points<Id>| Points {
            name: series.name,
            points: series.points.into_iter().map(point).collect(),
        };
        Scatter {
            series: self.series.into_iter().map(points).collect(),
            title: self.title,
            caption: self.caption,
            x: self.x,
            y: self.y,
        }
    }
}

/// One series of a [`Scatter`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Points<Id = TrainId> {
    /// What they are.
    pub name: String,
    /// The points.
    pub points: Vec<Point<Id>>,
}

/// A point of a [`Scatter`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point<Id = TrainId> {
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// The example that it stands for.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
}

/// Pixels on which the flagged examples of label ŷ look alike, and the others of that label do not look like them: a painted trigger shows as exactly its own pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedPixels {
    /// Number of such pixels; 0: they share none.
    pub pixels: u64,
    /// Pixels of a picture.
    pub of: u64,
    /// Smallest box that holds them: first row, first column, rows, columns. None where there are none.
    pub place: Option<[u32; 4]>,
    /// Flagged examples that were compared.
    pub flagged: u64,
    /// Others of label ŷ that they were compared with.
    pub others: u64,
    /// Over these pixels the smallest share of the flagged that look alike (0 to 1).
    pub flagged_alike: f64,
    /// Over these pixels the largest share of the others that look like them (0 to 1).
    pub others_alike: f64,
    /// A picture of them beside the trace report: these pixels as the flagged have them, everything else in one grey. None where there are none.
    pub picture: Option<SharedPicture>,
}

/// A picture that lies beside the trace report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPicture {
    /// File name, relative to the job's folder; it holds the start of the digest.
    pub file: String,
    /// BLAKE3 of the file.
    pub digest: Digest,
}

/// What another rule flagged that was computed beside: for comparison, never for removal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside<Id = TrainId> {
    /// The rule.
    pub title: String,
    /// Its settings, in a few words.
    pub caption: String,
    /// What it flagged, strongest first.
    pub flagged: Vec<Id>,
}

/// Examples whose label may be wrong, for a person to look at: the guard is undecided on label errors, and removes nothing of this list by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Review<Id = TrainId> {
    /// Title.
    pub title: String,
    /// What one sees and how it is ranked, in whole sentences.
    pub caption: String,
    /// The most doubtful first, at most [`Self::MOST`].
    pub rows: Vec<Doubtful<Id>>,
}

impl<Id> Review<Id> {
    /// At most this many examples are listed.
    pub const MOST: usize = 20;

    fn named<To>(self, name: impl Fn(Id) -> To) -> Review<To> {
        let row = |row: Doubtful<Id>| Doubtful {
            id: name(row.id),
            label: row.label,
            probability: row.probability,
            suggested: row.suggested,
            suggested_probability: row.suggested_probability,
        };
        Review {
            title: self.title,
            caption: self.caption,
            rows: self.rows.into_iter().map(row).collect(),
        }
    }
}

/// An example of a [`Review`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doubtful<Id = TrainId> {
    /// Which.
    pub id: Id,
    /// Its label.
    pub label: String,
    /// Probability that the production model gives to that label.
    pub probability: f64,
    /// The label that it would rather give.
    pub suggested: String,
    /// Its probability.
    pub suggested_probability: f64,
}

/// A fact in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about.
    pub title: String,
    /// The fact.
    pub caption: String,
}
