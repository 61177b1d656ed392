//! What the model said before and after, and what the repair cost.

use super::{answers, chart, words};
use crate::cli::advice;
use crate::engine::CaseView;
use crate::policy::GateVerdict;
use delta_guard_contract::job::Prediction;
use maud::{Markup, html};

/// At most this many classes are shown at once.
const CLASSES: usize = 6;

/// How the models read the anomaly.
pub(super) fn readings(view: &CaseView) -> Markup {
    let certify = view.certify.as_ref();
    let before = certify.and_then(|certify| certify.anomalies_before.first()).or(view.prediction.as_ref());
    let after = certify.and_then(|certify| certify.anomalies_after.first());
    let wrong = words::wrong_label(view);
    let Some(before) = before else { return html! {} };
    html! {
        section {
            h2 { "What the model says about this picture" }
            div class="two" {
                div class="card" { (reading("Production model", before, wrong)) }
                @if let Some(after) = after { div class="card" { (reading("Candidate", after, wrong)) } }
            }
            @if let Some(read) = certify.and_then(|certify| certify.flagged.as_ref()) {
                h3 { "And about the flagged training pictures" }
                p class="intro" { (answers::read_otherwise(read)) " What it reads them as is often what they should have been labelled." }
                @if !read.read_as.is_empty() {
                    div class="card reading" {
                        @for (label, count) in &read.read_as {
                            span class="name" { (label) }
                            (chart::bar(*count as f64 / read.examples.max(1) as f64, if Some(label.as_str()) == wrong { "hot" } else { "" }))
                            span { (words::thousands(*count)) }
                        }
                    }
                }
            }
        }
    }
}

fn reading(title: &str, prediction: &Prediction, wrong: Option<&str>) -> Markup {
    html! {
        h3 style="margin-top:0" { (title) ": “" (prediction.label) "”" }
        div class="reading" {
            @for (label, probability) in prediction.top.iter().take(5) {
                span class="name" { (label) }
                (chart::bar(*probability, if Some(label.as_str()) == wrong { "hot" } else { "" }))
                span { (words::percent(*probability)) }
            }
        }
    }
}

/// At most this many earlier cases are named.
const EARLIER: usize = 12;

/// What the candidate was not trained on: what this case flagged, and what earlier repairs took out.
pub(super) fn left_out(view: &CaseView) -> Markup {
    let Some(left_out) = words::left_out(view) else { return html! {} };
    let more = view.earlier.len().saturating_sub(EARLIER);
    html! {
        section id="left-out" {
            h2 { "Left out of this retraining" }
            div class="card scroll" {
                table {
                    tbody {
                        tr { td { "by this case" } td class="n" { (words::thousands(left_out.own)) } td {} }
                        tr {
                            td { "by earlier repairs" }
                            td class="n" { (words::thousands(left_out.earlier)) }
                            td class="wide" {
                                @if left_out.earlier == 0 { "none was promoted or approved before" }
                                @for (n, earlier) in view.earlier.iter().take(EARLIER).enumerate() {
                                    @if n > 0 { ", " }
                                    code { (earlier.case.short()) } " (" (words::thousands(earlier.count)) ")"
                                }
                                @if more > 0 { ", and " (more) " more cases" }
                            }
                        }
                        tr { td { b { "in all" } } td class="n" { b { (words::thousands(left_out.all)) } } td { @if left_out.both() > 0 { (words::thousands(left_out.both())) " of them by both" } } }
                    }
                }
            }
            @if left_out.earlier > 0 {
                p class="soft" {
                    "What promoted and approved repairs took out stays out of every later one. "
                    (advice::complete("`delta-guard excluded` lists it.", view.config.as_deref()))
                }
            }
        }
    }
}

/// Accuracy before and after, the classes that lost most, and the gate's word.
pub(super) fn before_and_after(view: &CaseView) -> Markup {
    let Some(certify) = &view.certify else { return html! {} };
    let changes = words::class_changes(&certify.before, &certify.after);
    let (first, rest) = changes.split_at(changes.len().min(CLASSES));
    let paired = certify.paired.as_ref();
    let changed = |name: &str| paired.map(|paired| paired.classes.get(name).copied().unwrap_or_default());
    let row = |name: Markup, before: f64, after: f64, changed: Option<(u64, u64)>| cost_row(&name, before, after, changed);
    let table = |rows: Markup| cost_table(&rows, paired.is_some());
    html! {
        section {
            h2 { "What the repair costs" }
            p class="intro" { "Both models on the same " (words::thousands(certify.after.examples)) " clean validation pictures." @if let Some(paired) = paired { " Of these, " (words::lost_and_won(paired)) "." } }
            div class="card" {
                (table(html! {
                    (row(html! { b { "All classes" } }, certify.before.share(), certify.after.share(), paired.map(|paired| (paired.lost, paired.won))))
                    @for (name, before, after) in first { (row(html! { (name) }, *before, *after, changed(name))) }
                }))
                @if !rest.is_empty() {
                    details { summary { (rest.len()) " more classes" } (table(html! { @for (name, before, after) in rest { (row(html! { (name) }, *before, *after, changed(name))) } })) }
                }
            }
            @if let Some(gate) = &view.gate {
                h3 { "Gate: " (gate_word(gate)) }
                @if !gate.doubts.is_empty() { ul class="reasons" { @for doubt in &gate.doubts { li { (doubt) } } } }
                @if !gate.reasons.is_empty() { ul class="reasons" { @for reason in &gate.reasons { li { (reason) } } } }
                @if !gate.notes.is_empty() { ul class="reasons soft" { @for note in &gate.notes { li { (note) } } } }
            }
            @if let Some(unlearn) = &view.unlearn {
                p class="soft" {
                    @match &unlearn.made {
                        Some(made) => { "Candidate made by " code { (made.method) } " (" (made.about) ") with " }
                        None => { "Candidate trained on " }
                    }
                    (words::thousands(unlearn.examples)) " examples in " (words::seconds(unlearn.seconds))
                    "; on these its loss was " (format!("{:.3}", unlearn.train_loss)) ", its accuracy " (words::percent(unlearn.train_accuracy)) "."
                }
            }
        }
    }
}

/// At most this many examples of a group are named.
const NAMED: usize = 12;

/// What stood out when the anomaly was traced on the candidates.
pub(super) fn regrown(view: &CaseView) -> Markup {
    if view.regrown.is_empty() {
        return html! {};
    }
    html! {
        section id="regrown" {
            h2 { "Does it grow back?" }
            p class="intro" { "The picture was traced on the candidate, too: what is left of a group that was not found whole stands out there." }
            ul class="reasons" {
                @for (sentence, (_, more)) in view.regrowth().into_iter().zip(&view.regrown) {
                    li {
                        (sentence)
                        @if !more.is_empty() { " They begin with " @for (n, example) in more.iter().take(NAMED).enumerate() { @if n > 0 { ", " } code { (example.id) } } "." }
                    }
                }
            }
        }
    }
}

/// A row of what the repair costs: shares before and after; of older workers' answers without what was lost and won.
fn cost_row(name: &Markup, before: f64, after: f64, changed: Option<(u64, u64)>) -> Markup {
    let class = if after < before - 0.0005 {
        "n down"
    } else if after > before + 0.0005 {
        "n up"
    } else {
        "n"
    };
    html! {
        tr {
            td { (name) } td class="n" { (words::percent(before)) } td class="n" { (words::percent(after)) } td class=(class) { (words::points(before, after)) }
            @if let Some((lost, won)) = changed { td class="n" { (words::thousands(lost)) } td class="n" { (words::thousands(won)) } }
        }
    }
}

fn cost_table(rows: &Markup, paired: bool) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th { "" } th class="n" { "production" } th class="n" { "candidate" } th class="n" { "change" }
                        @if paired { th class="n" { "lost" } th class="n" { "won" } }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

fn gate_word(gate: &GateVerdict) -> Markup {
    let (class, word) = match (gate.pass, gate.doubts.is_empty()) {
        (true, true) => ("tag good", "passed"),
        (true, false) => ("tag attention", "passed, with a doubt"),
        (false, _) => ("tag bad", "not passed"),
    };
    html! { span class=(class) { (word) } }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::case::StandingUse;
    use crate::engine::Earlier;
    use crate::report::{page, tests::repaired};
    use delta_guard_contract::Digest;
    use delta_guard_contract::job::Paired;

    /// The rows of the table, as text.
    fn rows(view: &CaseView) -> Vec<String> {
        let page = page(view);
        let section = page
            .split("id=\"left-out\"")
            .nth(1)
            .map_or("", |rest| rest.split("</table>").next().unwrap());
        let plain = |row: &str| {
            let text: String = row
                .split('<')
                .map(|part| part.split_once('>').map_or(part, |(_, text)| text))
                .collect::<Vec<_>>()
                .join(" ");
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        section.split("<tr>").skip(1).map(plain).collect()
    }

    /// Where a person decides, a cap stops nothing: it is said, in report and mail.
    #[test]
    fn a_repair_beyond_the_caps_is_told_to_who_decides() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        let told = |view: &CaseView| page(view).contains("without a person's word the guard may take out");
        assert!(!told(&view), "nothing is known of the caps");
        view.settings = serde_json::json!({"caps": crate::policy::Caps::default()});
        let page = page(&view);
        assert!(page.contains("150 of 5,000 training examples (3.00 %)") && page.contains("may take out 5 (0.10 %, caps.max_case_share)"));
        let mail: crate::config::file::Mail =
            serde_json::from_value(serde_json::json!({"host": "localhost", "from": "guard@example.org", "to": ["a@example.org"]})).unwrap();
        let content: crate::alert::Content = serde_json::from_value(crate::alert::messages(&mail, &view)[0].content.clone()).unwrap();
        assert!(content.raw.replace("=\r\n", "").contains("caps.max_case_share"), "{}", content.raw);
        view.state = crate::case::State::Promoted;
        assert!(!told(&view), "somebody let it pass");
        view.state = crate::case::State::Proposed;
        view.settings = serde_json::json!({"caps": {"max_case_share": 0.05, "max_day_share": 0.05, "max_total_share": 0.05, "max_class_share": 0.5}});
        assert!(!told(&view));
    }

    /// What is lost and won stands in the table, what it means in words; a doubt is met on the first screen and in the mail.
    #[test]
    fn chance_and_doubts_are_told_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        assert!(
            !page(&view).contains(">lost<") && page(&view).contains("tag good\">passed<"),
            "an older worker's answer"
        );
        let class = view.certify.as_ref().unwrap().before.classes.keys().next().unwrap().clone();
        view.certify.as_mut().unwrap().paired = Some(Paired {
            lost: 15,
            won: 5,
            classes: [(class, (7, 3))].into(),
        });
        let doubt = "accuracy of class \"rare\" dropped by 100.00 percentage points";
        view.gate.as_mut().unwrap().doubts = vec![doubt.into()];
        let page = page(&view);
        let said = "15 read rightly before are read wrongly now, 5 the other way round; chance alone loses as many of them in 21 of 1,000 measurements (p = 0.02).";
        assert!(page.contains(said), "{page}");
        for cells in [
            "<th class=\"n\">lost</th><th class=\"n\">won</th>",
            "<td class=\"n\">15</td><td class=\"n\">5</td>",
            "<td class=\"n\">7</td><td class=\"n\">3</td>",
            "<td class=\"n\">0</td><td class=\"n\">0</td>",
        ] {
            assert!(page.contains(cells), "{cells}");
        }
        assert!(page.contains("tag attention\">passed, with a doubt<"));
        let head = words::headline(&view);
        assert!(head.meaning.contains(doubt) && head.tone == words::Tone::Attention, "{}", head.meaning);
        let mail: crate::config::file::Mail =
            serde_json::from_value(serde_json::json!({"host": "localhost", "from": "guard@example.org", "to": ["a@example.org"]})).unwrap();
        let content: crate::alert::Content = serde_json::from_value(crate::alert::messages(&mail, &view)[0].content.clone()).unwrap();
        assert!(
            content.raw.replace("=\r\n", "").contains("dropped by 100.00 percentage points"),
            "{}",
            content.raw
        );
        // What is won more often than lost needs no probability.
        view.certify.as_mut().unwrap().paired.as_mut().unwrap().won = 15;
        assert!(!super::super::page(&view).contains("measurements (p"));
    }

    /// Both groups: the one that was removed and the one that stands out on the candidate.
    #[test]
    fn what_grows_back_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        assert!(!page(&view).contains("id=\"regrown\""), "it was not looked for");
        let example = view.trace.as_ref().unwrap().flagged[0].clone();
        let more: Vec<_> = (0..15)
            .map(|n| delta_guard_contract::Flagged {
                id: delta_guard_contract::TrainId(format!("dog/<new>-{n}.png")),
                ..example.clone()
            })
            .collect();
        let found = crate::case::Regrowth {
            flagged: 165,
            removed: 150,
            more: None,
            count: 15,
            again: true,
        };
        view.regrown = vec![(found, more)];
        let page = page(&view);
        let section = page.split("id=\"regrown\"").nth(1).unwrap().split("</section>").next().unwrap();
        assert!(
            section.contains("150 of them were removed before, the other 15 were removed, too"),
            "{section}"
        );
        assert_eq!(section.matches("<code>dog/&lt;new&gt;-").count(), NAMED, "{section}");
    }

    #[test]
    fn what_this_case_and_earlier_ones_left_out_is_counted_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        assert_eq!(
            rows(&view),
            [
                "by this case 150",
                "by earlier repairs 0 none was promoted or approved before",
                "in all 150"
            ]
        );
        // 5,000 examples, 4,780 of them trained on: 150 and 80, ten of them flagged by both.
        let earlier = |letter: &str, count| Earlier {
            case: Digest(letter.repeat(64)),
            count,
        };
        view.standing = Some(StandingUse {
            digest: Digest("d".repeat(64)),
            count: 80,
        });
        view.earlier = vec![earlier("a", 60), earlier("b", 20)];
        view.unlearn.as_mut().unwrap().examples = 4780;
        assert_eq!(
            rows(&view),
            [
                "by this case 150",
                "by earlier repairs 80 aaaaaaaaaaaa (60), bbbbbbbbbbbb (20)",
                "in all 220 10 of them by both"
            ]
        );
        // Many are counted, not listed; a case of an older version does not say which.
        view.earlier = (0..15).map(|n| earlier(&format!("{n:x}"), 1)).collect();
        assert!(rows(&view)[1].ends_with("and 3 more cases"), "{:?}", rows(&view));
        view.earlier.clear();
        assert_eq!(rows(&view)[1], "by earlier repairs 80");
        // A person's own checkpoint was trained elsewhere.
        view.given = true;
        assert_eq!(rows(&view), [""; 0]);
    }
}
