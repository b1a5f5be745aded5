//! Large bytearrays that are used again once nothing else refers to them.
//!
//! The C library may return large memory to the system as it is freed. Each page of the next bytearray then costs a
//! fault, which can take much of the time of a program that looks at packets.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use crate::buffer::is_unshared;
use crate::error::Result;

/// The bytearrays that are kept, in use or not; the oldest is the first.
static SPARES: Mutex<Vec<Py<PyAny>>> = Mutex::new(Vec::new());

/// How many are kept: those of two directions, each with packets and with superpackets made of them.
const MOST: usize = 4;

/// The sizes in bytes that are kept. Smaller ones have no faults; a bundle of a session has about a MiB.
const SIZES: std::ops::RangeInclusive<usize> = 1 << 16..=1 << 21;

/// Return a bytearray of at least `size` bytes to which nothing else refers, except that it is kept here.
///
/// `new` makes one of a given size. It may contain old bytes.
pub fn take<'py>(
    py: Python<'py>,
    size: usize,
    new: impl FnOnce(usize) -> Result<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    if !SIZES.contains(&size) {
        return new(size);
    }
    let kept = locked()
        .iter()
        .find(|spare| is_unshared(py, spare) && spare.bind(py).len().is_ok_and(|has| has >= size))
        .map(|spare| spare.clone_ref(py));
    if let Some(spare) = kept {
        return Ok(spare.into_bound(py));
    }
    let array = new(size.next_power_of_two())?;
    let mut spares = locked();
    // One that is in use lives on with its user.
    let replaced = (spares.len() >= MOST).then(|| spares.iter().position(|spare| is_unshared(py, spare)).unwrap_or(0));
    let replaced = replaced.map(|index| spares.remove(index));
    spares.push(array.clone().unbind());
    drop(spares);
    drop(replaced);
    Ok(array)
}

/// No thread holds the lock while it waits or lets others run, so with the GIL it is always free.
fn locked() -> MutexGuard<'static, Vec<Py<PyAny>>> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}
