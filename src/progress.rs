//! How far a job is: one number that never falls, made from the steps that its worker reports, and from it the time that is left. The same for the
//! terminal, the log and the metrics.

use crate::text;
use delta_guard_contract::Progress;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// Steps of each job in their order, each with its usual share of the time. A step that is left out (pixels that lie in the cache, factors that are found on
/// disk) is jumped over; a stage that may go several ways has a plan for each, and the first step that only one of them has tells which; one that comes again (rounds of kin) does not take the number back.
const PLANS: [(&str, &[(&str, f64)]); 11] = [
    ("predict", &[("read", 1.0), ("decode", 1.0)]),
    (
        "fit",
        &[
            ("read", 1.0),
            ("decode", 3.0),
            ("covariance", 10.0),
            ("eigenbasis", 2.0),
            ("lambda", 10.0),
        ],
    ),
    ("trace", TRACE),
    ("retrace", TRACE),
    ("unlearn", &[("read", 1.0), ("decode", 3.0), ("train", 96.0)]),
    ("unlearn", &[("read", 1.0), ("decode", 3.0), ("gradients", 76.0), ("measure", 20.0)]),
    ("unlearn", &[("read", 1.0), ("decode", 3.0), ("command", 92.0), ("measure", 4.0)]),
    ("train", &[("read", 1.0), ("decode", 3.0), ("train", 96.0)]),
    (
        "certify",
        &[("read", 5.0), ("decode", 15.0), ("measure production", 40.0), ("measure candidate", 40.0)],
    ),
    ("measure", &[("read", 5.0), ("decode", 15.0), ("measure", 80.0)]),
    ("prepare", &[("read", 10.0), ("decode", 30.0), ("prepare", 60.0)]),
];

/// The trace of a production model, and of a candidate.
const TRACE: &[(&str, f64)] = &[
    ("read", 1.0),
    ("decode", 3.0),
    ("covariance", 10.0),
    ("eigenbasis", 2.0),
    ("lambda", 10.0),
    ("placebo", 2.0),
    ("score", 60.0),
    ("null", 6.0),
    ("kin", 30.0),
];

/// Whole only when the job has ended.
const MOST: f64 = 0.99;
/// Less than this is too little to tell the time that is left from.
const ENOUGH: f64 = 0.02;

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnderWay {
    /// The stage, or the command.
    pub stage: String,
    /// 0 to 1 of the whole stage. It never falls.
    pub ratio: f64,
    /// What the worker is at.
    pub step: String,
    /// Units of this step that are done.
    pub done: u64,
    /// Units of this step in all; 0 where it is not known.
    pub total: u64,
    /// Seconds that are left of the stage; None while too little is done to tell.
    pub seconds_left: Option<f64>,
}

impl UnderWay {
    /// Whole percent.
    pub fn percent(&self) -> u32 {
        (100.0 * self.ratio) as u32
    }
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} %: {}", self.stage, self.percent(), self.step)?;
        if self.total > 0 {
            write!(f, " {} of {}", text::thousands(self.done), text::thousands(self.total))?;
        }
        match self.seconds_left {
            Some(seconds) => write!(f, ", {} left", text::seconds(seconds.max(1.0).round())),
            None => Ok(()),
        }
    }
}

/// Follows one job.
#[derive(Debug)]
pub struct Along {
    stage: String,
    plan: &'static [(&'static str, f64)],
    ratio: f64,
    /// Where the first report found it, and when: a job that goes on begins in the middle.
    first: Option<(f64, Instant)>,
}

impl Along {
    /// A job of a stage, or of the command of that name.
    pub fn new(stage: &str) -> Self {
        let plan = PLANS.iter().find(|(name, _)| *name == stage).map_or(&[][..], |(_, plan)| plan);
        Self {
            stage: stage.into(),
            plan,
            ratio: 0.0,
            first: None,
        }
    }

    /// The worker reports, at this time.
    pub fn hear(&mut self, progress: &Progress, now: Instant) -> UnderWay {
        let has = |plan: &[(&str, f64)]| plan.iter().any(|(step, _)| *step == progress.step);
        if !has(self.plan)
            && let Some((_, plan)) = PLANS.iter().find(|(name, plan)| *name == self.stage && has(plan))
        {
            self.plan = plan;
        }
        if let Some(place) = self.plan.iter().position(|(step, _)| *step == progress.step) {
            let share = |steps: &[(&str, f64)]| steps.iter().map(|(_, share)| share).sum::<f64>();
            let part = if progress.total == 0 {
                0.0
            } else {
                (progress.done as f64 / progress.total as f64).clamp(0.0, 1.0)
            };
            let reached = (share(&self.plan[..place]) + part * self.plan[place].1) / share(self.plan);
            self.ratio = self.ratio.max(reached.min(MOST));
        }
        let (from, since) = *self.first.get_or_insert((self.ratio, now));
        let gained = self.ratio - from;
        let seconds_left = (gained >= ENOUGH).then(|| now.saturating_duration_since(since).as_secs_f64() * (1.0 - self.ratio) / gained);
        UnderWay {
            stage: self.stage.clone(),
            ratio: self.ratio,
            step: progress.step.clone(),
            done: progress.done,
            total: progress.total,
            seconds_left,
        }
    }
}

/// Lets a line through at each tenth of a job, and at none twice.
#[derive(Debug, Default)]
pub struct Tenths(u32);

impl Tenths {
    /// Is another tenth done?
    pub fn next(&mut self, now: &UnderWay) -> bool {
        let tenth = now.percent() / 10;
        let more = tenth > self.0;
        self.0 = self.0.max(tenth);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report(step: &str, done: u64, total: u64) -> Progress {
        Progress {
            step: step.into(),
            done,
            total,
            note: String::new(),
        }
    }

    /// The case of the field: 100 %, then 13, then 20.
    #[test]
    fn it_never_falls_and_is_whole_only_at_the_end() {
        let mut along = Along::new("trace");
        let begun = Instant::now();
        let mut last = 0.0;
        let told = [
            ("read", 5, 5),
            ("decode", 5, 5),
            ("placebo", 20, 20),
            ("score", 100, 800),
            ("score", 800, 800),
            ("null", 300, 300),
            ("kin", 400, 800),
            ("null", 10, 300),
            ("kin", 100, 800),
            ("a step of a later version", 1, 2),
            ("kin", 800, 800),
        ];
        let mut seen = Vec::new();
        for (step, done, total) in told {
            let now = along.hear(&report(step, done, total), begun);
            assert!(now.ratio >= last && now.ratio <= MOST, "{now:?}");
            assert_eq!((now.step.as_str(), now.done, now.total), (step, done, total));
            last = now.ratio;
            seen.push(now.percent());
        }
        assert_eq!(seen, [0, 3, 22, 28, 70, 75, 87, 87, 87, 87, 99]);
    }

    /// A repair that trains, and one that only takes gradients.
    #[test]
    fn a_step_tells_which_way_a_stage_goes() {
        let begun = Instant::now();
        for (steps, percent) in [
            (["decode", "train"], [4, 52]),
            (["decode", "gradients"], [4, 42]),
            (["gradients", "measure"], [42, 90]),
        ] {
            let mut along = Along::new("unlearn");
            // Each step is half done; the first one whole.
            let seen = steps
                .iter()
                .map(|step| along.hear(&report(step, 1, 1 + u64::from(*step != "decode")), begun).percent());
            assert_eq!(seen.collect::<Vec<_>>(), percent, "{steps:?}");
        }
    }

    #[test]
    fn the_time_left_follows_what_was_gained_since_the_first_report() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut along = Along::new("train");
        // It goes on after a restart: half is there already.
        assert_eq!(along.hear(&report("train", 50, 100), at(0)).seconds_left, None);
        let now = along.hear(&report("train", 75, 100), at(60));
        assert!((now.seconds_left.unwrap() - 60.0).abs() < 1.0, "{now:?}");
        assert_eq!(now.to_string(), "train 76 %: train 75 of 100, 60 s left");
    }

    #[test]
    fn a_line_at_each_tenth() {
        let mut along = Along::new("measure");
        let mut tenths = Tenths::default();
        let lines = (0..=1000)
            .map(|done| along.hear(&report("measure", done, 1000), Instant::now()))
            .filter(|now| tenths.next(now))
            .count();
        assert_eq!(lines, 8, "from 20 % to 90 %");
    }

    proptest::proptest! {
        /// Whatever a worker reports.
        #[test]
        fn no_report_takes_it_back(reports in proptest::collection::vec((0usize..12, 0u64..50, 0u64..50), 1..60)) {
            let mut along = Along::new("trace");
            let mut last = 0.0;
            for (step, done, total) in reports {
                let name = PLANS[2].1.get(step).map_or("unknown", |(name, _)| name);
                let now = along.hear(&report(name, done, total), Instant::now());
                proptest::prop_assert!(now.ratio >= last && (0.0..=MOST).contains(&now.ratio));
                proptest::prop_assert!(now.seconds_left.is_none_or(|left| left.is_finite() && left >= 0.0));
                last = now.ratio;
            }
        }
    }
}
