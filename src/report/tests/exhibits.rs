//! The page of a guard case says what it always said, and that of a detector that nobody here knows shows its exhibits all the same.

use super::*;
use delta_guard_contract::finding::{
    Beside, Column, Doubtful, Histogram, Note, Point, Points, Review, Row, Scatter, Series, SourceRow, Sources, Strip, Table,
};

/// Every sentence that a page of the first version had of the guard's evidence.
#[test]
fn a_guards_page_says_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(&repaired(folder.path()));
    for sentence in [
        "How sure: clear",
        "The group acts on this picture 6.8 standard deviations more than the rest of its class does (z).",
        "The same steps were run on 20 clean pictures of the class: the strongest of them reached ",
        "150 training examples with the label “dog” taught the model the same thing, and their influence on this picture falls when it is changed.",
        "The bar and the number are κ: how much an example’s effect on the model is like that of the seeds.",
        "If an example taught the model this error, its influence must fall when picture and label are changed. Each group is drawn as shares of itself",
        "mean change of influence Δ, scaled by the example’s own influence",
        "flagged (148)",
        "others (496)",
        "Against 20 placebos",
        "The same steps were run on clean, correctly read pictures of the same class. A real cause must beat them all; where it does not, the guard abstains.",
        "how far the group stands apart from its class",
        "how strongly it acts on this very picture",
        "5 of 20 placebos flagged nothing",
        "κ &gt; 0.2140 by 180 clean validation pictures of the class, 2 rounds",
        "#1 · κ 0.72",
        "dog/01000.png – label dog, rank 1, fell in 50, Δ −0.900, κ 0.720, seed",
    ] {
        assert!(page.contains(sentence), "{sentence} is not on the page");
    }
    assert!(
        page.contains("dog/01740.png – label dog, rank 21, fell in 50, Δ −0.820, κ 0.674\""),
        "the 21st is no seed"
    );
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// A detector that nobody knows: other names, other figures, every kind of exhibit.
pub(crate) fn foreign(folder: &Path) -> CaseView {
    let mut view = repaired(folder);
    let trace = view.trace.as_mut().unwrap();
    trace.flagged.truncate(30);
    for (i, example) in trace.flagged.iter_mut().enumerate() {
        example.score = 12.5 - i as f64 / 4.0;
    }
    trace.words = Words {
        called: "the cluster finder".into(),
        score: "silhouette".into(),
        score_meaning: "how well an example fits into the smaller cluster".into(),
        score_decimals: 1,
        flagged: "lie in a cluster of their own".into(),
        caution: String::new(),
    };
    trace.sure = Some(Sure {
        how: HowSure::FairlyClear,
        sentence: "Two clusters describe the class better than one.".into(),
    });
    let points = |name: &str, n: usize, x: f64| Points {
        name: name.into(),
        points: (0..n)
            .map(|i| Point {
                x: x + (i as f64 * 1.7).sin(),
                y: (i as f64 * 2.3).cos() * x / 2.0,
                id: (x > 2.0).then(|| TrainId(format!("point-{i}"))),
            })
            .collect(),
    };
    let series = |name: &str, counts: [u64; 4]| Series {
        name: name.into(),
        counts: counts.into(),
    };
    let column = |key: &str, name: &str, meaning: &str, decimals: u8| Column {
        key: key.into(),
        name: name.into(),
        meaning: meaning.into(),
        decimals,
    };
    trace.exhibits = vec![
        Exhibit::Scatter(Scatter {
            title: text("Two clusters"),
            caption: text("Each point is a picture of the class."),
            x: text("first component"),
            y: text("second component"),
            series: vec![
                points("smaller cluster", 30, 4.0),
                points("larger cluster", 200, 1.0),
                points("left out", 9, -2.0),
                points("odd", 5, -4.0),
            ],
        }),
        Exhibit::Histogram(Histogram {
            title: text("Distance to the centre"),
            caption: text("Those of the smaller cluster lie far away."),
            axis: text("distance"),
            edges: vec![0.0, 1.0, 2.0, 3.0, 4.0],
            series: vec![
                series("smaller", [0, 1, 9, 20]),
                series("larger", [120, 70, 10, 0]),
                series("left out", [1, 3, 5, 0]),
            ],
        }),
        Exhibit::Strip(Strip {
            title: text("Beside other classes"),
            caption: text("The same measure of every class."),
            pass: text("Above 0.6 nothing natural was ever seen."),
            others: text("other classes"),
            rows: vec![Row {
                name: text("silhouette"),
                meaning: text("how well two clusters fit"),
                own: Some(0.83),
                others: vec![0.2, 0.31, 0.4],
                remark: text("1 of 4 classes is too small"),
            }],
        }),
        Exhibit::Table(Table {
            title: text("All of them"),
            caption: text("What was seen of each."),
            columns: vec![
                column("cluster", "cluster", "the cluster's name", 0),
                column("distance", "distance", "to the centre", 2),
                column("edge", "edge", "does it lie at the edge", 0),
            ],
            rows: (0..30)
                .map(|i| vec![Cell::Text(text("B")), Cell::Number(3.25 + f64::from(i)), Cell::Yes(i == 2)])
                .collect(),
        }),
        Exhibit::Beside(Beside {
            title: text("k-means alone"),
            caption: text("k = 2"),
            flagged: vec![TrainId("a".into()), TrainId("b".into())],
        }),
        Exhibit::Review(Review {
            title: text("To look at"),
            caption: text("Some may be wrong."),
            rows: vec![Doubtful {
                id: TrainId("dog/7.png".into()),
                label: text("dog"),
                probability: 0.25,
                suggested: text("wolf"),
                suggested_probability: 0.625,
            }],
        }),
        Exhibit::Note(Note {
            title: text("components"),
            caption: text("10 of 512 kept"),
        }),
        Exhibit::Sources(Sources {
            title: text("Where they come from"),
            caption: text("20 of 30 come from one crawl."),
            rows: vec![source("crawl-3", 20, 4.25, 2.4e-9), source("", 10, 25.75, 1.0)],
            further: 480,
            further_flagged: 0,
        }),
    ];
    view
}

fn source(name: &str, flagged: u64, expected: f64, corrected: f64) -> SourceRow {
    SourceRow {
        source: name.into(),
        flagged,
        examples: 1200,
        expected,
        p: corrected / 2.0,
        corrected,
    }
}

#[test]
fn a_page_shows_a_detector_that_nobody_knows() {
    let folder = tempfile::tempdir().unwrap();
    let mut view = foreign(folder.path());
    let shown = page(&view);
    if let Some(path) = std::env::var_os("REPORT_OUT") {
        std::fs::write(Path::new(&path).join("foreign.html"), &shown).unwrap();
    }
    for said in [
        "How sure: fairly clear",
        "Two clusters describe the class better than one.",
        "30 training examples with the label “dog” lie in a cluster of their own.",
        "The bar and the number are silhouette: how well an example fits into the smaller cluster.",
        "#1 · silhouette 12.5",
        "dog/01000.png – label dog, rank 1, cluster B, distance 3.25",
        "rank 3, cluster B, distance 5.25, edge\"",
        "Two clusters",
        "Each point is a picture of the class.",
        "first component",
        "second component",
        "<title>point-7</title>",
        "smaller cluster (30)",
        "larger cluster (200)",
        "Distance to the centre",
        "left out (9)",
        "Above 0.6 nothing natural was ever seen.",
        "other classes",
        "1 of 4 classes is too small",
        "this case: 0.83",
        "All of them",
        "does it lie at the edge",
        "2 flagged with k = 2",
        "10 of 512 kept",
        "Where they come from",
        "<td><bdi>crawl-3</bdi></td><td class=\"n\">20</td><td class=\"n\">1,200</td><td class=\"n\">4.2</td><td class=\"n\">2e-9</td>",
        "<td>not said</td>",
        "480 further sources have 0 flagged examples in all.",
        "Some may be wrong.",
        "<bdi>dog/7.png</bdi>",
        "rather <bdi>wolf</bdi> 62.5 %",
    ] {
        assert!(shown.contains(said), "{said} is not on the page");
    }
    let points = |class: &str| shown.matches(&format!("class=\"dot {class}\" d=")).count();
    assert_eq!(["s0", "s1", "s2", "s3"].map(points), [30, 200, 9, 5]);
    let bins = |class: &str| shown.matches(&format!("class=\"bin {class}\"")).count();
    assert_eq!(["s0", "s1", "s2"].map(bins), [3, 3, 3], "a bar for every bin that counts something");
    // Nothing is left of the detectors that are known: their words would be untrue here.
    for foreign in ["κ", "Δ", "placebo", "seeds", "kin cut", "d′"] {
        let (before_settings, _) = shown.split_once("How this was made").unwrap();
        assert!(!before_settings.contains(foreign), "{foreign} is on the page");
    }
    // Where it abstains, its sentence and its exhibits are shown all the same.
    let trace = view.trace.as_mut().unwrap();
    trace.flagged.clear();
    trace.verdict = TraceVerdict::Undecided {
        why: Abstain::other("one-cluster", "the class is one cluster"),
    };
    (view.state, view.certify, view.gate, view.unlearn) = (State::Undecided, None, None, None);
    view.reason = "the class is one cluster".into();
    let shown = page(&view);
    assert!(shown.contains("The class is one cluster.") && shown.contains("Two clusters") && shown.contains("<path class=\"dot s0\""));
}

/// Every text becomes another one, but for the names of the exhibits' kinds.
fn replace_texts(value: &mut serde_json::Value, by: &str) {
    match value {
        serde_json::Value::String(text) => *text = by.into(),
        serde_json::Value::Array(list) => list.iter_mut().for_each(|value| replace_texts(value, by)),
        serde_json::Value::Object(map) => map
            .iter_mut()
            .filter(|(key, _)| *key != "exhibit")
            .for_each(|(_, value)| replace_texts(value, by)),
        _ => {}
    }
}

#[test]
fn what_a_detector_says_is_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "<img src=x onerror=alert(1)>\"'&</style></title>";
    let mut view = foreign(folder.path());
    let plain = page(&view);
    let trace = view.trace.as_mut().unwrap();
    trace.words = Words {
        called: evil.into(),
        score: evil.into(),
        score_meaning: evil.into(),
        score_decimals: 255,
        flagged: evil.into(),
        caution: evil.into(),
    };
    trace.sure.as_mut().unwrap().sentence = evil.into();
    let mut exhibits = serde_json::to_value(&trace.exhibits).unwrap();
    replace_texts(&mut exhibits, evil);
    trace.exhibits = serde_json::from_value(exhibits).unwrap();
    view.state = State::Observed;
    let page = page(&view);
    assert!(!page.contains("<img src=x"), "a text became markup");
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(page.matches("</title>").count(), plain.matches("</title>").count());
}

#[test]
fn a_table_that_does_not_fit_its_examples_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let mut view = foreign(folder.path());
    for exhibit in &mut view.trace.as_mut().unwrap().exhibits {
        match exhibit {
            Exhibit::Table(table) => {
                table.rows.truncate(3);
                table.rows[1].clear();
                table.columns.truncate(1);
            }
            Exhibit::Histogram(histogram) => drop(histogram.series[1].counts.pop()),
            _ => {}
        }
    }
    view.trace.as_mut().unwrap().flagged[0].rank = 0;
    let page = page(&view);
    assert!(page.contains("rank 2\"") && page.contains("rank 3, cluster B\"") && page.contains("rank 20\""));
    assert!(
        !page.contains("Distance to the centre"),
        "a histogram whose bins are not those of its edges is not drawn"
    );
}
