//! A ceiling for the worker's memory, so that a job that wants too much ends with a named fault instead of taking the machine down.
//!
//! The ceiling is the kernel's (`RLIMIT_AS`): an allocation beyond it fails, and what fails says so. It counts address space, which is more than what is in use:
//! libraries, the stacks and the allocator's arenas of each thread, and files that are mapped. Those are added on top of what is asked for, as they come.
//! CUDA reserves address space by the terabyte and is left without a ceiling.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Address space that a thread may take for itself: its stack, and two arenas of the allocator.
const THREAD: u64 = 144 << 20;
/// Part of the machine's memory that is taken where nothing is set, in percent.
const SHARE: u64 = 90;

/// Let this process use `bytes` on top of what it has mapped so far; 0: nine tenths of the machine's memory, or of the control group's where that is less.
/// Says what was set; `None` where the system does not tell what there is, or a tighter limit stands already.
pub fn limit(bytes: u64, threads: u32) -> Option<u64> {
    let bytes = allowed(bytes)?;
    let threads = u64::from(threads).max(cores());
    let ceiling = mapped()?.saturating_add(bytes).saturating_add(threads.saturating_mul(THREAD));
    let now = getrlimit(Resource::As);
    if now.current.is_some_and(|current| current <= ceiling) || now.maximum.is_some_and(|most| most < ceiling) {
        return None;
    }
    let wanted = Rlimit {
        current: Some(ceiling),
        maximum: now.maximum,
    };
    setrlimit(Resource::As, wanted).ok().map(|()| bytes)
}

/// What `bytes` (`worker.memory_limit`) lets this process use, 0 being nine tenths of the machine's memory, or of the control group's.
fn allowed(bytes: u64) -> Option<u64> {
    if bytes > 0 { Some(bytes) } else { Some(machine()? / 100 * SHARE) }
}

/// Bytes that queries may take on the CPU: what is asked for (`worker.query_budget`), but no more than half of what the process may use (`worker.memory_limit`).
pub fn for_queries(asked: u64, limit: u64) -> u64 {
    allowed(limit).map_or(asked, |allowed| asked.min(allowed / 2))
}

/// Raise the ceiling, where there is one, by a file that is about to be mapped: its pages are the kernel's to drop.
pub fn allow_mapping(bytes: u64) {
    let now = getrlimit(Resource::As);
    if let Some(current) = now.current {
        let wanted = Rlimit {
            current: Some(now.maximum.unwrap_or(u64::MAX).min(current.saturating_add(bytes))),
            maximum: now.maximum,
        };
        // Where it may not be raised the mapping fails, and says so.
        let _ = setrlimit(Resource::As, wanted);
    }
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// Address space of this process, bytes.
fn mapped() -> Option<u64> {
    kilobytes(&fs_err::read_to_string("/proc/self/status").ok()?, "VmSize:")
}

/// Memory that this process may hope for, bytes.
fn machine() -> Option<u64> {
    let all = kilobytes(&fs_err::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    Some(group().map_or(all, |group| group.min(all)))
}

/// The limit of the control group (version 2), if there is one.
fn group() -> Option<u64> {
    let groups = fs_err::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    fs_err::read_to_string(format!("/sys/fs/cgroup{own}/memory.max"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_take_half_of_what_there_is_at_most() {
        assert_eq!(for_queries(6 << 30, 4 << 30), 2 << 30);
        assert_eq!(for_queries(1 << 30, 4 << 30), 1 << 30);
        let all = for_queries(u64::MAX, 0);
        assert!((1 << 28..u64::MAX).contains(&all), "{all}");
    }
}
