//! What the owner's trainer says: lines of progress, and a log of all else, bounded in every way.

use crate::error::Result;
use crate::progress::Report;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// Name of the log in the job's folder.
pub(super) const LOG: &str = "command.log";
/// What the log is called when it is full and a new one is begun; the one before that goes.
const BEFORE: &str = "command.1.log";
/// Bytes of one of the two.
const MOST: u64 = 8 << 20;
/// Bytes of a line; the rest is the next one.
const LINE: usize = 16 << 10;
/// Lines that an error quotes, and characters of each.
const TAIL: (usize, usize) = (20, 300);
/// Characters of a word beside the bar.
const NOTE: usize = 200;

/// A line of the trainer.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// `progress 0.42 text`: share and text.
    Progress(f64, String),
    /// Anything else on standard output.
    Line(Vec<u8>),
    /// A line on standard error.
    Complaint(Vec<u8>),
}

impl Said {
    /// Of a line on standard output.
    fn of(line: Vec<u8>) -> Self {
        let progress = |text: &str| {
            let rest = text.strip_prefix("progress ")?.trim_start();
            let (number, note) = rest.split_once(' ').unwrap_or((rest, ""));
            let share = number.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share))?;
            Some(Self::Progress(share, shown(note.trim(), NOTE)))
        };
        std::str::from_utf8(&line).ok().and_then(progress).unwrap_or(Self::Line(line))
    }
}

/// Harmless and not too long.
fn shown(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

/// Hand on a stream's lines until it ends or nobody listens. A carriage return ends a line, too: bars are drawn with it. `speaks`: may it tell progress?
pub(super) fn follow(mut stream: impl Read, speaks: bool, to: &SyncSender<Said>) {
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    let hand_on = |line: &mut Vec<u8>| {
        let line = std::mem::take(line);
        let said = if speaks { Said::of(line) } else { Said::Complaint(line) };
        to.send(said).is_ok()
    };
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        for &byte in &buffer[..count] {
            let end = byte == b'\n' || byte == b'\r';
            if !end {
                line.push(byte);
            }
            if (end && !line.is_empty() || line.len() >= LINE) && !hand_on(&mut line) {
                return;
            }
        }
    }
    if !line.is_empty() {
        hand_on(&mut line);
    }
}

/// The log of all attempts, and the last lines of this one.
pub(super) struct Log {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// The last lines of standard output and of standard error: the two come in no order between them, and a long output must not hide why it ended.
    tails: [VecDeque<String>; 2],
    /// That it cannot be written was told.
    told: bool,
}

impl Log {
    /// Go on in the log of the attempts before.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(folder: &Path, attempt: u32) -> Result<Self> {
        let file = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(LOG))?
            .into_parts()
            .0;
        let mut log = Self {
            folder: folder.into(),
            bytes: file.metadata()?.len(),
            file,
            tails: Default::default(),
            told: false,
        };
        log.write(format!("== attempt {attempt} ==\n").as_bytes())?;
        Ok(log)
    }

    /// Keep a line. A full disk does not end a training of days: it is told once.
    pub fn line(&mut self, line: &[u8], complaint: bool, report: &mut dyn Report) {
        let tail = &mut self.tails[usize::from(complaint)];
        if tail.len() == TAIL.0 {
            tail.pop_front();
        }
        tail.push_back(shown(&String::from_utf8_lossy(line), TAIL.1));
        let kept = self.write(&[line, b"\n"].concat());
        if let Err(error) = kept
            && !std::mem::replace(&mut self.told, true)
        {
            report.log(&format!("the command's output cannot be kept: {error}"));
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > MOST {
            fs_err::rename(self.folder.join(LOG), self.folder.join(BEFORE))?;
            self.file = fs_err::File::create(self.folder.join(LOG))?.into_parts().0;
            self.bytes = 0;
        }
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// A message with the last lines below it: at most half of them complaints where there is more, and these last.
    pub fn with_tail(&self, mut message: String) -> String {
        let [output, complaints] = &self.tails;
        let half = TAIL.0 / 2;
        let from_errors = complaints.len().min(half.max(TAIL.0.saturating_sub(output.len())));
        let from_output = output.len().min(TAIL.0 - from_errors);
        let last = output.iter().skip(output.len() - from_output);
        match output.is_empty() && complaints.is_empty() {
            true => message.push_str("; it wrote nothing"),
            false => message.push_str("; the last that it wrote:"),
        }
        for line in last.chain(complaints.iter().skip(complaints.len() - from_errors)) {
            message.push_str("\n  ");
            message.push_str(line);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::sync::mpsc::sync_channel;

    fn heard(text: &[u8], speaks: bool) -> Vec<Said> {
        let (to, from) = sync_channel(100);
        follow(text, speaks, &to);
        drop(to);
        from.iter().collect()
    }

    #[test]
    fn progress_is_a_share_with_words_and_all_else_is_a_line() {
        let progress = |share, note: &str| Said::Progress(share, note.into());
        let line = |text: &str| Said::Line(text.into());
        assert_eq!(
            heard(
                b"progress 0.42 epoch 3\nprogress 1\r\nprogress 0.5\ta\nprogress 1.5 x\nprogress\nprogress nan\n 10%\r 20%\rend",
                true
            ),
            [
                progress(0.42, "epoch 3"),
                progress(1.0, ""),
                line("progress 0.5\ta"),
                line("progress 1.5 x"),
                line("progress"),
                line("progress nan"),
                line(" 10%"),
                line(" 20%"),
                line("end"),
            ]
        );
        assert_eq!(heard(b"progress 0.42\n", false), [Said::Complaint("progress 0.42".into())]);
        let long = heard(&[b'x'; 40_000], true);
        assert_eq!(
            long.iter()
                .map(|said| matches!(said, Said::Line(line) if line.len() <= LINE))
                .collect::<Vec<_>>(),
            [true; 3]
        );
    }

    #[test]
    fn the_log_holds_the_last_megabytes_and_the_error_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 1).unwrap();
        assert!(log.with_tail("x".into()).ends_with("it wrote nothing"));
        for n in 0..3000_u32 {
            log.line(format!("{n:08} {}", "y".repeat(9991)).as_bytes(), false, &mut Silent);
        }
        let length = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(length(LOG) <= MOST && length(BEFORE) <= MOST && length(BEFORE) > MOST - 20_000);
        let text = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert!(text.ends_with(&format!("00002999 {}\n", "y".repeat(9991))));
        let told = log.with_tail("failed".into());
        assert!(
            told.starts_with("failed; the last that it wrote:\n  00002980 ") && told.lines().count() == 21 && told.len() < 7000,
            "{told}"
        );
        // The next attempt goes on in it.
        drop(log);
        Log::open(folder.path(), 2).unwrap();
        assert!(
            std::fs::read_to_string(folder.path().join(LOG))
                .unwrap()
                .ends_with("y\n== attempt 2 ==\n")
        );
    }

    #[test]
    fn what_it_complained_of_stands_last() {
        let folder = tempfile::tempdir().unwrap();
        // Whichever pipe was read first: what it complained of stands last.
        let mut log = Log::open(folder.path(), 1).unwrap();
        log.line(b"Traceback", true, &mut Silent);
        for n in 0..100 {
            log.line(format!("step {n}").as_bytes(), false, &mut Silent);
        }
        let told = log.with_tail("failed".into());
        assert!(
            told.lines().count() == 21 && told.contains("step 81\n") && told.ends_with("step 99\n  Traceback"),
            "{told}"
        );
    }
}
