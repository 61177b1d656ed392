//! The command line: one file per command. [`Exit`] is the only place that knows exit codes, [`say`] the only one that writes for people.

pub mod advice;
mod approve;
mod arrival;
mod ask;
mod audit;
mod cases;
mod certify;
mod check_config;
mod decline;
mod demo;
mod drill;
mod evaluate;
mod excluded;
mod fit;
mod flagged;
mod graph;
mod ids;
mod init;
mod journal;
mod log;
mod lookup;
mod measure;
mod prove;
mod resume;
mod retry;
mod run;
mod say;
mod show;
mod signals;
mod submit;
mod trace;
mod train;
mod unlearn;
mod verify_model;
mod watch;
mod work;

pub use say::{Exit, Failure};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// From one wrong prediction to the training examples that caused it, and to a repaired, checked model.
#[derive(Debug, Parser)]
#[command(name = "delta-guard", version, propagate_version = true, max_term_width = 100, after_help = TOP_HELP, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const TOP_HELP: &str = "\
Begin here:
  delta-guard init model.pt2 --train PATH --validation PATH --out guard.yaml   for a model that PyTorch exported
  delta-guard check-config --example > guard.yaml   every key explained; edit paths, data, model
  delta-guard check-config --config guard.yaml      every mistake at once, each with its line
  delta-guard run --config guard.yaml               the daemon; then, from anywhere:
  delta-guard submit wrong.png --config guard.yaml --wait

Exit codes:
  0   done; for a question: yes, found, passed
  1   failed: the message says what happened and what to do
  2   the command line itself is wrong
  3   the answer is no: rejected, undecided, refused, no such case, no proof
  78  the configuration is wrong (systemd does not restart the daemon after this one)
  130 interrupted; what was done is kept where the command can go on from it";

/// Where the configuration is looked for when nothing else is said.
pub const DEFAULT_CONFIG: &str = "/etc/delta-guard/delta-guard.yaml";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration file
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "DELTA_GUARD_CONFIG",
        default_value = DEFAULT_CONFIG
    )]
    config: PathBuf,
    /// Answer as JSON on standard output (progress and messages stay on standard error)
    #[arg(long, global = true)]
    json: bool,
    /// No progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Global {
    /// A text with commands between backticks, each with the configuration that was named here.
    fn advise(&self, text: &str) -> String {
        advice::complete(text, Some(&self.config))
    }
}

#[derive(Debug, Subcommand, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Command {
    /// Run the daemon: watch the inbox, trace and repair, until it is asked to stop
    Run(run::Run),
    /// See whether an exported model (.pt2) is read rightly (no daemon, no configuration needed)
    VerifyModel(verify_model::VerifyModel),
    /// Write a configuration for an exported model (.pt2), and check it
    Init(init::Init),
    /// Check the configuration and report every mistake at once
    CheckConfig(check_config::CheckConfig),
    /// Put a wrongly predicted picture into the inbox
    Submit(submit::Submit),
    /// List the cases
    Cases(cases::Cases),
    /// Show what is known about a case
    Show(show::Show),
    /// List the training examples that were flagged
    Flagged(flagged::Flagged),
    /// Look after the journal: is it as it was written?
    Journal(journal::Journal),
    /// Go on with a held case: its cause is mended, or it may pass the cap
    Resume(resume::Resume),
    /// Try an ended or held case again, with the configuration of now
    Retry(retry::Retry),
    /// Promote a proposed candidate: the guard moves the link `current` to it
    Approve(approve::Approve),
    /// End a proposed case without using its candidate
    Decline(decline::Decline),
    /// List the training examples that stay out of every repair
    Excluded(excluded::Excluded),
    /// Train a model by the recipe (no daemon needed)
    Train(train::Train),
    /// Compute the EK-FAC factors of the production model, or find them on disk (no daemon needed)
    Fit(fit::Fit),
    /// Find the training examples behind a wrong prediction (no daemon needed)
    Trace(trace::Trace),
    /// Look for groups of training examples that stand apart, without a wrong prediction (no daemon needed)
    Audit(audit::Audit),
    /// Make a model without the flagged examples (no daemon needed)
    Unlearn(unlearn::Unlearn),
    /// Measure a candidate against the production model and judge it (no daemon needed)
    Certify(certify::Certify),
    /// Measure a checkpoint on labelled pictures (no daemon needed)
    Measure(measure::Measure),
    /// Write the model's layer graph as a file (no daemon needed)
    Graph(graph::Graph),
    /// See the whole line at work on a data set that the program poisons itself
    Demo(Box<demo::Demo>),
    /// Tell a story over several seeds, or those of a grid, and print what they show
    Evaluate(Box<evaluate::Evaluate>),
    /// Poison a copy of the own training set and see whether the guard finds it
    Drill(Box<drill::Drill>),
}

/// Parse the command line, do it, and tell how it ended.
pub fn main() -> ExitCode {
    // A closed pipe (`| head`) is the reader's good right: it ends us quietly, like every other tool. Rust ignores SIGPIPE, so writes return errors.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let global = cli.global;
    let done = match cli.command {
        Command::Run(command) => command.run(&global),
        Command::VerifyModel(command) => command.run(&global),
        Command::Init(command) => command.run(&global),
        Command::CheckConfig(command) => command.run(&global),
        Command::Submit(command) => command.run(&global),
        Command::Cases(command) => command.run(&global),
        Command::Show(command) => command.run(&global),
        Command::Flagged(command) => command.run(&global),
        Command::Journal(command) => command.run(&global),
        Command::Resume(command) => command.run(&global),
        Command::Retry(command) => command.run(&global),
        Command::Approve(command) => command.run(&global),
        Command::Decline(command) => command.run(&global),
        Command::Excluded(command) => command.run(&global),
        Command::Train(command) => command.run(&global),
        Command::Fit(command) => command.run(&global),
        Command::Trace(command) => command.run(&global),
        Command::Audit(command) => command.run(&global),
        Command::Unlearn(command) => command.run(&global),
        Command::Certify(command) => command.run(&global),
        Command::Measure(command) => command.run(&global),
        Command::Graph(command) => command.run(&global),
        Command::Demo(command) => command.run(&global),
        Command::Evaluate(command) => command.run(&global),
        Command::Drill(command) => command.run(&global),
    };
    match done {
        // The answer stands, but it is not all that there was.
        Ok(Exit::Done | Exit::No) if lookup::is_damaged() => Exit::Failed.into(),
        Ok(exit) => exit.into(),
        Err(error) => match say::failure(&error, &global.config) {
            Exit::No if lookup::is_damaged() => Exit::Failed.into(),
            exit => exit.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_shows_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains(&format!("delta-guard {}", command.get_name())),
                "{} has no example in its help",
                command.get_name()
            );
        }
    }
}
