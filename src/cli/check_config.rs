//! `check-config`.

use super::{Exit, Global, say};
use crate::config::{self, EXAMPLE, Look};
use clap::Args;

/// Check the configuration and report every mistake at once, each with its line, what is allowed and what was probably meant
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  delta-guard check-config --config guard.yaml
  delta-guard check-config --example > guard.yaml        a configuration with every key explained
  delta-guard check-config --schema > guard.schema.json  for editors (YAML language server)
  delta-guard check-config --no-paths --config other-host.yaml

Exit codes: 0 no mistake, 78 mistakes")]
pub struct CheckConfig {
    /// Print the JSON schema of the configuration and check nothing
    #[arg(long, conflicts_with = "example")]
    schema: bool,
    /// Print an example with every key explained and check nothing
    #[arg(long)]
    example: bool,
    /// Do not look at the files and folders that it names: the configuration is for another machine
    #[arg(long)]
    no_paths: bool,
}

impl CheckConfig {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        if self.schema {
            say::json(&config::schema())?;
            return Ok(Exit::Done);
        }
        if self.example {
            say::out(EXAMPLE)?;
            return Ok(Exit::Done);
        }
        let look = if self.no_paths { Look::AtTextOnly } else { Look::AtFiles };
        match config::load(&global.config, look) {
            Ok(config) => {
                if global.json {
                    say::json(
                        &serde_json::json!({"ok": true, "path": config.path, "digest": config.digest, "problems": [], "settings": config.file.settings()?}),
                    )?;
                } else {
                    say::out(&format!("{}: no mistake\n", say::plain(&config.path.display().to_string())))?;
                    let detect = config.file.detect.resolve(0, 2);
                    if !detect.allow_unlearn {
                        let mode = detect.mode.as_str();
                        say::out(&format!(
                            "detect.mode is {mode} without detect.allow_unlearn: cases are only observed, whatever `mode` says\n"
                        ))?;
                    }
                }
                Ok(Exit::Done)
            }
            Err(error) if global.json => {
                say::json(&serde_json::json!({"ok": false, "path": error.path, "problems": error.problems}))?;
                Ok(Exit::Config)
            }
            Err(error) => Err(error.into()),
        }
    }
}
