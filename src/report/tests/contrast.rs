//! Colours of the page.

use crate::report::STYLE;
use std::collections::BTreeMap;

/// WCAG 2.1: relative luminance of `#rgb` or `#rrggbb`.
fn luminance(colour: &str) -> f64 {
    let digits = colour.trim_start_matches('#');
    let digits: String = if digits.len() == 3 {
        digits.chars().flat_map(|c| [c, c]).collect()
    } else {
        digits.into()
    };
    let channel = |i: usize| {
        let value = f64::from(u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2)
}

/// WCAG 2.1: contrast ratio, 1 to 21.
fn contrast(a: &str, b: &str) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn every_text_has_enough_contrast_in_light_dark_and_print() {
    assert!((contrast("#fff", "#000") - 21.0).abs() < 1e-9 && (contrast("#777", "#fff") - 4.48).abs() < 0.01);
    let palettes: Vec<BTreeMap<&str, &str>> = STYLE
        .split(":root{")
        .skip(1)
        .map(|palette| {
            let inner = palette.split('}').next().unwrap();
            inner
                .split(';')
                .filter_map(|pair| pair.split_once(':'))
                .filter(|(_, value)| value.starts_with('#'))
                .collect()
        })
        .collect();
    assert_eq!(palettes.len(), 3, "light, dark, print");
    for own in &palettes {
        // What print leaves out is as in light.
        let colour = |name: &str| *own.get(name).or_else(|| palettes[0].get(name)).unwrap();
        for (text, ground) in [
            ("--ink", "--paper"),
            ("--ink", "--card"),
            ("--ink", "--code"),
            ("--soft", "--paper"),
            ("--soft", "--card"),
            ("--soft", "--code"),
            ("--flag", "--card"),
            ("--good", "--good-soft"),
            ("--good", "--card"),
            ("--warn", "--warn-soft"),
            ("--bad", "--bad-soft"),
            ("--bad", "--card"),
            ("--quiet", "--quiet-soft"),
        ] {
            let ratio = contrast(colour(text), colour(ground));
            assert!(ratio >= 4.5, "{text} {} on {ground} {}: {ratio:.2}", colour(text), colour(ground));
        }
        // What charts are drawn in: WCAG 1.4.11 asks for 3.
        for mark in ["--flag", "--other", "--third", "--fourth", "--soft"] {
            let ratio = contrast(colour(mark), colour("--card"));
            assert!(ratio >= 3.0, "{mark} {}: {ratio:.2}", colour(mark));
        }
    }
}

/// Every colour that a chart or a legend asks for is one of the page's, in each of its palettes.
#[test]
fn every_series_has_a_colour() {
    for series in 0..6 {
        let class = crate::report::chart::colour(series);
        let rule = STYLE
            .split(&format!(".{class}{{--series:var("))
            .nth(1)
            .unwrap_or_else(|| panic!("{class} has no colour"));
        let name = rule.split(')').next().unwrap();
        assert_eq!(STYLE.matches(&format!("{name}:#")).count(), 2, "{name} in light and dark");
    }
}
