//! The configuration file as it is written. Doc comments are the documentation of the keys; defaults are written here and nowhere else.
//!
//! The keys of `data`, `model`, `recipe`, `detect` and `unlearn` are those of the contract, since the worker reads them too.

use super::units::{Size, Span};
use crate::policy::{Caps, GateLimits, Mode};
use crate::settings::StageLimits;
use delta_guard_contract::config::QUERY_BUDGET;
use delta_guard_contract::method::unlearn::Unlearning;
use delta_guard_contract::{DataConfig, DetectConfig, Device, ModelConfig, Recipe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of delta-guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Name of this guard in mails, metrics and reports: one name per guarded model.
    #[serde(default = "default_instance")]
    pub instance: String,
    /// Who is responsible for it: a name, a team, an address. Shown in mails and reports.
    #[serde(default)]
    pub owner: String,
    /// How far the guard may act by itself.
    #[serde(default)]
    pub mode: Mode,
    /// Folders that the guard works in.
    pub paths: PathsKeys,
    /// How pictures are taken in.
    #[serde(default)]
    pub inbox: InboxKeys,
    /// Training and validation pictures.
    pub data: DataConfig,
    /// The guarded model.
    pub model: ModelConfig,
    /// How the guarded model was trained.
    #[serde(default)]
    pub recipe: Recipe,
    /// How the training examples behind an anomaly are found.
    #[serde(default)]
    pub detect: DetectConfig,
    /// How the model is repaired.
    #[serde(default)]
    pub unlearn: Unlearning,
    /// What a candidate must show to pass.
    #[serde(default)]
    pub gate: GateLimits,
    /// How much may be promoted in mode `enforce` without a person. Past a cap a case is held; `delta-guard resume CASE` lets it pass.
    #[serde(default)]
    pub caps: Caps,
    /// How the computing process is run.
    #[serde(default)]
    pub worker: Worker,
    /// Metrics, health and the read-only interface.
    #[serde(default)]
    pub http: Http,
    /// Mail for each finished case. Without this section no mail is sent.
    #[serde(default)]
    pub mail: Option<Mail>,
}

fn default_instance() -> String {
    "delta-guard".into()
}

/// Folders that the guard works in. Relative paths start at the configuration file's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathsKeys {
    /// Drop wrongly predicted pictures here. Anyone who may report an error may write here; nobody else needs to.
    pub inbox: PathBuf,
    /// Refused files go here, each with a file that says why. Unset: the folder `refused` beside the inbox. Best on the inbox's file system.
    #[serde(default)]
    pub refused: Option<PathBuf>,
    /// Journal, index, spool, caches, reports and outbox. Only the guard writes here.
    pub state: PathBuf,
    /// Members of this group may read journal and cases: `cases`, `show`, `flagged` and `submit --wait` answer them. The guard's user must be a member. Unset: only the guard's user.
    #[serde(default)]
    pub group: Option<String>,
    /// Repaired checkpoints, one folder each, and the link `current`.
    pub candidates: PathBuf,
}

/// How pictures are taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InboxKeys {
    /// A file must be unchanged for this long before it is taken.
    pub settle: Span,
    /// The folder is read at least this often, whatever the file system's notifications say.
    pub scan_interval: Span,
    /// A sidecar waits this long for its picture before it is refused.
    pub sidecar_wait: Span,
    /// Larger files are refused.
    pub max_bytes: Size,
    /// Pictures of more pixels (width × height) are refused before they are decoded.
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
    /// Refuse a picture that the model reads as its sidecar's `true_label` says. Switch off only to test with placebos.
    pub check_prediction: bool,
}

impl Default for InboxKeys {
    fn default() -> Self {
        Self {
            settle: Span(Duration::from_secs(2)),
            scan_interval: Span(Duration::from_secs(60)),
            sidecar_wait: Span(Duration::from_secs(600)),
            max_bytes: Size(64 << 20),
            max_pixels: 64_000_000,
            check_prediction: true,
        }
    }
}

/// How the computing process is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// The worker's program. Unset: `delta-guard-worker` beside delta-guard itself.
    pub command: Option<PathBuf>,
    /// Where to compute.
    pub device: Device,
    /// CPU threads (0: all).
    #[schemars(range(max = 4096))]
    pub threads: u32,
    /// Memory that one influence pass may use for its working tensors; sets its batch size, and how wide a layer's covariance may be before it is taken in blocks.
    pub memory_budget: Size,
    /// Memory that the gradients of queries may take: some seventy of a case, each twice the size of the weights. What does not fit is asked in further passes.
    pub query_budget: Size,
    /// Memory that the worker may take on the CPU in all; a job that wants more fails, and says so. Unset: nine tenths of what the machine, or its control group, has.
    pub memory_limit: Option<Size>,
    /// Niceness of the daemon's worker, 0 to 19: 10 lets training on the same machine go first. Where the daemon itself is nicer, so is the worker.
    #[schemars(range(min = 0, max = 19))]
    pub nice: u32,
    /// Tries of a stage that failed for want of memory, disk or device, because a file system did not answer, or by a defect, before the case is held.
    #[schemars(range(min = 1, max = 20))]
    pub attempts: u32,
    /// Wait before the second try; five times as long before each further one.
    pub retry_after: Span,
    /// How long a worker that is asked to stop (at the guard's own stop, or past its time limit) may take to save its work.
    pub stop_grace: Span,
    /// Longest time that a stage may take; its worker is ended after that.
    pub time_limits: TimeLimits,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            command: None,
            device: Device::Auto,
            threads: 0,
            memory_budget: Size(1 << 30),
            query_budget: Size(QUERY_BUDGET),
            memory_limit: None,
            nice: 10,
            attempts: 3,
            retry_after: Span(Duration::from_secs(60)),
            stop_grace: Span(Duration::from_secs(20)),
            time_limits: TimeLimits::default(),
        }
    }
}

/// Longest time that a stage may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeLimits {
    /// Decode and predict one picture.
    pub predict: Span,
    /// Fit the EK-FAC factors.
    pub fit: Span,
    /// Find the training examples.
    pub trace: Span,
    /// Repair the model.
    pub unlearn: Span,
    /// Measure the candidate.
    pub certify: Span,
}

impl Default for TimeLimits {
    fn default() -> Self {
        let StageLimits {
            predict,
            fit,
            trace,
            unlearn,
            certify,
        } = StageLimits::default();
        Self {
            predict: Span(predict),
            fit: Span(fit),
            trace: Span(trace),
            unlearn: Span(unlearn),
            certify: Span(certify),
        }
    }
}

/// Metrics, health and the read-only interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port to listen on; `off` listens nowhere. Port 0 takes a free one and writes it to the log.
    #[schemars(with = "String", extend("format" = "listen"))]
    #[serde(with = "listen")]
    pub listen: Option<SocketAddr>,
    /// Names by which others may call it (HTTP `Host`), besides `localhost` and IP addresses. Keeps web pages in a browser from reading it.
    pub allowed_hosts: Vec<String>,
    /// Where people reach it, such as `https://guard.example.org`: mails then link to the report (`/cases/ID`) instead of bringing it along. Its name is allowed, too.
    pub public_url: Option<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            allowed_hosts: Vec::new(),
            public_url: None,
        }
    }
}

/// `address:port`, or None for `off`.
pub(super) fn parse_listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| format!("{text:?} is not an address and a port; write 127.0.0.1:9464, [::1]:9464 or off"))
}

/// [`parse_listen`] for serde.
mod listen {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use std::net::SocketAddr;

    pub fn serialize<S: Serializer>(value: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str("off"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        super::parse_listen(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Mail for each finished case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Name or address of the SMTP server.
    pub host: String,
    /// Its port: 587 for STARTTLS, 465 for TLS from the start, 25 between servers.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// Sender.
    pub from: String,
    /// Recipients of what `on` names.
    #[schemars(length(min = 1))]
    pub to: Vec<String>,
    /// What they hear of.
    #[serde(default = "default_on")]
    pub on: Vec<On>,
    /// Further recipients, each list with what it hears of.
    #[serde(default)]
    pub others: Vec<Others>,
    /// Domains of submitters who are told what became of their own pictures, where their sidecar gives an address (`mail`). Empty: none.
    #[serde(default)]
    pub submitters: Vec<String>,
    /// Name to log in with. Unset: no login.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password (systemd: `LoadCredential=`). It is read at each connection, and never logged.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Longest wait for an answer of the server.
    #[serde(default = "default_mail_timeout")]
    pub timeout: Span,
    /// Wait before a mail is tried again; doubled each time, up to an hour.
    #[serde(default = "default_mail_retry")]
    pub retry_after: Span,
    /// A mail that could not be sent for this long is given up, with an error in the log.
    #[serde(default = "default_mail_expiry")]
    pub give_up_after: Span,
}

impl Mail {
    /// Who hears of this, each once.
    pub fn recipients(&self, of: On) -> Vec<&str> {
        let lists = std::iter::once((&self.to, &self.on)).chain(self.others.iter().map(|more| (&more.to, &more.on)));
        let mut found: Vec<&str> = Vec::new();
        for to in lists.filter(|(_, on)| on.contains(&of)).flat_map(|(to, _)| to) {
            if !found.contains(&to.as_str()) {
                found.push(to);
            }
        }
        found
    }
}

/// Further recipients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Others {
    /// Their addresses.
    #[schemars(length(min = 1))]
    pub to: Vec<String>,
    /// What they hear of.
    pub on: Vec<On>,
}

/// What a mail can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// A candidate passed the gate and waits for a person.
    Proposed,
    /// A candidate passed the gate and `current` points to it.
    Promoted,
    /// A person did not want a candidate that was proposed.
    Declined,
    /// A candidate did not pass the gate.
    Rejected,
    /// Nothing stands out.
    Undecided,
    /// Examples were flagged, and nothing more was to be done.
    Observed,
    /// The model reads the picture correctly, or not as the sidecar says.
    NoAnomaly,
    /// A file was not acceptable, a picture could not be read, or its sidecar names an unknown label.
    Refused,
    /// A picture was handed in that is a case already.
    Duplicate,
    /// The case could not be brought to an end.
    Failed,
    /// The case waits for a person.
    Held,
    /// The guard itself cannot work.
    Trouble,
}

/// Everything but what only its submitter can mend.
fn default_on() -> Vec<On> {
    vec![
        On::Proposed,
        On::Promoted,
        On::Declined,
        On::Rejected,
        On::Undecided,
        On::Observed,
        On::Failed,
        On::Held,
        On::Trouble,
    ]
}

fn default_port() -> u16 {
    587
}

fn default_mail_timeout() -> Span {
    Span(Duration::from_secs(60))
}

fn default_mail_retry() -> Span {
    Span(Duration::from_secs(30))
}

fn default_mail_expiry() -> Span {
    Span(Duration::from_secs(5 * 86_400))
}

/// How the connection to the SMTP server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Not at all: only for a server on this machine.
    None,
    /// Begin in clear, switch to TLS before anything is said (STARTTLS); a server that does not offer it gets no mail.
    #[default]
    Starttls,
    /// TLS from the first byte (port 465).
    Required,
}
