//! "Please stop", said once and heard by everyone.

use tokio::sync::watch;

/// Says it. Dropping it says it too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A speaker and a listener (clone it for more).
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Say it.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Was it said?
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Wait until it is said.
    pub async fn stopped(&mut self) {
        // An error means that the speaker is gone.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}
