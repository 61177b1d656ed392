//! Files that something went wrong with: each is tried again after a while, longer each time; the others do not wait for it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

/// Wait before the second try; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What went wrong, by name.
#[derive(Default)]
pub(super) struct Troubles(HashMap<OsString, Trouble>);

struct Trouble {
    tries: u32,
    since: Instant,
    next: Instant,
    why: String,
}

impl Troubles {
    /// It went wrong (again). Returns the wait before the next try; None where it was not time for one yet.
    pub fn add(&mut self, name: &OsStr, why: String, now: Instant) -> Option<Duration> {
        let trouble = self.0.entry(name.to_owned()).or_insert(Trouble {
            tries: 0,
            since: now,
            next: now,
            why: String::new(),
        });
        if trouble.next > now {
            return None;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << trouble.tries.min(16)).min(LONGEST_WAIT);
        trouble.tries += 1;
        trouble.next = now + wait;
        trouble.why = why;
        Some(wait)
    }

    /// Is it not time for another try yet?
    pub fn must_wait(&self, name: &OsStr, now: Instant) -> bool {
        self.0.get(name).is_some_and(|trouble| trouble.next > now)
    }

    /// What went wrong last.
    pub fn why(&self, name: &OsStr) -> &str {
        self.0.get(name).map_or("", |trouble| &trouble.why)
    }

    /// Since when it has been going wrong.
    pub fn since(&self, name: &OsStr, now: Instant) -> Duration {
        self.0
            .get(name)
            .map_or(Duration::ZERO, |trouble| now.saturating_duration_since(trouble.since))
    }

    /// It went well.
    pub fn over(&mut self, name: &OsStr) {
        self.0.remove(name);
    }

    /// Forget those that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&OsStr) -> bool) {
        self.0.retain(|name, _| is_there(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_waits_longer_and_no_try_comes_early() {
        let (mut troubles, name, mut now) = (Troubles::default(), OsStr::new("x"), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            let Some(wait) = troubles.add(name, "why".into(), now) else {
                panic!("too early")
            };
            assert!(troubles.must_wait(name, now) && troubles.add(name, "again".into(), now).is_none());
            assert_eq!(troubles.why(name), "why");
            now += wait;
            assert!(!troubles.must_wait(name, now));
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        troubles.over(name);
        assert_eq!(troubles.add(name, String::new(), now), Some(FIRST_WAIT));
    }
}
