//! The clock of keypairs and traffic.

use rustix::time::{ClockId, clock_gettime};

/// Return the seconds of the clock that counts the time in suspend, as `threepipe.wireguard.clock` has them.
#[allow(clippy::cast_precision_loss)] // After years it loses some nanoseconds.
pub(super) fn now() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
