//! Locks after a panic: the one rule for all of this crate's locks.

use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// Return the guard of a lock, also after a thread panicked while it held it.
///
/// No critical section here leaves a value half changed, and the panic itself reaches the caller of the thread.
pub(crate) fn unpoisoned<Guard>(result: LockResult<Guard>) -> Guard {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// Return the guard of a lock if no thread holds it, also after a thread panicked while it held it.
pub(crate) fn if_free<Guard>(result: TryLockResult<Guard>) -> Option<Guard> {
    match result {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
