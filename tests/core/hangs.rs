//! File systems that do not answer: it is told, and the guard can be stopped all the same.

use crate::support::{Recorder, drop_picture, settings, wait_for};
use delta_guard::daemon::{self, Readiness, Started};
use delta_guard::engine::{Happening, Hooks, Message};
use delta_guard::policy::Mode;
use delta_guard::settings::Settings;
use delta_guard::stop::{self, Stop};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::{sync::oneshot, sync::watch};

/// Stands in for a file system that hangs: whoever takes a picture in is held until the gate opens.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

impl Hooks for Gate {
    fn on(&self, event: Happening) {
        if let Happening::Accepted { .. } = event {
            let open = self.0.lock().unwrap();
            drop(self.1.wait_while(open, |open| !*open).unwrap());
        }
    }

    fn report(&self, _: &delta_guard::engine::CaseView) -> anyhow::Result<String> {
        Ok(String::new())
    }

    fn messages(&self, _: &delta_guard::engine::CaseView) -> Vec<Message> {
        Vec::new()
    }
}

type Running = (Runtime, JoinHandle<anyhow::Result<()>>, watch::Receiver<Readiness>);

/// A daemon on a runtime of its own.
fn started(settings: &Settings, hooks: Arc<dyn Hooks>, stop: Stop) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (sender, receiver) = oneshot::channel();
    let task = runtime.spawn(daemon::run(settings.clone(), hooks, stop, sender));
    let Ok(Started { readiness, .. }) = runtime.block_on(receiver) else {
        panic!("the daemon did not start")
    };
    (runtime, task, readiness)
}

#[test]
fn a_scan_that_hangs_is_told_and_does_not_keep_the_guard_from_stopping() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Observe);
    settings.inbox.stall = Duration::from_millis(100);
    let gate = Arc::new(Gate::default());
    let (stopper, stop) = stop::channel();
    let (runtime, task, mut readiness) = started(&settings, Arc::clone(&gate) as Arc<dyn Hooks>, stop);
    let mut wait = |what: &str, wanted: fn(&Readiness) -> bool| wait_for(what, || wanted(&readiness.borrow_and_update()).then_some(()));
    wait("readiness", |now| now.is_ready());
    drop_picture(&settings, "a.png", "label=dog\n", None);
    wait("the stall", |now| {
        !now.is_ready() && now.stalled.as_ref().is_some_and(|why| why.contains("inbox"))
    });
    gate.open();
    wait("readiness again", |now| now.is_ready());
    *gate.0.lock().unwrap() = false;
    drop_picture(&settings, "b.png", "label=dog\nflag=2\n", None);
    wait("the second stall", |now| !now.is_ready());
    stopper.stop();
    runtime.block_on(task).unwrap().unwrap();
    gate.open();
}

/// The checkpoint's file system hangs: the open of it does not come back. A pipe without a writer does the same, in the same system call.
#[test]
fn a_file_system_that_does_not_answer_is_told_and_left_behind() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Observe);
    settings.inbox.stall = Duration::from_millis(100);
    let (stopper, stop) = stop::channel();
    let (runtime, task, mut readiness) = started(&settings, Arc::new(Recorder::default()), stop);
    let mut wait = |what: &str, wanted: fn(&Readiness) -> bool| wait_for(what, || wanted(&readiness.borrow_and_update()).then_some(()));
    wait("readiness", |now| now.is_ready());
    let checkpoint = &settings.model.checkpoint;
    // Another pipe each time: one that was read is known.
    let hang = |name: &str| {
        let pipe = root.path().join(name);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::hard_link(&pipe, root.path().join("again")).unwrap();
        std::fs::rename(root.path().join("again"), checkpoint).unwrap();
        pipe
    };
    // The file's return, and the pipe's end: who waits there goes on, with nothing read.
    let answer = |pipe| {
        let weights = root.path().join("weights");
        std::fs::write(&weights, b"production weights").unwrap();
        std::fs::rename(&weights, checkpoint).unwrap();
        drop(std::fs::File::options().write(true).open(pipe).unwrap());
    };
    let pipe = hang("pipe");
    drop_picture(&settings, "a.png", "label=dog\n", None);
    wait("the stall", |now| {
        now.stalled.as_ref().is_some_and(|why| why.contains("hang") && why.contains("checkpoint"))
    });
    wait("unreadiness", |now| !now.is_ready());
    answer(pipe);
    wait("readiness again", |now| now.is_ready());
    let pipe = hang("other pipe");
    drop_picture(&settings, "b.png", "label=dog\nflag=2\n", None);
    wait("the second stall", |now| !now.is_ready());
    stopper.stop();
    runtime.block_on(task).unwrap().unwrap();
    answer(pipe);
}
