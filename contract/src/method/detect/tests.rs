use super::*;
use crate::method::{Keys as Settings, Mistake, changed};
use serde_json::{from_value, json, to_value};

fn read(value: Value) -> Result<DetectConfig, String> {
    from_value(value).map_err(|error| error.to_string())
}

#[test]
fn a_key_that_is_left_out_has_its_methods_own_default() {
    for name in Detector::NAMES {
        let read = read(json!({ "method": name })).unwrap();
        assert_eq!(read.method, Detector::named(name).unwrap());
        assert_eq!(from_value::<DetectConfig>(to_value(&read).unwrap()).unwrap(), read);
    }
    let few = read(json!({"method": "paper-code", "queries": 9})).unwrap();
    assert_eq!(few.method, changed(&Detector::named("paper-code").unwrap(), "queries", json!(9)).unwrap());
    let delta = |name: &str| to_value(Detector::named(name).unwrap()).unwrap();
    let shown = |name: &str| ["n_tol", "objective", "space", "labels", "fit_examples", "rotation"].map(|key| delta(name)[key].clone());
    let [guard, code, text] = ["guard", "paper-code", "paper-text"].map(shown);
    assert_eq!(
        guard,
        [
            json!(1),
            json!("margin"),
            json!("pixels"),
            json!("independent"),
            json!(1000),
            json!(false)
        ]
    );
    assert_eq!(
        code,
        [
            json!(2),
            json!("margin"),
            json!("normalised"),
            json!("by-classes"),
            json!(0),
            json!(false)
        ]
    );
    assert_eq!(
        text,
        [json!(1), json!("loss"), json!("pixels"), json!("independent"), json!(0), json!(true)]
    );
}

#[test]
fn a_method_has_no_key_of_another_one() {
    let said = read(json!({"method": "paper-code", "placebos": 3})).unwrap_err();
    assert!(said.contains("paper-code: unknown field `placebos`"), "{said}");
    let said = read(json!({"mode": "guard"})).unwrap_err();
    assert_eq!(said, "there is no key `mode` any more: it is called `method`");
}

/// Every rule, of every method that has the key.
#[test]
fn what_makes_no_sense_is_a_mistake_at_its_key() {
    let bad = [
        ("queries", json!(0), "queries"),
        ("n_tol", json!(50), "n_tol"),
        ("n_tol", json!(51), "n_tol"),
        ("damping", json!({"kind": "absolute", "value": 0.0}), "damping.value"),
        ("damping", json!({"kind": "heuristic", "factor": -1.0}), "damping.factor"),
        ("alpha", json!(0.0), "alpha"),
        ("alpha", json!(1.0), "alpha"),
        ("chance", json!(0.0), "chance"),
        ("seeds", json!(0), "seeds"),
        ("rounds", json!(0), "rounds"),
        ("placebos", json!(0), "placebos"),
        ("dimensions", json!(0), "dimensions"),
        ("starts", json!(0), "starts"),
        ("max_share", json!(0.0), "max_share"),
        ("max_share", json!(1.01), "max_share"),
        ("min_silhouette", json!(1.0), "min_silhouette"),
        ("epsilon", json!(0.0), "epsilon"),
        ("epsilon", json!(0.667), "epsilon"),
        ("spectral_threshold", json!(-0.1), "spectral_threshold"),
        ("contribution_threshold", json!(-0.1), "contribution_threshold"),
        ("neighbours", json!(0), "neighbours"),
        ("count", json!(0), "count"),
        ("probability", json!(1.1), "probability"),
        ("mean", json!([0.1, 0.2]), "mean"),
        ("std", json!([0.1, 0.2, 0.0]), "std"),
        ("std", json!([0.1]), "std"),
    ];
    let mut met = vec![0; bad.len()];
    for name in Detector::NAMES {
        let method = Detector::named(name).unwrap();
        // What has no default must be said.
        let unsaid: &[&str] = if name == &"frequency" { &["weights"] } else { &[] };
        assert_eq!(
            method.check().iter().map(|mistake| mistake.key.as_str()).collect::<Vec<_>>(),
            unsaid,
            "{name}: its defaults"
        );
        let method = changed(&method, "weights", json!("w.safetensors")).unwrap_or(method);
        for ((key, value, at), met) in bad.iter().zip(&mut met) {
            let Ok(wrong) = changed(&method, key, value.clone()) else { continue };
            let found = wrong.check();
            let keys: Vec<&str> = found.iter().map(|mistake: &Mistake| mistake.key.as_str()).collect();
            assert_eq!(keys, [*at], "{name}, {key}: {value}");
            assert!(!found[0].what.is_empty() && !found[0].help.is_empty());
            *met += 1;
        }
    }
    assert!(met.iter().all(|&times| times > 0), "a rule of no method's key: {met:?}");
    assert_eq!(met[1..3], [3; 2], "guard and the paper's rules have n_tol");
    assert_eq!(met[..1], [4], "queries: they, and the guard without curvature");
    assert_eq!(met[3..5], [4; 2], "damping: they, and the threshold of influence");
    for value in [f64::NAN, f64::INFINITY] {
        let delta = Delta {
            tau: value,
            ..Delta::default()
        };
        assert_eq!(delta.check().len(), 1);
        let keys = guard::Keys {
            alpha: value,
            chance: value,
            feature_weight: value,
            feature_damping: value,
            collect: value,
            ..guard::Keys::default()
        };
        assert_eq!(Method::check(&Detector::Guard(keys)).len(), 5);
        let keys = ekfac_threshold::Keys {
            threshold: value,
            ..ekfac_threshold::Keys::default()
        };
        assert_eq!(Settings::check(&keys)[0].key, "threshold");
    }
}

#[test]
fn a_file_that_a_detector_names_is_told() {
    let mut read = read(json!({"method": "frequency", "weights": "w.safetensors"})).unwrap();
    assert_eq!(read.method.files(), [std::path::Path::new("w.safetensors")]);
    assert!(DetectConfig::default().method.files().is_empty());
}

/// The same steps, and nothing that only curvature has.
#[test]
fn the_guard_without_curvature_has_the_guards_defaults() {
    let keys = gradient_cosine::Keys::default();
    // A rival as it is known: by gradients alone, at the strict cut alone.
    let alone = guard::Keys {
        feature_weight: 0.0,
        collect: 0.0,
        ..guard::Keys::default()
    };
    assert_eq!(keys.as_guard(), alone);
    let needs = keys.needs();
    assert!(needs.factors.is_none() && needs.influence().is_some());
    assert_eq!(needs.validation, guard::Keys::default().needs().validation);
    let one = gradient_cosine::Keys { queries: 1, ..keys };
    assert_eq!(Settings::check(&one), [], "n_tol is no key of it");
}

#[test]
fn examples_have_the_margin_where_only_directions_count() {
    let of = |method: &str, tau: f64| {
        let method = changed(&Detector::named(method).unwrap(), "tau", json!(tau)).unwrap();
        method.own().needs().factors.unwrap().of_examples
    };
    assert_eq!((of("guard", 0.0), of("guard", -1.0)), (Objective::Margin, Objective::Loss));
    assert_eq!((of("paper-code", 0.0), of("paper-text", 0.0)), (Objective::Loss, Objective::Loss));
}

#[test]
fn only_what_abstains_may_unlearn_unless_the_owner_says_so() {
    assert!(may_unlearn("guard", None) && !may_unlearn("guard", Some(false)));
    for name in Detector::NAMES.iter().filter(|name| **name != "guard") {
        assert!(!may_unlearn(name, None) && may_unlearn(name, Some(true)), "{name}");
    }
    assert!(!may_unlearn("no longer there", None));
    assert_eq!(DetectConfig::default().resolved().common.allow_unlearn, Some(true));
}

#[test]
fn reports_of_the_first_version_are_read() {
    #[derive(Deserialize)]
    struct Report {
        #[serde(deserialize_with = "of_any_version")]
        settings: DetectConfig,
    }
    let read = |settings: Value| from_value::<Report>(json!({ "settings": settings })).map(|report| report.settings);
    let old = json!({"mode": "paper-code", "queries": 8, "labels": "distinct", "seeds": 20, "plain": true, "allow_unlearn": false});
    let new = read(old).unwrap();
    assert_eq!((new.method.name(), new.common.allow_unlearn), ("paper-code", Some(false)));
    let Detector::PaperCode(keys) = new.method else {
        panic!("another method")
    };
    assert_eq!((keys.delta.queries, keys.delta.labels), (8, Labels::Distinct));
    let now = DetectConfig::default().resolved();
    assert_eq!(read(to_value(&now).unwrap()).unwrap(), now);
    assert!(read(json!({"method": "paper-code", "seeds": 3})).is_err());
}
