//! SIGTERM while the owner's trainer runs: it is handed on to the trainer, which may save its work, instead of ending the worker at once.

use crate::error::{Error, Result};
use signal_hook::consts::SIGTERM;
use signal_hook::flag;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// The two flags of this process. A handler can be set, but not taken away again so that the signal ends the process as before: so it stays, and asks a flag.
struct Flags {
    /// SIGTERM ends the process, as usual.
    usual: Arc<AtomicBool>,
    /// SIGTERM came.
    came: Arc<AtomicBool>,
}

static FLAGS: OnceLock<io::Result<Flags>> = OnceLock::new();

/// While it lives SIGTERM is noted only.
pub(super) struct Heed(&'static Flags);

impl Heed {
    /// Note SIGTERM from here on.
    ///
    /// # Errors
    /// When the system takes no handler.
    pub fn terminations() -> Result<Self> {
        let flags = FLAGS.get_or_init(|| {
            let flags = Flags {
                usual: Arc::default(),
                came: Arc::default(),
            };
            flag::register_conditional_default(SIGTERM, Arc::clone(&flags.usual))?;
            flag::register(SIGTERM, Arc::clone(&flags.came))?;
            Ok(flags)
        });
        match flags {
            Ok(flags) => {
                flags.usual.store(false, SeqCst);
                Ok(Self(flags))
            }
            Err(error) => Err(Error::internal(format!("SIGTERM cannot be heard: {error}"))),
        }
    }

    /// Has the worker been asked to end?
    pub fn asked(&self) -> bool {
        self.0.came.load(SeqCst)
    }
}

impl Drop for Heed {
    fn drop(&mut self) {
        self.0.usual.store(true, SeqCst);
    }
}
