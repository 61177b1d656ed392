//! Every metric, declared once, and the log line that goes with each event: both are made from the same event, so they cannot disagree.
//!
//! Labels come from closed sets and all their values are there from the start, at 0: an alert on a rate works from the first event on.

use crate::case::{CaseId, HoldCause, Stage, State};
use crate::engine::{Happening, Refusal, Snapshot};
use crate::mail::Why;
use crate::progress::{Along, Tenths, UnderWay};
use delta_guard_contract::{FaultKind, Progress};
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;
use tracing::{error, info, warn};

/// Kinds of faults, as labels.
const FAULTS: [(FaultKind, &str); 5] = [
    (FaultKind::Submission, "submission"),
    (FaultKind::Configuration, "configuration"),
    (FaultKind::Numeric, "numeric"),
    (FaultKind::Resource, "resource"),
    (FaultKind::Internal, "internal"),
];

/// All metrics of the guard.
pub struct Metrics {
    registry: Registry,
    files_seen: IntCounter,
    accepted: IntCounter,
    duplicate: IntCounter,
    refused: IntCounterVec,
    inbox_trouble: IntCounterVec,
    inbox_waiting: IntGauge,
    inbox_overdue: IntGauge,
    inbox_backlog: IntGauge,
    inbox_scanned: Gauge,
    stage_seconds: HistogramVec,
    stage_failed: IntCounterVec,
    cases_ended: IntCounterVec,
    proposals: IntCounter,
    cases_proposed: IntGauge,
    cases_held: IntGauge,
    holds: IntCounterVec,
    queue_length: IntGauge,
    progress: GaugeVec,
    worker_up: IntGauge,
    journal_records: IntCounter,
    journal_bytes: IntCounter,
    journal_sync: Histogram,
    journal_failed: IntCounter,
    journal_broken: IntGauge,
    index_rebuilt: IntCounter,
    index_failed: IntCounter,
    mail_sent: IntCounter,
    mail_retried: IntCounterVec,
    mail_refused: IntCounter,
    mail_expired: IntCounter,
    outbox_length: IntGauge,
    outbox_oldest: Gauge,
    ready: IntGauge,
    time_left: GaugeVec,
    /// The stage under way.
    under_way: Mutex<Option<Following>>,
}

/// A stage that is followed.
#[derive(Debug)]
struct Following {
    case: CaseId,
    stage: Stage,
    along: Along,
    tenths: Tenths,
    now: Option<UnderWay>,
}

/// Collects the metrics as they are declared. A name that is declared twice is a defect of this file, which the first test of it would show.
struct Declare(Registry);

impl Declare {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("a metric's name and labels are valid");
        self.0.register(Box::new(metric.clone())).expect("a metric's name is declared once");
        metric
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)))
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)))
    }
    fn counters<'a>(&self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = &'a str>) -> IntCounterVec {
        let counters = self.add(IntCounterVec::new(opts(name, help), &[label]));
        for value in values {
            counters.with_label_values(&[value]);
        }
        counters
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("delta_guard_{name}"), help)
}

impl Metrics {
    /// Declare all metrics, at 0.
    pub fn new(instance: &str, mode: &str) -> Self {
        let registry = Registry::new();
        // The process figures (memory, descriptors, CPU) under their usual names.
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let _ = registry.register(Box::new(process));
        let declare = Declare(registry.clone());
        let build = declare.add(IntGauge::with_opts(
            opts("build_info", "Always 1; version, instance and mode of the running guard.")
                .const_label("version", env!("CARGO_PKG_VERSION"))
                .const_label("guard", instance)
                .const_label("mode", mode),
        ));
        build.set(1);
        let stages = || Stage::ALL.iter().map(|stage| stage.as_str());
        let buckets = prometheus::exponential_buckets(0.1, 3.0, 13).expect("a positive start and factor");
        let sync_buckets = prometheus::exponential_buckets(0.0001, 4.0, 9).expect("a positive start and factor");
        let stage_seconds = declare.add(HistogramVec::new(
            HistogramOpts::new("delta_guard_stage_duration_seconds", "Time that finished stages took.").buckets(buckets),
            &["stage"],
        ));
        let progress = declare.add(GaugeVec::new(
            opts(
                "stage_progress_ratio",
                "How far the stage under way is, 0 to 1; 0 when it is not under way.",
            ),
            &["stage"],
        ));
        let time_left = declare.add(GaugeVec::new(
            opts(
                "stage_left_seconds",
                "Estimated time until the stage under way is done; 0 when none is, or while it cannot be told.",
            ),
            &["stage"],
        ));
        for stage in stages() {
            stage_seconds.with_label_values(&[stage]);
            progress.with_label_values(&[stage]);
            time_left.with_label_values(&[stage]);
        }
        let ends = State::ALL.iter().filter(|state| state.is_end()).map(|state| state.as_str());
        let stage_failed = declare.add(IntCounterVec::new(
            opts("stage_failures_total", "Stages that failed, by whose fault it was."),
            &["stage", "fault"],
        ));
        for stage in stages() {
            for (_, fault) in FAULTS {
                stage_failed.with_label_values(&[stage, fault]);
            }
        }
        Self {
            files_seen: declare.counter("files_seen_total", "Files that were seen in the inbox for the first time."),
            accepted: declare.counter("accepted_total", "Pictures that became a case."),
            duplicate: declare.counter("duplicate_total", "Pictures that were already a case."),
            refused: declare.counters(
                "refused_total",
                "Files and cases that were refused, by reason.",
                "reason",
                Refusal::ALL.iter().map(|reason| reason.as_str()),
            ),
            inbox_trouble: declare.counters(
                "inbox_trouble_total",
                "Failures to read the inbox or to be woken by it.",
                "part",
                ["folder", "watcher", "file"],
            ),
            inbox_waiting: declare.gauge("inbox_waiting_files", "Files in the inbox that are not complete yet."),
            inbox_backlog: declare.gauge(
                "inbox_backlog_files",
                "Files in the inbox that have not been dealt with, complete or not.",
            ),
            inbox_overdue: declare.gauge(
                "inbox_overdue_files",
                "Files that have been waiting in the inbox for more than ten minutes: unfinished, held open, or impossible to deal with.",
            ),
            inbox_scanned: declare.add(Gauge::with_opts(opts(
                "inbox_scanned_timestamp_seconds",
                "When the inbox was last read from end to end.",
            ))),
            stage_seconds,
            stage_failed,
            cases_ended: declare.counters("cases_ended_total", "Cases that ended, by how.", "end", ends),
            holds: declare.counters(
                "holds_total",
                "Cases that were held, by cause: fault, base (checkpoint or training set replaced), cap.",
                "cause",
                HoldCause::ALL.iter().map(|cause| cause.as_str()),
            ),
            proposals: declare.counter("proposals_total", "Candidates that passed the gate and were put before a person."),
            cases_proposed: declare.gauge("cases_proposed", "Cases whose candidate waits for a person's word."),
            cases_held: declare.gauge("cases_held", "Cases that are held until a person acts."),
            queue_length: declare.gauge("queue_length", "Cases that are worked on or wait to be."),
            progress,
            time_left,
            worker_up: declare.gauge("worker_up", "1 while a worker process computes."),
            journal_records: declare.counter("journal_records_total", "Records that were made durable."),
            journal_bytes: declare.counter("journal_bytes_total", "Bytes of these records."),
            journal_sync: declare.add(Histogram::with_opts(
                HistogramOpts::new("delta_guard_journal_sync_seconds", "Time that making a record durable took.").buckets(sync_buckets),
            )),
            journal_failed: declare.counter("journal_failed_total", "Failures to write the journal."),
            journal_broken: declare.gauge("journal_broken", "1 while the journal is out of use: nothing is taken in."),
            index_rebuilt: declare.counter("index_rebuilt_total", "How often the index was rebuilt from the journal."),
            index_failed: declare.counter(
                "index_failed_total",
                "How often the index failed or contradicted the journal; answers come from the journal until it is made again.",
            ),
            mail_sent: declare.counter("mail_sent_total", "Mails that the server took."),
            mail_retried: declare.counters(
                "mail_retried_total",
                "Failed tries to send a mail that are repeated, by reason.",
                "why",
                Why::ALL.iter().map(|why| why.label()),
            ),
            mail_refused: declare.counter("mail_refused_total", "Mails that the server refused for good."),
            mail_expired: declare.counter("mail_expired_total", "Mails that were given up after too long."),
            outbox_length: declare.gauge("outbox_length", "Mails that wait to be sent."),
            outbox_oldest: declare.add(Gauge::with_opts(opts(
                "outbox_oldest_timestamp_seconds",
                "When the oldest waiting mail was written; 0 when none waits.",
            ))),
            ready: declare.gauge("ready", "1 when pictures are taken in and worked on."),
            registry,
            under_way: Mutex::new(None),
        }
    }

    /// The page for Prometheus, text format 0.0.4.
    ///
    /// # Errors
    /// Only when a metric cannot be encoded, which is a defect.
    pub fn page(&self) -> prometheus::Result<Vec<u8>> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }

    /// Is everything as it should be?
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// Nothing can be recorded.
    pub fn set_broken(&self) {
        self.journal_broken.set(1);
        self.ready.set(0);
    }

    /// A mail was taken by the server.
    pub fn mail_sent(&self, id: &str, to: &str) {
        self.mail_sent.inc();
        info!(message = "Mail sent.", id, to);
    }

    /// A mail will be tried again.
    pub fn mail_retried(&self, id: &str, to: &str, why: Why, error: &str, seconds: u64) {
        self.mail_retried.with_label_values(&[why.label()]).inc();
        warn!(
            message = "Mail not sent; it will be tried again.",
            id,
            to,
            why = why.label(),
            error,
            retry_in_seconds = seconds
        );
    }

    /// A mail was refused for good.
    pub fn mail_refused(&self, id: &str, to: &str, error: &str) {
        self.mail_refused.inc();
        error!(message = "Mail refused by the server.", id, to, error);
    }

    /// A mail was given up.
    pub fn mail_expired(&self, id: &str, to: &str, error: &str) {
        self.mail_expired.inc();
        error!(message = "Mail given up after too long.", id, to, error);
    }

    /// How many mails wait, and since when (Unix seconds).
    pub fn outbox(&self, length: usize, oldest: Option<f64>) {
        self.outbox_length.set(i64::try_from(length).unwrap_or(i64::MAX));
        self.outbox_oldest.set(oldest.unwrap_or(0.0));
    }

    /// Cases and mails as they are now.
    pub fn ledger(&self, now: &Snapshot) {
        self.queue_length.set(count(now.open));
        self.cases_held.set(count(now.held));
        self.cases_proposed.set(count(now.proposed));
        self.outbox_length.set(count(now.outbox));
    }

    /// Count and log what happened.
    pub fn on(&self, event: Happening) {
        match event {
            Happening::FileSeen => self.files_seen.inc(),
            Happening::Accepted { case, name } => {
                self.accepted.inc();
                info!(message = "Picture accepted.", case = case.short(), file = %name);
            }
            Happening::Refused { reason, name, sentence } => {
                self.refused.with_label_values(&[reason.as_str()]).inc();
                warn!(message = "File refused.", reason = reason.as_str(), file = %name, why = %sentence);
            }
            Happening::Duplicate { of } => {
                self.duplicate.inc();
                info!(message = "Picture is already a case.", case = of.short());
            }
            Happening::Waiting { files, overdue } => {
                self.inbox_waiting.set(count(files));
                self.inbox_overdue.set(count(overdue));
            }
            Happening::FileTrouble { name, message, retry_in } => {
                self.inbox_trouble.with_label_values(&["file"]).inc();
                warn!(message = "A file of the inbox cannot be dealt with; the others go on.", file = %name, error = %message, retry_in_seconds = retry_in.as_secs());
            }
            Happening::Backlog { files } => self.inbox_backlog.set(count(files)),
            Happening::Scanned { .. } => self.inbox_scanned.set(unix_now()),
            Happening::InboxTrouble { message } => {
                self.inbox_trouble.with_label_values(&["folder"]).inc();
                error!(message = "Inbox cannot be worked on; the next scan tries again.", error = %message);
            }
            Happening::WatcherTrouble { message } => {
                self.inbox_trouble.with_label_values(&["watcher"]).inc();
                warn!(message = "Inbox watcher failed; the periodic scan goes on.", error = %message);
            }
            Happening::StageStarted { case, stage, attempt } => {
                self.worker_up.set(i64::from(is_worked(stage)));
                self.nothing_under_way(stage);
                info!(message = "Stage started.", case = case.short(), stage = stage.as_str(), attempt);
            }
            Happening::StageFinished { case, stage, seconds } => {
                self.stage_over(stage);
                self.stage_seconds.with_label_values(&[stage.as_str()]).observe(seconds);
                info!(
                    message = "Stage finished.",
                    case = case.short(),
                    stage = stage.as_str(),
                    seconds = (seconds * 1000.0).round() / 1000.0
                );
            }
            Happening::StageFailed {
                case,
                stage,
                kind,
                message,
                retry_in,
            } => {
                self.stage_over(stage);
                self.stage_failed.with_label_values(&[stage.as_str(), fault(kind)]).inc();
                let retry = retry_in.map(|wait| wait.as_secs());
                error!(message = "Stage failed.", case = case.short(), stage = stage.as_str(), fault = fault(kind), error = %message, retry_in_seconds = retry);
            }
            Happening::Progress { case, stage, progress } => self.on_progress(case, stage, &progress),
            Happening::WorkerSaid { case, stage, message } => {
                info!(message = "Worker says.", case = case.short(), stage = stage.as_str(), said = %message)
            }
            Happening::CaseHeld { case, cause, reason, help } => {
                self.holds.with_label_values(&[cause.as_str()]).inc();
                warn!(message = "Case held.", case = case.short(), go_on = %format!("delta-guard resume {}", case.short()), cause = cause.as_str(), why = %reason, help = %help);
            }
            Happening::CaseProposed { case, reason } => {
                self.proposals.inc();
                info!(message = "Candidate proposed; it waits for your word.", case = case.short(), go_on = %format!("delta-guard approve {}", case.short()), why = %reason);
            }
            Happening::CaseEnded { case, state, reason } => {
                self.cases_ended.with_label_values(&[state.as_str()]).inc();
                info!(message = "Case ended.", case = case.short(), end = state.as_str(), why = %reason);
            }
            Happening::JournalAppended { bytes, sync_seconds, .. } => {
                self.journal_records.inc();
                self.journal_bytes.inc_by(bytes);
                self.journal_sync.observe(sync_seconds);
            }
            Happening::JournalTrouble { message, poisoned } => {
                self.journal_failed.inc();
                self.journal_broken.set(poisoned.into());
                if poisoned {
                    error!(message = "Journal is out of use: nothing is taken in any more.", error = %message);
                } else {
                    warn!(message = "Journal had trouble, and goes on.", what = %message);
                }
            }
            Happening::Degraded { why, help } => {
                self.set_broken();
                error!(message = "Guard cannot work; it only answers questions until this is mended.", error = %why, help = %help);
            }
            Happening::Working => self.journal_broken.set(0),
            Happening::IndexRebuilt { why, records } => {
                self.index_rebuilt.inc();
                warn!(message = "Index rebuilt from the journal.", why = %why, records);
            }
            Happening::IndexTrouble { message } => {
                self.index_failed.inc();
                error!(message = "Index out of use; everything goes on without it.", error = %message);
            }
            Happening::Queue { open, held, proposed } => {
                self.queue_length.set(count(open));
                self.cases_held.set(count(held));
                self.cases_proposed.set(count(proposed));
            }
        }
    }

    fn stage_over(&self, stage: Stage) {
        if is_worked(stage) {
            self.worker_up.set(0);
        }
        self.nothing_under_way(stage);
    }

    /// How far the stage under way is; None between stages and before a worker's first report.
    pub fn under_way(&self) -> Option<(CaseId, UnderWay)> {
        let following = self.following();
        following
            .as_ref()
            .and_then(|following| Some((following.case.clone(), following.now.clone()?)))
    }

    fn following(&self) -> MutexGuard<'_, Option<Following>> {
        self.under_way.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn nothing_under_way(&self, stage: Stage) {
        *self.following() = None;
        self.progress.with_label_values(&[stage.as_str()]).set(0.0);
        self.time_left.with_label_values(&[stage.as_str()]).set(0.0);
    }

    /// Gauges follow each report; the log gets a line at each tenth of a stage.
    fn on_progress(&self, case: CaseId, stage: Stage, progress: &Progress) {
        let mut following = self.following();
        if following
            .as_ref()
            .is_none_or(|following| (&following.case, following.stage) != (&case, stage))
        {
            *following = Some(Following {
                case: case.clone(),
                stage,
                along: Along::new(stage.as_str()),
                tenths: Tenths::default(),
                now: None,
            });
        }
        let Some(following) = following.as_mut() else { return };
        let now = following.along.hear(progress, Instant::now());
        self.progress.with_label_values(&[stage.as_str()]).set(now.ratio);
        self.time_left.with_label_values(&[stage.as_str()]).set(now.seconds_left.unwrap_or(0.0));
        if following.tenths.next(&now) {
            info!(message = "Stage under way.", case = case.short(), stage = stage.as_str(), percent = now.percent(), step = %now.step, done = now.done, total = now.total, seconds_left = now.seconds_left.map(f64::round), note = (!progress.note.is_empty()).then(|| tracing::field::display(&progress.note)));
        }
        following.now = Some(now);
    }
}

/// Does a worker process run in this stage?
fn is_worked(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Predict | Stage::Fit | Stage::Trace | Stage::Unlearn | Stage::Certify | Stage::Retrace
    )
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unix_now() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}

/// A fault's label.
fn fault(kind: FaultKind) -> &'static str {
    FAULTS.iter().find(|(known, _)| *known == kind).map_or("internal", |(_, name)| name)
}

#[cfg(test)]
mod tests;
