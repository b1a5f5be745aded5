//! Transport messages of `WireGuard`: bundles sealed and opened.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::sealing::{self, KEY_SIZE, Key, Plan, WINDOW_SIZE};

use crate::buffer::{Buffers, Cutter, new_bytearray, piece, view_of};
use crate::error::{Error, Result};
use crate::offload::{detach, listed};

/// Bytes to seal or to open from which on the GIL is released: some microseconds of work.
const WORTH_DETACHING: usize = 1 << 12;

type Runs<'py> = Vec<(Bound<'py, PyAny>, usize)>;
type Opened<'py> = (Vec<Bound<'py, PyAny>>, Vec<(Bound<'py, PyBytes>, usize)>, usize, usize, usize);

#[pyfunction]
pub fn seal<'py>(
    py: Python<'py>,
    key: &Bound<'py, PyAny>,
    index: u32,
    counter: u64,
    records: &Bound<'py, PyAny>,
    headed: bool,
    mtu: usize,
) -> Result<Runs<'py>> {
    let key = key_of(key)?;
    let records = listed(records)?;
    let buffers = Buffers::of_all(&records)?;
    let plan = Plan::new(buffers.slices(), headed, mtu).ok_or(Error::Short)?;
    let size = plan.size();
    let memory = new_bytearray(py, size, |memory| {
        detach(py, size, WORTH_DETACHING, || plan.seal(&key, index, counter, memory));
        Ok(())
    })?;
    let mut memory = Cutter::new(&memory)?;
    let mut used = 0;
    plan.runs()
        .iter()
        .map(|run| {
            used += run.bytes;
            Ok((memory.cut(used)?, run.size))
        })
        .collect()
}

#[pyfunction]
pub fn unseal<'py>(
    py: Python<'py>,
    key: &Bound<'py, PyAny>,
    index: u32,
    window: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    size: usize,
) -> Result<Opened<'py>> {
    let key = key_of(key)?;
    let mut window = Buffers::of(window)?;
    let window = window.slice_mut(0)?;
    if window.len() != WINDOW_SIZE {
        return Err(Error::Size("window", WINDOW_SIZE));
    }
    let opened = {
        let mut buffers = Buffers::of(memory)?;
        let bytes = buffers.slice_mut(0)?;
        detach(py, bytes.len(), WORTH_DETACHING, || sealing::unseal(&key, index, window, bytes, size))
    };
    let view = view_of(memory)?;
    let packets = opened.packets.iter().map(|(start, end)| piece(&view, *start, *end)).collect::<Result<Vec<_>>>()?;
    let sources = opened.sources.iter().map(|(source, count)| (PyBytes::new(py, source.bytes()), *count)).collect();
    Ok((packets, sources, opened.used, opened.authentic, opened.bytes))
}

fn key_of(key: &Bound<'_, PyAny>) -> Result<Key> {
    Key::new(Buffers::of(key)?.slice(0)).ok_or(Error::Size("key", KEY_SIZE))
}
