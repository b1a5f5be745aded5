//! Locks after a panic: the one rule for all of this crate's locks.

use std::sync::{LockResult, PoisonError};

/// Return the guard of a lock, also after a thread panicked while it held it.
///
/// No critical section here leaves a value half changed, and the panic itself reaches the caller of the thread.
pub(crate) fn unpoisoned<Guard>(result: LockResult<Guard>) -> Guard {
    result.unwrap_or_else(PoisonError::into_inner)
}
