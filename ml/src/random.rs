//! libtorch's own generator of random numbers.

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

/// There is one for the whole process, so one computation at a time may draw from it: a second one would change what the first one gets.
static GENERATOR: ReentrantMutex<()> = ReentrantMutex::new(());

/// While this is held, no other thread draws. The same thread may ask again.
pub(crate) fn alone() -> ReentrantMutexGuard<'static, ()> {
    GENERATOR.lock()
}

/// As [`alone`], from this seed on.
pub(crate) fn seeded(seed: u64) -> ReentrantMutexGuard<'static, ()> {
    let held = alone();
    tch::manual_seed(seed.cast_signed());
    held
}
