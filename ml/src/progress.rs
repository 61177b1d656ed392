//! Stages and fractions, one stream. The library sees this trait only; the worker turns it into message lines.

/// Where a long computation says how far it is. Implementations decide how often that is shown.
pub trait Report {
    /// `done` of `total` units of `step`; `note` is shown beside (may be empty).
    fn progress(&mut self, step: &str, done: u64, total: u64, note: &str);
    /// A sentence for the log.
    fn log(&mut self, message: &str);
}

/// Says nothing: for tests and library users who do not care.
#[derive(Debug, Default)]
pub struct Silent;

impl Report for Silent {
    fn progress(&mut self, _step: &str, _done: u64, _total: u64, _note: &str) {}
    fn log(&mut self, _message: &str) {}
}

/// One report for several that report at once (an evidence source and the detector that asks it).
pub struct SharedReport<'a>(std::cell::RefCell<&'a mut dyn Report>);

impl<'a> SharedReport<'a> {
    /// Share this one; every `&Shared` is a [`Report`].
    pub fn new(report: &'a mut dyn Report) -> Self {
        Self(std::cell::RefCell::new(report))
    }
}

impl Report for &SharedReport<'_> {
    fn progress(&mut self, step: &str, done: u64, total: u64, note: &str) {
        self.0.borrow_mut().progress(step, done, total, note);
    }

    fn log(&mut self, message: &str) {
        self.0.borrow_mut().log(message);
    }
}
