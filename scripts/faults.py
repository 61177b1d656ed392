#!/usr/bin/env python3
"""Plants faults, one after the other, in a scratch copy of this tree, and runs the test that must find each.

  scripts/faults.py            all of them; exit code 1 unless all are found
  scripts/faults.py eu split   those whose name contains one of these words
  scripts/faults.py --check    only whether each can still be planted (seconds): the text that it replaces must be in its file, once

A fault is found when its test fails. A fault that no longer compiles, or whose test passes, is told."""

import argparse
import re
import sys
import time

from scratch import ROOT, Scratch, since

STORY = ["-p", "delta-influence", "--test", "story"]
NAIVE = ["-p", "delta-influence", "--test", "ekfac_naive"]
BLOCKS = ["-p", "delta-influence", "--test", "ekfac_blocks"]
LIB = ["-p", "delta-influence", "--lib"]
UNLEARN = ["-p", "delta-influence", "--test", "unlearn"]
SSD = ["-p", "delta-influence", "--test", "ssd"]
COMMAND = ["-p", "delta-influence", "--test", "command"]
RECIPE = ["-p", "delta-influence", "--test", "recipe"]
CHECKPOINTS = ["-p", "delta-influence", "--test", "checkpoints"]
FAMILIES = ["-p", "delta-influence", "--test", "families"]
VERIFY = ["-p", "delta-influence", "--test", "verify"]
GREY = ["-p", "delta-influence", "--test", "grey"]
IMPORT = ["-p", "delta-influence", "--test", "import"]
ERRORS = ["-p", "delta-influence", "--test", "errors"]
HICCUPS = ["-p", "delta-influence", "--test", "hiccups"]
CONTRACT = ["-p", "delta-guard-contract", "--lib"]
CLI = ["-p", "delta-guard", "--test", "cli"]
CORE = ["-p", "delta-guard", "--test", "core"]
OUTSIDE = ["-p", "delta-guard", "--test", "outside"]
GUARD = ["-p", "delta-guard", "--lib"]
SECONDS = 900 # building and testing

# name, file (below ml/src, unless it begins with src/ or contract/), pattern (regular expression, must match once), replacement, tests (target, filter).
FAULTS = [
    # What joins the kernels to the rules.
    ("eu trains on the flagged", "unlearn/eu.rs", r"examples: case\.retained,", "examples: case.flagged,", STORY, "repair::eu"),
    ("split removes nothing", "unlearn/mod.rs", r"\.filter\(\|i\| !gone\.contains\(i\)\)", "", STORY, "repair::split"),
    ("certify measures production twice", "jobs/look.rs", r"look\((repair\.)?candidate, \"measure candidate\"\)", 'look(&model.checkpoint, "measure candidate")', STORY, "measure::certify"),
    ("accuracy counts everything as right", "certify/mod.rs", r"if label == class \{", "if label == class || true {", STORY, "measure::"),
    ("query objective always the loss", "passes/objective.rs", r"Objective::Margin => negative_margin\(", "Objective::Margin => loss(", STORY, "influence::scores_of_margin"),
    ("delta without its difference", "influence/mod.rs", r"\{ prepared \} else \{ prepared\.difference\(0\)\? \}", "{ prepared } else { prepared }", STORY, "influence::scores_of_margin"),
    ("training gradients under predicted labels", "passes/labels.rs", r"Self::Training => Ok\(data\.labels_tensor\(batch\)\?\.f_to_device\(logits\.device\(\)\)\?\)", "Self::Training => Ok(logits.detach().f_argmax(1, false)?)", STORY, "influence::kin"),
    ("true fisher from training labels", "passes/labels.rs", r"Fisher::True => Self::Sampled \{[^}]*\}", "Fisher::True => { let _ = (seed, draw); Self::Training }", STORY, "influence::scores_of_margin"),
    ("fit subset is the first n", "passes/fit.rs", r"index::sample\(&mut rng, all, self\.examples as usize\)\.into_vec\(\)", "{ let _ = index::sample(&mut rng, all, 1); (0..self.examples as usize).collect::<Vec<_>>() }", STORY, "influence::the_fit_subset"),
    ("null rows not divided by their root", "influence/mod.rs", r"if root > 0\.0 \{ v / root \} else \{ 0\.0 \}", "if root > 0.0 { v } else { 0.0 }", STORY, "influence::kin"),
    ("kin's seed weights ignored", "ekfac/sums.rs", r"\[group\] \+= weight;", "[group] += weight.signum().abs();", STORY, "influence::kin"),
    ("placebos need not be read rightly", "jobs/case.rs", r"if class == wrong && chosen\.len\(\) < placebos \{", "if (class == wrong || true) && chosen.len() < placebos {", STORY, "trace::the_guards"),
    ("the submitted picture stays among the null", "jobs/case.rs", r"order\.retain\(\|&i\| submitted\.iter\(\)\.all\(\|picture\| picture != validation\.pixels\(i\)\)\);", "let _ = submitted;", STORY, "trace::a_validation_picture"),
    # Kernels and rules.
    ("scores negated", "ekfac/score.rs", r"(pub fn scores\(.*?finite\(&total, SCORES\)\?;\s*)Ok\(total\)", r"\1Ok(total.f_neg()?)", NAIVE, ""),
    ("bias column dropped", "ekfac/unfold.rs", r"(if geometry\.conv\.bias \{\s*let _ = all\.f_narrow\(4, geometry\.kernel_inputs\(\), 1\)\?\.f_fill_\()1\.0", r"\g<1>0.0", NAIVE, ""),
    ("damping skipped", "ekfac/precondition.rs", r"\.f_add_scalar\(damping\)\?", ".f_add_scalar(0.0 * damping)?", NAIVE, ""),
    ("damping by the maximum", "ekfac/factors.rs", r"\.f_mean\(Kind::Double\)\?\.f_double_value\(&\[\]\)\?", ".f_max()?.f_double_value(&[])?", NAIVE, ""),
    ("each part its own damping", "ekfac/factors.rs", r"other\.of == part\.of\)", "other == part)", BLOCKS, "parts_are"),
    ("a bias in every part", "ekfac/blocks.rs", r"conv\.bias &= last;", "let _ = last;", BLOCKS, "parts_are"),
    ("parts of outputs from the first", "ekfac/blocks.rs", r"outputs, part\.outputs\)\?", "outputs, [0, part.outputs[1]])?", BLOCKS, "parts_are"),
    ("shared covariances summed again", "ekfac/blocks.rs", r"\(0\.\.place\)\.find\(\|&other\| same\(&layers\[other\], &layers\[place\]\)\)\.unwrap_or\(place\)", "if place < layers.len() { place } else { (0..place).find(|&other| same(&layers[other], &layers[place])).unwrap_or(place) }", BLOCKS, "shared_"),
    ("the budget does not reach the fit", "jobs/fit.rs", r"stream\.in_blocks\(place\.setup\.memory_budget\)", "stream.in_blocks(place.setup.memory_budget.max(1 << 30))", BLOCKS, "the_budget"),
    ("a view read from the start of its storage", "ekfac/unfold.rs", r"None, // from where", "0, // from where", NAIVE, ""),
    ("auxiliary heads count", "model/coverage.rs", r"why != Some\(NOT_READ\)", "why != Some(\"\")", LIB, "model::coverage"),
    ("too little is fitted all the same", "jobs/fit.rs", r"\.lacking\(model\.min_tracked_share\)", ".lacking(model.min_tracked_share * 0.0)", STORY, "trace::less_than"),
    ("a mask upside down", "model/aten/arithmetic.rs", r"yes\.f_where_self\(condition, no\)\?", "no.f_where_self(condition, yes)?", LIB, "model::aten"),
    ("the other copy is the candidate", "unlearn/command.rs", r"own\.or_alone\(\)\.and_then\(\|own\| Weights::load\(own,", "own.or_alone().and_then(|own| Weights::load(own.path,", COMMAND, "the_copy"),
    ("lambda not divided by N", "ekfac/lambda.rs", r"s\.f_div_scalar\(self\.examples as f64\)\?", "s.f_div_scalar(1.0)?", NAIVE, ""),
    ("G divided by N, not by N times T", "ekfac/covariance.rs", r"Ok\(\(outer, \(batch \* positions\) as f64\)\)", "Ok((outer, batch as f64))", NAIVE, ""),
    ("wrong Q_G", "ekfac/eigenbasis.rs", r"(\bq_a,\s*)q_g,(\s*input_eigenvalues)", r"\1q_g: q_g.f_transpose(1, 2)?.f_contiguous()?,\2", NAIVE, ""),
    ("n_tol off by one", "detect/count.rs", r"count >= queries\.saturating_sub\(tolerance\)", "count + 1 >= queries.saturating_sub(tolerance)", LIB, "detect::count"),
    ("at most tau", "detect/count.rs", r"\*value < tau", "*value <= tau", LIB, "detect::count"),
    ("a seed's own term kept", "detect/kin.rs", r"\(sums\[s\] / root\[s\] - 1\.0\)", "(sums[s] / root[s])", LIB, "detect::kin"),
    ("transform space ignored", "detect/queries.rs", r"Space::Normalised => standardise\(&picture, image\)\.and_then\(\|x\| transform\.apply\(&x\)\)", "Space::Normalised => transform.apply(&picture).and_then(|x| normalise(&x, image))", LIB, "detect::queries"),
    ("signatures not centred", "detect/spectral_signatures.rs", r"singular::laid\(&singular::centred\(rows\)\?, 1\)", "singular::laid(rows, 1)", LIB, "detect::spectral_signatures"),
    ("as many signatures as are expected", "detect/spectral_signatures.rs", r"const MARGIN: f64 = 1\.5;", "const MARGIN: f64 = 1.0;", LIB, "detect::spectral_signatures"),
    ("neighbours seen from nowhere", "detect/feature_neighbours.rs", r"let seen = x\.f_sub\(&middle\)\?;", "let seen = x.f_sub(&(&middle * 0.0))?;", LIB, "detect::feature_neighbours"),
    ("the last gap", "detect/feature_neighbours.rs", r"if gap\(i\) > gap\(best\) \{ i \} else \{ best \}", "if gap(i) > gap(best) || true { i } else { best }", LIB, "detect::feature_neighbours"),
    ("a placebo of every class", "detect/random.rs", r"let mut drawn = case\.members\(\);", "let mut drawn: Vec<usize> = (0..case.labels.len()).collect();", LIB, "detect::random"),
    ("the limit itself is above the limit", "detect/ekfac_threshold.rs", r"self\.mean > keys\.threshold", "self.mean >= keys.threshold", LIB, "detect::ekfac_threshold"),
    ("one point above is enough", "detect/ekfac_threshold.rs", r"self\.above >= self\.points\.saturating_sub\(keys\.tolerated\)\.max\(1\)", "self.above >= 1.max(keys.tolerated.min(0))", LIB, "detect::ekfac_threshold"),
    ("frequencies of the other side", "detect/frequency.rs", r"basis\(width\)\?\.f_tr\(\)\?", "basis(width)?", LIB, "detect::frequency"),
    ("the probability of nothing", "detect/frequency.rs", r"f_softmax\(1, Kind::Double\)\?\.f_select\(1, 1\)\?", "f_softmax(1, Kind::Double)?.f_select(1, 0)?", LIB, "detect::frequency"),
    ("no curvature that is some", "ekfac/factors.rs", r"lambdas\.push\(workspace\.zeros\(&\[b, o, d\]\)\?\);", "lambdas.push(workspace.zeros(&[b, o, d])?.f_add_scalar(1.0)?);", NAIVE, "over_no_curvature"),
    ("pictures' features of another layer", "passes/features.rs", r"tapped\.pairs\(&objective, &\[place\]\)\?", "tapped.pairs(&objective, &[place.saturating_sub(1)])?", STORY, "trace::a_training_picture"),
    ("seeds by score", "detect/judge.rs", r"\[first\(drop\), first\(&mean\(strengths\)\)\]", "[first(&mean(strengths)), { let _ = drop; first(&mean(strengths)) }]", LIB, "detect::"),
    ("d' comparison skipped", "detect/stand_out.rs", r"exceeds\(&another, d_prime\)", "exceeds(&another, d_prime.max(f64::INFINITY))", LIB, "detect::stand_out"),
    ("null pictures set the measure that they are measured by", "detect/joint.rs", r"let lost = rest\.f_mul\(&self\.null\.leverage\)\?", "let lost = rest.f_mul(&(&self.null.leverage * 0.0))?", LIB, "detect::joint"),
    ("features in their own units", "detect/whitening.rs", r"let white = seen\.f_sub\(&along", "let white = seen.f_sub(&(along * 0.0)", LIB, "detect::joint"),
    ("gradients counted twice", "detect/joint.rs", r"\+ view\.weight \* other", "+ view.weight * *own", LIB, "detect::"),
    ("features of the examples before them", "detect/guard.rs", r"view\.restrict\(&usable\)", "view.restrict(&usable.iter().map(|i| i.saturating_sub(1)).collect::<Vec<_>>())", LIB, "detect::tests::features"),
    ("clean ones cost nothing", "detect/cut.rs", r"f64::from\(above\) - clean\(x\) / collect", "f64::from(above) - clean(x) * collect", LIB, "detect::"),
    ("a gap is none", "detect/cut.rs", r"pair\[0\] - pair\[1\] > GAP \* self\.excess", "pair[0] - pair[1] > 100.0 * GAP * self.excess", LIB, "detect::cut"),
    ("a few that stand out are the group", "detect/cut.rs", r"2 \* \(above \+ 1\) >= founders", "2 * (above + 1) >= founders || *above > 0", LIB, "detect::cut"),
    ("three alike are a group", "detect/stand_out.rs", r"const FEWEST_ALIKE: usize = 5;", "const FEWEST_ALIKE: usize = 2;", LIB, "detect::stand_out"),
    ("outliers stay in a group", "detect/cut.rs", r"tail\.inliers\(&mut group\)\.or\(end\)", "tail.inliers(&mut group).and(None).or(end)", LIB, "detect::cut"),
    ("a group's width is its upper side", "detect/cut.rs", r"\(middle - below\)\.max\(self\.excess\)", "(group[last] - middle).max(self.excess)", LIB, "detect::cut"),
    ("equal examples leave no width", "detect/cut.rs", r"\(middle - below\)\.max\(self\.excess\)", "(middle - below)", LIB, "detect::cut"),
    ("collected where no group is founded", "detect/kin.rs", r"\.filter\(\|_\| !flagged\.is_empty\(\)\);", ";", LIB, "detect::"),
    ("an audit looks one way only", "detect/audit.rs", r"\(name, kin::seeds\(&other, count\)\)\]", "(name, { let _ = other; kin::seeds(vector, count) })]", LIB, "detect::audit"),
    ("an audit along the least directions", "detect/directions.rs", r"\(0\.\.k as i64\)\.rev\(\)\.map", "(0..k as i64).map", LIB, "detect::directions"),
    ("an audit asks no misread picture", "detect/audit.rs", r"clean\.chain\(misread\)", "clean.chain(misread.take(0))", LIB, "detect::tests::audit"),
    ("chance is never asked", "detect/audit.rs", r"if group\.p > keys\.alpha \{", "if group.p > 2.0 * keys.alpha.max(1.0) {", LIB, "detect::tests::audit"),
    ("chance counts no null picture", "detect/kin.rs", r"self\.kappa\.len\(\), self\.null_alike,", "self.kappa.len(), 0 * self.null_alike,", LIB, "detect::kin"),
    ("an audit's clean pictures are of the first class", "jobs/audit.rs", r"case\.turn_to\(label, report\)\?;", "case.turn_to(label, report)?; let own = case.wrong; case.turn_to(0, report)?; case.wrong = own;", STORY, "audit"),
    ("a later portion's baseline is a row", "influence/portions.rs", r"rows\.remove\(0\);", "", LIB, "influence::portions"),
    ("self-influence of the second portion only", "influence/mod.rs", r"self_influence && before == 0", "self_influence && before == 1", STORY, "influence::scores"),
    ("two pictures are as large as sixty", "detect/stand_out.rs", r"is_another && comparable\(r\)", "is_another || comparable(r) && is_another", LIB, "detect::stand_out"),
    ("gradients are never asked alone", "detect/guard.rs", r"joint\.view = None;", "", LIB, "detect::tests::features"),
    ("sure examples are doubtful", "jobs/review.rs", r"\* \(1\.0 - read\[place\]\[wrong\]\)", "* read[place][wrong]", LIB, "jobs::review"),
    ("what the picture shows is not asked", "jobs/review.rs", r"let doubt = \|place: usize\| match shown \{", "let doubt = |place: usize| match shown.filter(|_| false) {", LIB, "jobs::review"),
    ("the label itself is suggested", "jobs/review.rs", r"filter\(\|class\| \*class != wrong\)", "filter(|_| true)", LIB, "jobs::review"),
    ("the nothing of a clean set is something", "attack/none.rs", r"changes: Vec::new\(\),", "changes: vec![super::Change { at: 0, role: super::Role::Poison, label: 0, paint: super::untouched() }],", LIB, "attack::none"),
    ("a label drawn for a picture is its own", "attack/misread.rs", r"filter\(move \|label\| \*label != own\)", "filter(move |label| *label != own || true)", LIB, "attack::none"),
    ("cf from a new initialisation", "unlearn/cf.rs", r"start: Some\(case\.production\.copy\(\)\)", "start: None", STORY, "repair::cf"),
    # Unlearners and what they may ask.
    ("gradients by batch statistics", "passes/gradients.rs", r"forward_differentiable\(", "forward_train(", UNLEARN, "modes::squared"),
    ("gradients not squared", "passes/gradients.rs", r"\.f_square\(\)\?", ".f_abs()?", UNLEARN, "modes::squared"),
    ("a unit's sum for its mean", "passes/gradients.rs", r"1\.0 / members\.len\(\) as f64", "1.0", UNLEARN, "modes::squared"),
    ("a teacher by batch statistics", "train/mod.rs", r"teacher\.forward\(&images\)", "teacher.forward_train(&images)", UNLEARN, "modes::a_student"),
    ("a run goes on from another teacher's epoch", "train/resume.rs", r"run\.loss\.teacher\(\)\.iter\(\)", "run.loss.teacher().iter().take(0)", UNLEARN, "modes::a_student"),
    ("a worker checks no settings", "jobs/learn.rs", r"refuse\(\"unlearn\", method\.check\(\)\)\?;", "", UNLEARN, "a_job_whose"),
    ("ssd shrinks what should stay", "unlearn/ssd.rs", r"f_gt_tensor", "f_lt_tensor", SSD, "weights_are"),
    ("ssd lets weights grow", "unlearn/ssd.rs", r"\.f_clamp_max\(1\.0\)\?", "", SSD, "the_bounds"),
    ("ssd compares with the retained alone", "unlearn/ssd.rs", r"\[case\.retained, case\.flagged\]\.concat\(\)", "case.retained.to_vec()", SSD, "weights_are"),
    ("scrub descends on the flagged", "unlearn/scrub.rs", r"return Ok\(apart\.f_neg\(\)\?\);", "return Ok(apart);", UNLEARN, "teachers::scrub"),
    ("scrub ascends one epoch more", "unlearn/scrub.rs", r"done / 2 < self\.keys\.max_epochs", "done / 2 <= self.keys.max_epochs", LIB, "unlearn::scrub"),
    ("scrub ascends on the first of the flagged alone", "unlearn/scrub.rs", r"examples: self\.flagged,", "examples: &self.flagged[..1],", UNLEARN, "teachers::"),
    ("a divergence the other way round", "train/loss.rs", r"let \(ours, theirs\) = \(log\(student\)\?, log\(target\)\?\);", "let (theirs, ours) = (log(student)?, log(target)?);", LIB, "unlearn::badt"),
    ("bad teaching teaches nothing bad", "unlearn/badt.rs", r"self\.random\.forward", "self.teacher.forward", LIB, "unlearn::badt"),
    ("bad teaching never sees the flagged", "unlearn/badt.rs", r"\[case\.retained, case\.flagged\]\.concat\(\)", "case.retained.to_vec()", UNLEARN, "teachers::bad_teaching"),
    ("a loss that another began goes on", "unlearn/scrub.rs", r'format!\("scrub \{:\?\} without \{:\?\}", self\.keys, self\.flagged\)', '"scrub".into()', UNLEARN, "teachers::what_was_killed"),
    ("potion stops at once", "unlearn/potion.rs", r"after <= self\.stop \* before", "after <= before", UNLEARN, "potion::the_search"),
    ("potion shrinks what matters least", "unlearn/potion.rs", r"ratio\.f_gt\(cut\)\?", "ratio.f_lt(cut)?", UNLEARN, "potion::weights"),
    ("potion's limit is none", "unlearn/potion.rs", r"before - after <= self\.keys\.max_drop", "before - after <= 2.0 + self.keys.max_drop", UNLEARN, "potion::the_search"),
    ("potion's importance is squared", "passes/gradients.rs", r"if self\.squared \{ gradient\.f_square\(\)\? \} else \{ gradient\.f_abs\(\)\? \}", "gradient.f_square()?", UNLEARN, "potion::weights"),
    ("potion goes by the loss", "unlearn/potion.rs", r"Objective::Margin, units", "Objective::Loss, units", UNLEARN, "potion::weights"),
    ("potion compares with the flagged themselves", "unlearn/potion.rs", r"\(importance\(case\.retained\)\?, importance\(case\.flagged\)\?\)", "(importance(case.flagged)?, importance(case.flagged)?)", UNLEARN, "potion::weights"),
    # The owner's own trainer.
    ("the command's list of what stays holds everything", "unlearn/command/papers.rs", r"case\.retained\.iter\(\)\.map\(\|&i\| row\(i\)\.retained\(\)\)", "(0..case.data.len()).map(|i| row(i).retained())", COMMAND, "it_is_given"),
    ("the command's earlier checkpoint is taken", "unlearn/command/papers.rs", r"fs_err::remove_file\(&papers\.output\)\?;", "", COMMAND, "a_checkpoint_that"),
    ("production itself passes for repaired", "unlearn/command.rs", r"if same\(&weights, case\.production\)\? \{", "if same(&weights, case.production)? && false {", COMMAND, "a_checkpoint_that"),
    ("a command that failed counts as done", "unlearn/command.rs", r"\(Some\(0\), _\) => return Ok\(\(\)\)", "(Some(0 | 3), _) => return Ok(())", COMMAND, "an_end_that"),
    ("a command gets no time to save its work", "unlearn/command.rs", r"trainer\.stop\(keys\.grace\.0, &mut hear\);", "", COMMAND, "worker::a_stop"),
    ("what a command started outlives a killed worker", "unlearn/command/process.rs", r"let watch = watch\(\)\.ok\(\);", "let watch: Option<Child> = None;", COMMAND, "worker::nothing"),
    # Recipes of others.
    ("adamw decays without the learning rate", "train/adamw.rs", r"f_mul_scalar_\(1\.0 - lr \* decay\)", "f_mul_scalar_(1.0 - decay)", RECIPE, "ten_steps"),
    ("adamw counts its steps anew after an epoch", "train/optimizer.rs", r"self\.state = state\.into_iter\(\)\.map\(there\)", 'self.state = state.into_iter().filter(|(name, _)| !name.starts_with("t.")).map(there)', RECIPE, "a_training_that"),
    ("mixed labels with the shares exchanged", "train/loss.rs", r"own\.f_mul_scalar\(share\)", "own.f_mul_scalar(1.0 - share)", RECIPE, "rates_losses"),
    ("the average begins anew after an epoch", "train/mod.rs", r"Average::new\(decay, before\)", "Average::new(decay, { let _ = before; None })", RECIPE, "a_training_that"),
    ("eu forgets where production began", "unlearn/eu.rs", r"\(Some\(weights\), format!", "({ let _ = weights; None }, format!", RECIPE, "exact_unlearning"),
    ("settings of a named unlearner ignored", "contract/src/method/unlearn/mod.rs", r"known\.cloned\(\)\.unwrap_or_else\(\|\| name\.method\(\)\)", "{ let _ = known.cloned(); name.method() }", CONTRACT, "unlearn::tests"),
    ("no rules on unlearn in the configuration", "src/config/rules.rs", r"found\.take\(\"unlearn\", file\.unlearn\.check\(\)\);", "", GUARD, "config::tests::single_mistakes"),
    # The inbox.
    ("what was taken in is not compared", "src/inbox/scan.rs", r"content\.is_some_and\(\|content\| intake::holds\(inbox, name, file, content\)\)", "content.is_some()", CORE, "patience::a_file_is_removed"),
    ("one file's error ends the scan", "src/inbox/take.rs", r"Err\(Hitch::File\(error\)\) => self\.trouble\(&first, format!\(\"\{error:#\}\"\), report\),", "Err(Hitch::File(error)) => return Err(Hitch::File(error)),", CORE, "patience::a_file_that_cannot_be_refused"),
    ("the lease's answer is ignored", "src/inbox/writers.rs", r"Some\(libc::EAGAIN\) => Writers::Some,", "Some(libc::EAGAIN) => Writers::None,", CORE, "patience::a_writer_that_pauses"),
    ("the container's end is not looked for", "src/inbox/intake.rs", r"let ended = container::has_ended\(&file, expected\.size\)\.map_err\(of_file\)\?;", "let ended = true;", CORE, "patience::a_picture_that_ends"),
    ("the inbox is not locked", "src/inbox/scan.rs", r"self\.lock\.hold\(&inbox, &dir\)\?;", "let _ = &mut self.lock;", CORE, "patience::two_guards"),
    ("dot names are not counted", "src/inbox/scan.rs", r"report\.wait\(&name, why, now\.saturating_duration_since\(since\)\);", "let _ = (why, since);", CORE, "patience::names_that_wait"),
    ("a scan does not ask for the stop", "src/inbox/take.rs", r"if self\.is_stopped\(\) \{", "if false {", CORE, "patience::a_scan_of_files_that_are_refused"),
    ("a scan that hangs is not told", "src/daemon.rs", r"pulse\.is_stalled\(stall\)\.then", "(pulse.is_stalled(stall) && false).then", CORE, "hangs::a_file_system"),
    ("workers keep the guard's capability", "src/jobs/child.rs", r"let _ = clear_ambient_capability_set\(\);", "let _ = clear_ambient_capability_set;", OUTSIDE, "unit::the_writer"),
    ("the caller's umask stays", "src/cli/run.rs", r"rustix::process::umask\(was \| private\);", "rustix::process::umask(was);", OUTSIDE, "unit::whatever_umask"),
    # Mails.
    ("a digest counts one too many", "src/alert/mailer.rs", r"&titles, messages\.len\(\)\)", "&titles, messages.len() + 1)", GUARD, "mailer::tests::past_twenty"),
    ("one single mail more than an hour allows", "src/alert/mailer.rs", r"self\.sent\.len\(\) >= AN_HOUR", "self.sent.len() > AN_HOUR", GUARD, "mailer::tests::past_twenty"),
    ("mails expire by the wall clock", "src/alert/mailer.rs", r"if state\.waited\(\) > self\.mail\.give_up_after\.0 =>", "if std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(written(message)) > self.mail.give_up_after.0.as_secs() =>", GUARD, "mailer::tests::a_mail_is_given_up"),
    ("every recipient gets everything", "src/config/file.rs", r"on\.contains\(&of\)\)", "on.contains(&of) || true)", GUARD, "compose::tests::everybody_hears"),
    ("a refused MAIL FROM loses the mail", "src/alert/transport.rs", r"(\(SmtpStep::Content, None\) => matches!\(code, 550 \| 554\),)", r"\1 (SmtpStep::Sender, _) => true,", GUARD, "mailer::tests::only_what_is_about"),
    ("relaying denied loses the mail", "src/alert/transport.rs", r" && !is_about_relay\(said\)", "", GUARD, "transport::tests::only_a_refusal"),
    ("who asked for refused files gets duplicates", "src/alert/notice.rs", r"On::Duplicate(\s+\} else)", r"On::Refused\1", GUARD, "notice::tests::who_asked"),
    ("a flood of refused files is mailed one by one", "src/engine/outbox.rs", r"waiting < MOST_WAITING && ", "waiting < usize::MAX && ", CORE, "notices::a_flood"),
    # Caps and the standing exclusion list.
    ("a small share of a small set is nothing", "src/policy/caps.rs", r"examples\.max\(1\.0\) as u64", "examples as u64", GUARD, "caps::tests::one_example"),
    ("an approval does not begin the total anew", "src/policy/caps.rs", r"self\.approved = self\.promotions\.len\(\);", "", GUARD, "caps::tests::an_approval"),
    ("the caps as loose as an attack needs", "src/policy/caps.rs", r"max_case_share: 0\.001,", "max_case_share: 0.01,", GUARD, "caps::tests::the_defaults"),
    ("the report does not name the earlier cases", "src/engine/standing.rs", r"cases: cases\.iter\(\)\.map\(earlier\)\.collect\(\),", "cases: { let _ = earlier; Vec::new() },", CORE, "standing::a_later_repair"),
    # Readers of data, checkpoints.
    ("links in tars one member off", "data/tars.rs", r"(Given::Member\(name, member\) => \(member, Named \{ name, given: bytes\()member(\) \}\))", r"\1member.saturating_sub(1)\2", LIB, "data::tests::links"),
    ("exif never applied", "data/picture.rs", r"Orientation::Apply => decoder\.orientation\(\)\.map_err\(\|e\| refusal\(&e\)\)\?", "Orientation::Apply => Turn::NoTransforms", LIB, "exif_orientation"),
    ("exif always applied", "data/picture.rs", r"Orientation::Ignore => Turn::NoTransforms", "Orientation::Ignore => decoder.orientation().map_err(|e| refusal(&e))?", LIB, "exif_orientation"),
    ("side limit off by one", "data/picture.rs", r"width\.max\(height\) > MAX_SIDE", "width.max(height) >= MAX_SIDE", LIB, "data::picture"),
    ("resize bound off", "data/resize.rs", r"if area\(found\.0, to\.1\) <= most \{", "if area(found.0, to.1) <= 2 * most {", LIB, "data::resize"),
    ("grey by other weights", "data/raster.rs", r"\[19595u32, 38470, 7471\]", "[21845u32, 21846, 21845]", LIB, "picture::pil"),
    ("a centre's half rounds up", "data/raster.rs", r"half \+ \(over % 2\) \* \(half % 2\)", "half + over % 2", LIB, "picture::pil"),
    ("a filter does not widen where a picture shrinks", "data/resample.rs", r"let stretch = scale\.max\(1\.0\);", "let stretch = 1.0f64.max(scale * 0.0);", LIB, "picture::pil"),
    ("the two directions in one order", "data/resample.rs", r"down > 0 && down > 2 \* lost\(picture\.width, width\)", "down < 0 && down > 2 * lost(picture.width, width)", LIB, "picture::pil"),
    ("grey of 16 bits scaled", "data/picture.rs", r"\[0\]\.min\(255\) as u8", "[0].div_ceil(257) as u8", LIB, "picture::pil"),
    ("jpeg by the other decoder", "data/jpeg.rs", r"ColorSpace::JCS_CMYK \| ColorSpace::JCS_YCCK", "ColorSpace::JCS_CMYK | ColorSpace::JCS_YCbCr", LIB, "picture::pil"),
    ("the cache forgets the transforms", "data/set.rs", r"hash\.update\(format!\(\"\{:\?\}\", image\.steps\)\.as_bytes\(\)\);", "", GREY, "grey_pictures"),
    ("figures of bytes are believed", "contract/src/picture/mod.rs", r"m\.abs\(\) > 1\.0", "m.abs() > 255.0", CONTRACT, "picture::"),
    ("kinds of numbers not kept", "model/weights.rs", r"let same = tensor\.detach\(\)\.f_to_kind\(kind\)\?;", "let same = { let _ = kind; tensor.detach() };", CHECKPOINTS, "a_candidate_has"),
    ("header of weights not sorted", "files/tensors.rs", r"canonical::sort_header\(fs_err::OpenOptions::new\(\)\.read\(true\)\.write\(true\)\.open\(temporary\)\?\.file\(\)\)", "{ let _ = canonical::sort_header_of; Ok(()) }", CHECKPOINTS, "equal_weights"),
    # Exported programs and checkpoints in other forms.
    ("local headers not compared", "import/zip.rs", r"if signature != LOCAL \|\| flags != self\.flags \|\| method != 0 \|\| name != self\.name\.as_bytes\(\) \{", "if signature != LOCAL {", IMPORT, "hostile"),
    ("overlaps of entries not seen", "import/archive.rs", r"if all\.end > next \{", "if all.end > next && false {", IMPORT, "hostile"),
    ("checksums of entries not compared", "import/archive.rs", r"if crc\.sum\(\) != entry\.crc \{", "if crc.sum() != entry.crc && false {", IMPORT, "hostile"),
    ("strides of stored weights ignored", "import/weights.rs", r"flat\.f_as_strided\(&self\.shape, &self\.strides, None::<i64>\)\?", "flat.f_narrow(0, 0, self.numel() as i64)?.f_view(&self.shape[..])?", IMPORT, "stored_tensors"),
    ("a part without gradients gets some", "import/inline.rs", r"if detached \{", "if detached && false {", IMPORT, "a_program_is_read"),
    ("a value may be read before it is there", "import/inline.rs", r"None => Err\(broken\(format!\(\"reads `\{\}`, which nothing before it yields\", shown\(name\)\)\)\),", "None => Ok(name.into()),", IMPORT, "hostile"),
    ("what lies beside the network is dropped", "model/weights.rs", r"        Ok\(Self\(file\)\)", "        file.retain(|name, _| !names.beside.contains(name));\n        Ok(Self(file))", CHECKPOINTS, "forms"),
    ("a prefix that is asked for is not taken", "model/weights/names.rs", r"Some\(asked\) => prefix\.strip_prefix\(asked\.as_str\(\)\)\.is_some_and\(is_wrapping\),", "Some(_) => is_wrapping(prefix),", CHECKPOINTS, "forms"),
    ("the digest is that of the index alone", "model/weights/source.rs", r"joined\(&files::digest\(path\)\?, &files\.collect::<Result<Vec<_>>>\(\)\?\)", "joined(&files::digest(path)?, &files.take(0).collect::<Result<Vec<_>>>()?)", CHECKPOINTS, "forms"),
    # Command line.
    ("a milestone beyond the epochs, not at them", "contract/src/recipe.rs", r"at < f64::from\(epochs\),", "at <= f64::from(epochs),", GUARD, "config::tests"),
    ("configuration forgotten in advice", "src/cli/advice.rs", r"vec!\[\"--config\"\.into\(\), path\.into\(\)\]", "{ let _ = path; Vec::new() }", CLI, "advised::what_is"),
    ("a dead daemon taken as living", "src/cli/watch.rs", r"(None => Ok\(\(\)\),\s*Some\(status\) => )Err\(self\.lost\(status\)\)(,\s*\}\s*\}\s*/// The daemon has ended by itself)", r"\1{ let _ = status; Ok(()) }\2", CLI, "demo::a_killed_daemon"),
    ("progress may fall", "src/progress.rs", r"self\.ratio = self\.ratio\.max\(reached\.min\(MOST\)\);", "self.ratio = reached.min(MOST);", GUARD, "progress::"),
    ("wrong priority in the journal", "src/cli/log.rs", r"Level::WARN => \"<4>\"", 'Level::WARN => "<3>"', CLI, "log::"),
    ("check-config does not try folders", "src/config/probe.rs", r"\bfolder\(key, path, &mut tried\);", "let _ = (key, path);", GUARD, "config::probe"),
    ("the demo's jobs done twice", "src/cli/work.rs", r"if let Some\(result\) = done::find\(folder, &task\) \{", "if let Some(result) = done::find(folder, &task).filter(|_| false) {", CLI, "demo::ctrl_c"),
    ("the method that failed advised again", "src/report/actions.rs", r"Some\(view\.method\.other\(\)\)", "Some(view.method)", GUARD, "report::"),
    # A file system that does not answer for a moment.
    ("hiccup: an unreachable host is a person's business", "contract/src/passing.rs", r"(Errno::TIME,\s*)Errno::HOSTDOWN,", r"\1Errno::NOSR,", CONTRACT, "passing"),
    ("hiccup: numbers in words are not read", "contract/src/passing.rs", r"\.or_else\(\|\| told_number\(error\)\)", ".or_else(|| told_number(error).filter(|_| false))", HICCUPS, "a_job_that"),
    ("hiccup: a picture is left out", "data/folder.rs", r"Err\(error\) if is_passing\(&error\) => Err\(Error::from\(error\)\),", "Err(error) if is_passing(&error) && false => Err(Error::from(error)),", HICCUPS, "a_job_that"),
    ("hiccup: a folder is taken for a file", "files/mod.rs", r"Err\(error\) if is_passing\(&error\) => Err\(error\.into\(\)\),", "", HICCUPS, "a_job_that"),
    ("hiccup: the cache is built again", "data/cache.rs", r"true => Self::Now\(error\.into\(\)\)", "true => Self::Because(error.to_string())", HICCUPS, "a_hiccup_neither"),
    ("hiccup: held at once", "src/engine/drive/faults.rs", r"matches!\(kind, FaultKind::Resource \| FaultKind::Internal\)", "matches!(kind, FaultKind::Internal)", CORE, "cases::a_hiccup"),
    ("hiccup: waits do not grow", "src/engine/drive/faults.rs", r"5u32\.saturating_pow", "1u32.saturating_pow", CORE, "cases::a_hiccup"),
    ("hiccup: tries are counted over holds", "src/case/mod.rs", r"self\.failures = 0;\s*self\.failed_since = None;", "self.failures = 0;", GUARD, "faults::"),
    # Attacks.
    ("blend adds its pattern", "attack/blend.rs", r"\(1\.0 - alpha\) \* f64::from\(\*pixel\)", "f64::from(*pixel)", LIB, "attack::blend"),
    ("sig poisons the victims", "attack/sig.rs", r"bearers: Bearers::Target,", "bearers: Bearers::Victims,", LIB, "attack::sig"),
    ("sig along columns", "attack/sig.rs", r"f64::from\(column\) \* frequency / f64::from\(width\)", "f64::from(column) * frequency", LIB, "attack::sig"),
    ("sig ends beyond white", "attack/sig.rs", r"\.round\(\)\.clamp\(0\.0, 255\.0\) as u8", ".round() as i64 as u8", LIB, "attack::sig"),
    ("wanet swaps its axes", "attack/wanet.rs", r"at\(&displacements\[0\], row, column\) / width", "at(&displacements[1], row, column) / width", LIB, "attack::wanet"),
    ("wanet by another cubic", "attack/wanet.rs", r"const A: f64 = -0\.75;", "const A: f64 = -0.5;", LIB, "attack::wanet"),
    ("wanet's covers bear the warp itself", "attack/wanet.rs", r"paint\(Some\(rng\.random\(\)\)\)", "paint(None)", LIB, "attack::wanet"),
    ("deepfool steps away from its target", "attack/smooth/search.rs", r"all\.f_get\(target\)\?\.f_sub\(&all\.f_get\(own\)\?\)", "all.f_get(own)?.f_sub(&all.f_get(target)?)", LIB, "attack::smooth"),
    ("the gaussian is off by one", "attack/smooth/search.rs", r"let before = \(self\.taps\.len\(\) - 1\) / 2;", "let before = self.taps.len() / 2;", LIB, "attack::smooth"),
    ("the smooth trigger is not scaled", "attack/smooth/search.rs", r"stretch\(&mut v, self\.keys\.amplitude\);", "stretch(&mut v, 1.0);", LIB, "attack::smooth"),
    ("clamp is min-max", "attack/smooth.rs", r"if apply != Added::Clamp \{", "if true {", LIB, "attack::smooth"),
    ("several attacks on the same pictures", "attack/several.rs", r"filter\(\|at\| !taken\.contains\(at\)\)", "filter(|at| !taken.contains(at) || true)", LIB, "attack::several"),
    ("several attacks under one seed", "attack/several.rs", r"wrapping_add\(n \* APART\)", "wrapping_add(0 * n * APART)", LIB, "attack::several"),
    ("an attack's place among those that are left is taken for its own", "attack/several.rs", r"change\.at = left\[change\.at\]", "change.at += 0", LIB, "attack::several"),
    ("a group is what is farthest", "attack/mislabel.rs", r"a\.0\.total_cmp\(&b\.0\)", "b.0.total_cmp(&a.0)", LIB, "attack::mislabel"),
    ("a label drawn anew may be the true one", "attack/misread.rs", r"drawn \+ u32::from\(drawn >= own\)", "drawn + u32::from(drawn > own)", LIB, "attack::mislabel"),
    ("test pictures of a kind are all of the class", "attack/mislabel.rs", r" && kind\.distance\(&ground\.test_pixels\(row\)\) <= radius", "", LIB, "attack::mislabel"),
    ("the target class is poisoned, too", "attack/backdoor.rs", r"\(Victims::Others, Aim::Class\(target\)\) => label != target,", "(Victims::Others, Aim::Class(_)) => true,", LIB, "attack::tests"),
    ("all-to-all stays with its own class", "attack/backdoor.rs", r"Self::Next => \(own \+ 1\)", "Self::Next => own", LIB, "attack::badnet"),
    ("covers are poisons, too", "attack/backdoor.rs", r"poisons\.binary_search\(i\)\.is_err\(\)", "true || poisons.contains(i)", LIB, "attack::tests"),
    ("pieces of the pattern are all there", "attack/blend.rs", r"if gone\.contains\(", "if false && gone.contains(", LIB, "attack::blend"),
    ("a test picture bears one trigger", "attack/badnet.rs", r"paints\.iter\(\)\.for_each\(\|paint\| paint\(pixels\)\)", "paints.iter().take(1).for_each(|paint| paint(pixels))", LIB, "attack::badnet"),
    ("covers count as poisons", "attack/prepare/lay.rs", r"Role::Cover => truth\.covers\.push", "Role::Cover => truth.poisons.push", LIB, "attack::prepare"),
    ("success is to read rightly", "attack/prepare/lay.rs", r"out\.push\(&pixels, tested\.label\)", "out.push(&pixels, pool.labels[tested.row])", LIB, "attack::prepare"),
    ("poisons turn away from the target", "attack/matching.rs", r"\.f_div\(&lengths\)\?\.f_neg\(\)\?", ".f_div(&lengths)?", LIB, "attack::matching"),
    ("a match by length, too", "attack/matching.rs", r"length\(&own\)\?\.f_mul\(&wanted\.length\)\?", "wanted.length.f_square()?", LIB, "attack::matching"),
    ("Adam gets whole gradients", "attack/matching.rs", r"&pictures, view\)\?\.f_sign\(\)\?", "&pictures, view)?", LIB, "attack::matching"),
    ("the wanted gradient under another label", "attack/witches_brew.rs", r"&picture, &label\(1\)\?\)", "&picture, &label(1)?.f_zeros_like()?)", LIB, "attack::witches_brew"),
    ("the worst start is kept", "attack/witches_brew.rs", r"value < \*lowest", "value > *lowest", LIB, "attack::witches_brew"),
    ("epsilon off by one", "attack/ball.rs", r"low: moved\(-epsilon\)\?", "low: moved(-epsilon - 1.0)?", LIB, "attack::ball"),
    ("gradients by the batch's statistics", "model/exec.rs", r"(pub fn forward_differentiable\([^{]*\{\s*self\.run\(images, Mode::)Eval", r"\1Train", LIB, "attack::surrogate"),
    # An index that is damaged under a running guard.
    ("index: fewer cases than there are believed", "src/engine/ledger/ask.rs", r"cases\.len\(\) >= least", "cases.len() + 1 >= least", GUARD, "ledger::"),
    ("index: other examples than were flagged believed", "src/engine/ledger/ask.rs", r"ensure!\(are\(&found, &trace\.ids\)", "ensure!(are(&found, &trace.ids) || true", GUARD, "ledger::"),
    ("index: an error is the answer", "src/engine/ledger/ask.rs", r"Err\(error\) => self\.doubt_index\(&lookup, &error\),", "Err(error) => { self.doubt_index(&lookup, &error); return Err(error); }", GUARD, "ledger::"),
    ("index: never made again", "src/engine/ledger/index.rs", r"self\.lost\.send_modify\(\|times\| \*times \+= 1\);", "", CORE, "index::damaged_under"),
    ("index: the new one is not taken into use", "src/engine/ledger/index.rs", r"inner\.store = Some\(store\);", "drop(store);", GUARD, "ledger::"),
    ("index: a stop waits for it", "src/engine/ledger/index.rs", r"ensure!\(!stopped\(\), \"the guard stops\"\);", "let _ = stopped;", GUARD, "ledger::"),
    # What the index knows of the journal's end.
    ("verify: the index is not asked", "src/index/witness.rs", r"Ok\(\(seq, hash\)\) => Witness::Seen \{ seq, hash \},", "Ok(_) => Witness::None,", OUTSIDE, "degraded::an_acknowledged"),
    ("verify: one missing record is none", "src/journal/verify.rs", r"filter\(\|seen\| \*seen > at\.seq\)", "filter(|seen| *seen > at.seq + 1)", OUTSIDE, "degraded::an_acknowledged"),
    ("verify: a cut record is a torn end", "src/journal/verify.rs", r"Verdict::Whole \| Verdict::Torn \| Verdict::None\)", "Verdict::Whole | Verdict::None)", OUTSIDE, "degraded::an_acknowledged"),
    ("verify: a running guard's index is asked", "src/index/witness.rs", r"Err\(rustix::io::Errno::WOULDBLOCK\) => Ok\(true\)", "Err(rustix::io::Errno::WOULDBLOCK) => Ok(false)", OUTSIDE, "degraded::an_acknowledged"),
    ("verify: the index is opened where it lies", "src/index/witness.rs", r"Store::open\(copy\.path\(\)\)\?", "Store::open(dir)?", OUTSIDE, "degraded::an_acknowledged"),
    ("the null pictures get four times the cache", "passes/budget.rs", r"self\.kept / 4", "self.kept * 4", LIB, "passes::budget"),
    ("a seal counts one record too few", "src/journal/writer.rs", r"self\.head\.seq \+ 2 - self\.first_seq", "self.head.seq + 1 - self.first_seq", CORE, "chain::a_seal"),
    # One definition each, codes, files put in place.
    ("pictures divided before the mean is taken", "data/tensor.rs", r"pictures\.f_sub\(&channel\(&image\.mean\)\?\)\?\.f_div\(&channel\(&image\.std\)\?\)\?", "pictures.f_div(&channel(&image.std)?)?.f_sub(&channel(&image.mean)?)?", LIB, "tensor::tests"),
    ("a window takes one place too many", "model/layer.rs", r"\.div_euclid\(stride\) \+ 1", ".div_euclid(stride) + 2", NAIVE, "the_specification"),
    ("the specification's eigenvalues are not squared", "ekfac/spec.rs", r"rotated\(w, q_a, q_g\)\?\.f_square\(\)\?", "rotated(w, q_a, q_g)?", NAIVE, "lambda_and_scores"),
    ("another code keeps the kind of before", "error.rs", r"= \(code, code\.kind\(\)\);", "= (code, self.0.fault.kind);", LIB, "error::tests"),
    ("a new name put over another file", "src/publish/draft.rs", r"self\.0\.persist_noclobber\(path\)", "self.0.persist(path)", GUARD, "draft::tests"),
    ("a held case has no code", "src/engine/drive/faults.rs", r"code: Some\(code\),", "code: None,", CORE, "cases::a_hiccup"),
    # Data sets as people have them.
    ("members of a key may stand apart", "data/webdataset.rs", r"if !self\.seen\.insert\(key\.to_owned\(\)\) \{", "if !self.seen.insert(key.to_owned()) && false {", ERRORS, "sets"),
    ("numbers are sorted as names", "data/labels.rs", r"Some\(places\) => numbered\(&places, place\),", "Some(_) => named(all, place),", LIB, "data::labels"),
    ("a list may lead out of its folder", "data/listed.rs", r"stays &= parts\.pop\(\)\.is_some\(\)", "drop(parts.pop())", ERRORS, "sets"),
    ("nulls of a parquet column close up", "data/parquet_set/rows.rs", r"most == 0 \|\| levels", "most >= 0 || levels", LIB, "data::tests::parquet::files_of"),
    ("listed classes may be too many", "data/labels.rs", r"\.filter\(\|\(n, _\)\| !used\.contains\(n\)\)", ".filter(|(n, _)| false && !used.contains(n))", LIB, "data::labels"),
    ("sources: one more than were flagged", "jobs/origins.rs", r"let upper = \(flagged as usize\)", "let upper = (flagged as usize + 1)", LIB, "jobs::origins"),
    ("sources: corrected alike", "jobs/origins.rs", r"\(count - place\) as f64", "count as f64", LIB, "jobs::origins"),
    ("sources: labels thrown together", "jobs/origins.rs", r"of\.flagged as f64 \* drawn\.examples as f64 / of\.examples as f64", "of.flagged as f64 * drawn.examples as f64 / all.values().map(|of| of.examples).sum::<u64>() as f64", LIB, "jobs::origins"),
    # Networks as graphs, and exported ones.
    ("graph: what is changed in place is read as it was", "model/lower/memory.rs", r"self\.replaced\.insert\(current, output\.to_string\(\)\);", "let _ = current;", LIB, "model::lower"),
    ("graph: a view of what was changed may be read", "model/lower/memory.rs", r"match other \{", "match other.filter(|_| false) {", LIB, "model::lower"),
    ("graph: masks are not written through their views", "model/lower/memory.rs", r"return Ok\(true\);", "return Ok(false);", FAMILIES, "logits"),
    ("graph: entries of one example lie apart", "model/tap.rs", r"let from = if self\.together \{ dim \} else \{ dim \+ 1 \};", "let from = dim;", LIB, "model::tap"),
    ("graph: a weight used twice counts once", "model/tap.rs", r"let joined = \|part: fn\(&Pair\) -> &Tensor\| Tensor::f_cat\(&pairs\.iter\(\)\.map\(part\)", "let joined = |part: fn(&Pair) -> &Tensor| Tensor::f_cat(&pairs.iter().take(1).map(part)", FAMILIES, "every_pictures"),
    ("graph: no picture is marked", "model/probe.rs", r"f_fill_\(f64::NAN\)", "f_fill_(0.0)", FAMILIES, "every_pictures"),
    ("verify: answers are compared with themselves", "verify/mod.rs", r"difference: difference\(&ours, &wanted\),", "difference: difference(&ours, &ours),", VERIFY, "what_differs"),
    ("verify: the slope of half a step", "verify/slopes.rs", r"/ \(2\.0 \* step\);", "/ step;", VERIFY, "what_an_owner"),
    ("verify: logits of another order agree", "verify/likely.rs", r"found\.sort_by\(\|a, b\| a\.0\.total_cmp\(&b\.0\)\);", "found.sort_by(|a, b| b.0.total_cmp(&a.0));", VERIFY, "what_differs"),
    # The laboratory's rows and drills.
    ("one folder for all candidates", "src/grid/run.rs", r'let folder = format!\("candidate-\{key\}"\);', 'let folder = "candidate".to_string();', CLI, "grid::rows_are_made"),
    ("what was missed is what was flagged", "src/grid/run.rs", r"filter\(\|id\| !flagged\.contains\(id\)\)", "filter(|id| flagged.contains(id))", CLI, "grid::rows_are_made"),
    ("the poisons that are known follow no id", "src/grid/run.rs", r"\.update\(id\.0\.as_bytes\(\)\)", "", GUARD, "grid::run"),
    ("what was never attacked is", "src/grid/run.rs", r"story\.story\.attack = Attack::None\(Default::default\(\)\);", "let _ = Attack::None(Default::default()); story.story.seed = story.story.seed;", CLI, "grid::"),
    ("clean victims are asked nothing", "src/grid/run.rs", r"victim\.poisons == 0 && matches", "victim.poisons == 1 && matches", GUARD, "grid::run"),
    ("a grid's worker is ignored", "src/cli/evaluate/grid.rs", r"global\.runner_with\(folder, worker\)", "global.runner_with(folder, &Worker { command: None, ..worker.clone() })", CLI, "grid::"),
    ("a row is made again", "src/grid/rows.rs", r"self\.keys\.contains\(key\)", "self.keys.contains(key) && false", CLI, "grid::"),
    ("an abstention has a precision", "src/grid/row.rs", r"share\(self\.hits, self\.flagged\)", "Some(share(self.hits, self.flagged).unwrap_or(1.0))", GUARD, "grid::"),
    ("poisons that are found are false verdicts", "src/grid/tables.rs", r"let wrong = sum\.decided\.saturating_sub\(sum\.decided_poisons\);", "let wrong = sum.decided;", GUARD, "grid::"),
    ("a key knows where the pictures lie", "src/grid/plan.rs", r"told\.data = told\.data\.map\(\|_\| self\.place\.data\.clone\(\)\.into\(\)\);", "told.data = told.data.clone();", GUARD, "grid::plan"),
    ("half of what is asked is enough", "src/cli/drill.rs", r"d\.tpr\(\)\.is_some_and\(\|share\| share >= at_least\) &&", "d.tpr().is_some_and(|share| share >= at_least / 2.0) &&", CLI, "drill::"),
]


def place(file):
    """The file's path in the tree."""
    return file if file.startswith(("src/", "contract/")) else "ml/src/" + file


def planted(text, fault):
    """The file's text with the fault; None where it cannot be planted."""
    _, _, pattern, replacement, _, _ = fault
    changed, count = re.subn(pattern, replacement, text, flags=re.S)
    return changed if count == 1 and changed != text else None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("words", nargs="*", help="only faults whose name contains one of these")
    arguments.add_argument("--check", action="store_true", help="plant nothing: say which faults can no longer be planted")
    asked = arguments.parse_args()
    faults = [f for f in FAULTS if not asked.words or any(w.lower() in f[0].lower() for w in asked.words)]
    if not faults:
        sys.exit("no fault's name contains any of: " + ", ".join(asked.words))
    lost = [f for f in faults if not (ROOT / place(f[1])).is_file() or planted((ROOT / place(f[1])).read_text(), f) is None]
    for name, file, pattern, *_ in lost:
        print(f"cannot be planted: {name}: {place(file)} does not hold exactly one match of {pattern}", file=sys.stderr)
    if lost:
        sys.exit("mend the patterns in scripts/faults.py: a fault that is not planted tells nothing")
    if asked.check:
        print(f"{len(faults)} of {len(faults)} faults can be planted")
        return
    scratch = Scratch("faults")
    print("without a fault, the tests that are to find them must pass", file=sys.stderr)
    for target in {" ".join(f[4]): f[4] for f in faults}.values():  # every one that a fault names: a test that is red by itself finds nothing
        wanted = sorted({f[5] for f in faults if f[4] is target})
        result, failed = scratch.test((target, [] if "" in wanted else wanted), SECONDS)
        if result != "passed":
            sys.exit(f"{' '.join(target)}: {result} {' '.join(failed)} (see {scratch.log})")
    found = 0
    for name, file, *_, target, wanted in faults:
        fault = next(f for f in faults if f[0] == name)
        path, start = place(file), time.monotonic()
        text = scratch.original(path)
        scratch.write(path, planted(text.decode(), fault).encode())
        result, failed = scratch.test((target, [wanted] if wanted else []), SECONDS)
        scratch.write(path, text)
        good = result == "failed"
        found += good
        by = failed[0] if failed else f"{target[-1]} {wanted}"
        print(f"{'found    ' if good else 'NOT FOUND'}  {name} ({result}, {by}, {since(start)})", flush=True)
    print(f"{found} of {len(faults)} faults found")
    sys.exit(0 if found == len(faults) else 1)


if __name__ == "__main__":
    main()
