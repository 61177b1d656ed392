//! The page of an audit: what stands apart in each class, with pictures, for a person to look at.

use super::evidence::data_uri;
use super::exhibits::{pixels_said, sources_card};
use super::{page_head, words};
use delta_guard_contract::audit::{AuditGroup, AuditReport, ClassAudit};
use maud::{DOCTYPE, Markup, html};
use std::path::Path;

/// One page, complete in itself. `folder` holds the thumbnails.
pub fn page(report: &AuditReport, folder: &Path) -> String {
    let found = report.groups().count();
    html! {
        (DOCTYPE)
        html lang="en" {
            (page_head("Audit – delta-guard"))
            body {
                header {
                    div class="brand" { b { "delta-guard" } span { "audit" } }
                    h1 { (heading(found)) }
                    p class="intro" {
                        "Looked for: training examples of one label that taught the model something of their own, beyond what clean validation pictures of that class resemble. "
                        "No wrong prediction was given, and nothing was removed. A group may be poisoned, mislabelled, or simply pictures that are more alike than any in the validation set."
                    }
                }
                main {
                    @for (class, group) in report.groups() { (section(class, group, folder)) }
                    (classes(report))
                }
                footer { "Made by delta-guard " (env!("CARGO_PKG_VERSION")) ". Checkpoint " (report.checkpoint.short()) ", training set " (report.manifest.short()) ", seed " (report.seed) "." }
            }
        }
    }
    .into_string()
}

/// What was found, in a few words.
pub fn heading(groups: usize) -> String {
    match groups {
        0 => "No group of training examples stands apart".into(),
        1 => "One group of training examples stands apart".into(),
        n => format!("{n} groups of training examples stand apart"),
    }
}

fn section(class: &ClassAudit, group: &AuditGroup, folder: &Path) -> Markup {
    let shown = group.members.iter().filter(|member| member.thumbnail.is_some()).count();
    html! {
        section class="thumbs-section" {
            h2 { (words::thousands(group.members.len() as u64)) " of the " (words::thousands(class.examples)) " examples of " bdi { (class.label) } }
            p { (said(group)) }
            @if let Some(shared) = group.shared.as_ref().and_then(|shared| Some((shared, pixels_said(shared)?))) {
                div class="shared" {
                    @if let Some(uri) = data_uri(Some(folder), shared.0.picture.as_ref().map(|picture| &picture.file)) { img src=(uri) alt="the pixels that the group shares"; }
                    p { (shared.1) }
                }
            }
            @if let Some(sources) = group.sources.as_ref().filter(|sources| !sources.rows.is_empty()) { (sources_card(sources)) }
            div class="thumbs" {
                @for member in &group.members[..shown] {
                    figure class="thumb" title=(member.id) {
                        @match data_uri(Some(folder), member.thumbnail.as_ref()) {
                            Some(uri) => img src=(uri) alt=(member.id) loading="lazy";,
                            None => div class="none" { "no picture" },
                        }
                        figcaption { span class="id" { bdi { (member.id) } } "κ " (words::number(member.kappa, 2)) }
                    }
                }
            }
            @if group.members.len() > shown { p class="soft" { (words::thousands((group.members.len() - shown) as u64)) " more: audit.json has them all." } }
        }
    }
}

/// How far it stands apart and what it grew from.
pub fn said(group: &AuditGroup) -> String {
    let by = if group.features { "gradients and features" } else { "gradients alone" };
    let few = group.grown_from.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = match group.grown_from.len().saturating_sub(3) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "It stands {} standard deviations apart from the rest of its class, by {by} (d′), and validation pictures of the class show no such group (p = {}). Grown from: {few}{more}.",
        words::number(group.d_prime, 1),
        words::probability(group.p)
    )
}

fn classes(report: &AuditReport) -> Markup {
    html! {
        section {
            h2 { "Classes" }
            div class="card scroll" {
                table {
                    thead { tr { th { "class" } th class="n" { "examples" } th class="n" { "groups" } th class="n" { "in groups" } th class="n" { "clean pictures" } th { "" } } }
                    tbody {
                        @for class in &report.classes {
                            tr {
                                td { bdi { (class.label) } }
                                td class="n" { (words::thousands(class.examples)) }
                                td class="n" { (class.groups.len()) }
                                td class="n" { (words::thousands(class.groups.iter().map(|group| group.members.len() as u64).sum())) }
                                td class="n" { (words::thousands(class.null_pictures)) }
                                td { (class.skipped.as_deref().map(|why| format!("not audited: {why}")).unwrap_or_else(|| class.notes.join(" "))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::audit::AuditMember;
    use delta_guard_contract::{DetectConfig, Digest, TrainId};
    use std::collections::BTreeMap;

    fn class(label: &str, groups: Vec<AuditGroup>, skipped: Option<&str>) -> ClassAudit {
        ClassAudit {
            label: label.into(),
            examples: 1650,
            null_pictures: 180,
            starts: 56,
            groups,
            skipped: skipped.map(String::from),
            notes: vec![],
        }
    }

    #[test]
    fn the_page_shows_each_group_and_each_class() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("a.png"), b"\x89PNG\r\n\x1a\n").unwrap();
        let member = |id: &str, thumbnail: Option<&str>| AuditMember {
            id: TrainId(id.into()),
            kappa: 0.375,
            thumbnail: thumbnail.map(String::from),
        };
        let group = AuditGroup {
            members: vec![member("frog/<1>.png", Some("a.png")), member("frog/2.png", None)],
            d_prime: 12.34,
            founders: 2,
            p: 0.00004,
            grown_from: ["direction 1 of the class", "b", "c", "d", "e"].map(String::from).to_vec(),
            features: true,
            shared: None,
            sources: None,
        };
        let report = AuditReport {
            classes: vec![class("frog", vec![group], None), class("ship", vec![], Some("too small"))],
            checkpoint: Digest("ab".repeat(32)),
            manifest: Digest("cd".repeat(32)),
            settings: DetectConfig::default(),
            seed: 5,
            seconds: BTreeMap::new(),
            peak_memory: 1,
            device: "cpu".into(),
        };
        let page = page(&report, folder.path());
        for part in [
            "One group of training examples stands apart",
            "2 of the 1,650 examples of <bdi>frog</bdi>",
            "It stands 12.3 standard deviations apart from the rest of its class, by gradients and features (d′), and validation pictures of the class show no such group (p = ",
            "data:image/png;base64,iVBORw0KGgo=",
            "frog/&lt;1&gt;.png",
            "κ 0.38",
            "1 more: audit.json has them all",
            "not audited: too small",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert_eq!(heading(0), "No group of training examples stands apart");
    }
}
