use super::*;

fn drawn(examples: u64, flagged: u64) -> Drawn {
    Drawn { examples, flagged }
}

/// Of one label: N examples, K of them flagged, n of the source, k of them flagged.
fn one(n_all: u64, k_all: u64, n: u64, k: u64) -> f64 {
    tail(&BTreeMap::from([(0, drawn(n, k))]), &BTreeMap::from([(0, drawn(n_all, k_all))]), k)
}

fn close(got: f64, wanted: f64, what: &str) {
    assert!((got / wanted - 1.0).abs() < 1e-8, "{what}: {got} instead of {wanted}");
}

/// `scipy.stats.hypergeom.sf(k - 1, N, K, n)` of scipy 1.17.1.
#[test]
fn the_tail_is_scipys() {
    for (case, wanted) in [
        ([50, 10, 7, 3], 0.13262010884582578),
        ([1_000, 150, 40, 12], 0.010422652920128051),
        ([5_000, 150, 1_000, 30], 0.5335362470983516),
        ([5_000, 150, 1_000, 90], 1.0182538338129064e-27),
        ([650, 150, 60, 58], 5.695543278704729e-39),
        ([50_000, 500, 2_000, 200], 1.0721635380263335e-144),
        ([1_000_000, 100, 1_000, 1], 0.0952123363754518),
        ([1_000_000, 5_000, 20_000, 160], 1.2878861730280501e-08),
        ([20, 5, 20, 5], 1.0),
        ([30, 29, 10, 9], 1.0),
    ] {
        let [n_all, k_all, n, k] = case;
        close(one(n_all, k_all, n, k), wanted, &format!("{case:?}"));
    }
    assert_eq!(one(100, 5, 10, 0), 1.0);
    assert_eq!(one(10, 10, 4, 4), 1.0, "all are flagged: no source can stand out");
}

/// `numpy.convolve` of `scipy.stats.hypergeom.pmf`, two labels.
#[test]
fn several_labels_are_drawn_each_for_itself() {
    let all = BTreeMap::from([(2, drawn(600, 40)), (7, drawn(300, 9))]);
    for (own, k, wanted) in [
        ([60, 30], 8, 0.10525323544421271),
        ([60, 30], 15, 2.8133625397649114e-05),
        ([300, 10], 30, 0.0013687052596996138),
        ([10, 290], 9, 0.8554968786237129),
        ([10, 290], 12, 0.018075940771926736),
        ([1, 1], 2, 0.002),
    ] {
        let own = BTreeMap::from([(2, drawn(own[0], 0)), (7, drawn(own[1], 0))]);
        close(tail(&own, &all, k), wanted, &format!("{own:?}, {k}"));
    }
    // A source that has all of a label is no wonder if that label was flagged.
    let own = BTreeMap::from([(2, drawn(600, 40))]);
    assert_eq!(tail(&own, &all, 40), 1.0);
}

#[test]
fn what_is_expected_follows_the_labels() {
    let all = BTreeMap::from([(2, drawn(600, 40)), (7, drawn(300, 9))]);
    let of_source = BTreeMap::from([
        ("one label", BTreeMap::from([(2, drawn(60, 8))])),
        ("both", BTreeMap::from([(2, drawn(540, 32)), (7, drawn(300, 9))])),
    ]);
    let found = table(&all, &of_source);
    let row = |name: &str| found.rows.iter().find(|row| row.source == name).unwrap();
    assert_eq!((row("one label").expected, row("one label").examples), (4.0, 60));
    assert_eq!((row("both").expected, row("both").flagged), (45.0, 41));
    assert!(row("one label").p < 0.05 && row("both").p > 0.9);
}

fn sets(sources: &[(&'static str, u64, u64)]) -> Sources {
    let of_source: BTreeMap<&str, ByLabel> = sources.iter().map(|(name, n, k)| (*name, BTreeMap::from([(0, drawn(*n, *k))]))).collect();
    let sum = |f: fn(&(&str, u64, u64)) -> u64| sources.iter().map(f).sum();
    table(&BTreeMap::from([(0, drawn(sum(|s| s.1), sum(|s| s.2)))]), &of_source)
}

/// Holm's correction as `statsmodels.stats.multitest.multipletests(method="holm")` computes it.
#[test]
fn rows_are_sorted_and_corrected() {
    let found = sets(&[("a", 100, 3), ("b", 100, 20), ("c", 100, 1), ("d", 200, 6), ("", 50, 0)]);
    let names: Vec<&str> = found.rows.iter().map(|row| row.source.as_str()).collect();
    assert_eq!(names, ["b", "a", "d", "c", ""]);
    let p: Vec<f64> = found.rows.iter().map(|row| row.p).collect();
    close(found.rows[0].corrected, 5.0 * p[0], "the smallest");
    assert!(
        found
            .rows
            .windows(2)
            .all(|two| two[0].corrected <= two[1].corrected && two[0].p <= two[1].p)
    );
    assert!(found.rows[1..].iter().all(|row| row.corrected == 1.0));
    close(found.rows[0].expected, 30.0 * 100.0 / 550.0, "expected");
    assert!((found.rows.iter().map(|row| row.expected).sum::<f64>() - 30.0).abs() < 1e-9);
    assert!(
        found
            .caption
            .starts_with("20 of 30 come from “b”, where 5.5 would be expected (p = 9e-9, corrected for 5 sources). That is far beyond"),
        "{}",
        found.caption
    );
    let mut rows: Vec<SourceRow> = [0.01, 0.012, 0.02, 0.5]
        .into_iter()
        .map(|p| SourceRow { p, ..SourceRow::default() })
        .collect();
    correct(&mut rows);
    assert_eq!(
        rows.iter().map(|row| (row.corrected * 1e6).round() / 1e6).collect::<Vec<_>>(),
        [0.04, 0.04, 0.04, 0.5]
    );
}

#[test]
fn words_say_how_surprising_it_is() {
    let none = sets(&[("a", 100, 5), ("b", 100, 6)]);
    assert!(none.caption.starts_with("No source stands out: each of the 2 "), "{}", none.caption);
    let little = sets(&[("a", 100, 10), ("b", 100, 1)]);
    assert!(little.caption.contains("but not by much"), "{}", little.caption);
    let two = sets(&[("a", 50, 20), ("b", 50, 20), ("c", 900, 0)]);
    assert!(two.caption.contains("“b” stands out, too"), "{}", two.caption);
    assert_eq!([0.0, 2.4e-9, 0.0123].map(probability), ["p below 1e-300", "p = 2e-9", "p = 0.012"]);
    let unsaid = sets(&[("", 50, 20), ("c", 900, 0)]);
    assert!(unsaid.caption.contains("examples whose source is not said"), "{}", unsaid.caption);
}

#[test]
fn many_sources_are_counted_not_listed() {
    let names: Vec<String> = (0..500).map(|n| format!("s{n:03}")).collect();
    let many: Vec<(&'static str, u64, u64)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (&*name.clone().leak(), 20, u64::from(n < 30)))
        .collect();
    let found = sets(&many);
    assert_eq!((found.rows.len(), found.further, found.further_flagged), (Sources::MOST, 480, 10));
}
