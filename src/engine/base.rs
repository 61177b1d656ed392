//! One case, one model: everything in a case is about the checkpoint that *predict* read, and about the training set that *fit* read. A stage that would
//! work, or has worked, with another one holds the case: a verdict about one model must not repair another.

use super::trouble::{Hold, Trouble};
use super::work;
use crate::case::{Case, HoldCause};
use crate::publish;
use crate::settings::Settings;
use delta_guard_contract::Digest;

/// Before a stage: is the production checkpoint still the case's? Reads the whole file; blocks. True before the case has one.
pub(super) fn still_there(case: &Case, doing: &str, settings: &Settings) -> Result<(), Trouble> {
    let Some(base) = case.base() else { return Ok(()) };
    let path = &settings.model.checkpoint;
    let found = publish::digest_checkpoint(path, &mut || {}).map_err(|error| {
        let error = anyhow::Error::from(error).context("the production checkpoint (model.checkpoint) cannot be read");
        work::resource(error)
    })?;
    Ok(same(case, "the production checkpoint", "model.checkpoint", base, &found, doing)?)
}

/// After a stage: was it the case's checkpoint and training set that the worker read? What the worker does not tell is not compared.
pub(super) fn was_read(case: &Case, doing: &str, checkpoint: Option<&Digest>, manifest: Option<&Digest>) -> Result<(), Hold> {
    if let (Some(base), Some(found)) = (case.base(), checkpoint) {
        same(case, "the production checkpoint", "model.checkpoint", base, found, doing)?;
    }
    if let (Some(base), Some(found)) = (case.manifest(), manifest) {
        same(case, "the training set", "data.train", base, found, doing)?;
    }
    Ok(())
}

fn same(case: &Case, what: &str, key: &str, base: &Digest, found: &Digest, doing: &str) -> Result<(), Hold> {
    if base == found {
        return Ok(());
    }
    let id = case.id.short();
    Err(Hold {
        cause: HoldCause::Base,
        reason: format!("{what} was replaced while the case was worked on: the case began with {base}, {doing} met {found}"),
        help: format!(
            "put {what} ({key}) back and type `delta-guard resume {id}`, or let the case begin anew with the present one: `delta-guard retry {id}`"
        ),
    })
}
