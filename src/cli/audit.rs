//! `audit`.

use super::work::{factors_seed, unexpected, work_dir};
use super::{Exit, Global, say};
use crate::publish;
use crate::report::audit;
use clap::Args;
use delta_guard_contract::audit::{AuditGroup, AuditReport, ClassAudit};
use delta_guard_contract::{JobResult, Seed, Task};
use serde::Serialize;
use std::path::PathBuf;

/// Look for groups of training examples that stand apart, without a wrong prediction (no daemon needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard audit                         every class
  delta-guard audit --class dog --class cat
  delta-guard audit --out /tmp/audit        audit.html, audit.json and thumbnails go there

Nothing is removed: look at the pictures, and correct the data at its source.

Exit codes: 0 nothing stands apart, 3 at least one group does")]
pub struct Audit {
    /// A class to look at; may be given several times (default: all)
    #[arg(long = "class", value_name = "CLASS")]
    classes: Vec<String>,
    /// Seed of what is drawn where detect.seed is unset
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for audit.html, audit.json and thumbnails
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Audit {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        let parts: Vec<&[u8]> = self.classes.iter().map(|class| class.as_bytes()).collect();
        let folder = self.out.clone().unwrap_or_else(|| work_dir(&config, "audit", &parts));
        let task = Task::Audit {
            data: config.file.data.clone(),
            model: config.file.model.clone(),
            detect: config.file.detect.clone(),
            classes: self.classes.clone(),
            seed: Seed(self.seed),
            factors_seed: factors_seed(&config)?,
        };
        let report = match global.work(&config, &folder, task)? {
            JobResult::Audit(report) => report,
            other => return Err(unexpected(&other)),
        };
        publish::publish_file(&folder, "audit.html", audit::page(&report, &folder).as_bytes())?;
        let exit = if report.groups().next().is_none() { Exit::Done } else { Exit::No };
        if global.json {
            say::json(&report)?;
            return Ok(exit);
        }
        say::out(&format!("{}.\n", audit::heading(report.groups().count())))?;
        table(&report)?;
        for (class, group) in report.groups() {
            say::out(&format!("\n{}", say::lines(&group_said(class, group))))?;
        }
        say::out(&format!("\n{}", say::facts(&[("page", folder.join("audit.html").display().to_string())])))?;
        Ok(exit)
    }
}

fn table(report: &AuditReport) -> anyhow::Result<()> {
    let row = |class: &ClassAudit| {
        let in_groups: usize = class.groups.iter().map(|group| group.members.len()).sum();
        let remark = class
            .skipped
            .as_ref()
            .map_or_else(|| class.notes.join(" "), |why| format!("not audited: {why}"));
        let numbers = [class.examples as usize, class.groups.len(), in_groups].map(|n| n.to_string());
        [vec![class.label.clone()], numbers.to_vec(), vec![remark]].concat()
    };
    let columns = ["class", ">examples", ">groups", ">in groups", "remark"];
    say::out(&say::table(&columns, report.classes.iter().map(row)))
}

/// A group in a few lines.
fn group_said(class: &ClassAudit, group: &AuditGroup) -> String {
    let few: Vec<&str> = group.members.iter().take(5).map(|member| member.id.0.as_str()).collect();
    let sources = group.sources.as_ref().map(|sources| format!(" {}", sources.caption)).unwrap_or_default();
    format!(
        "{} of {} examples of {}: {} The most alike: {}.{sources}",
        group.members.len(),
        class.examples,
        class.label,
        audit::said(group),
        few.join(", ")
    )
}
