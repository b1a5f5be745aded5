//! Packets that a program writes one by one, gathered to be sent together. The twin of `threepipe.core.gatherer`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use threepipe_core::packet::record::Measure;

use crate::buffer::{Buffers, Trimmer};
use crate::error::Result;

#[pyclass(frozen)]
pub struct Gatherer {
    front: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    packets: Vec<Py<PyBytes>>,
    /// Their bytes, without those before the packets.
    size: usize,
}

#[pymethods]
impl Gatherer {
    #[new]
    fn new(front: usize) -> Self {
        Self { front, kept: Mutex::default() }
    }

    fn add(&self, data: &Bound<'_, PyAny>) -> Result<usize> {
        let bytes = match data.cast_exact::<PyBytes>() {
            Ok(bytes) => bytes.clone(),
            Err(_) => PyBytes::new(data.py(), Buffers::of(data)?.slice(0)),
        };
        let packet = bytes.as_bytes().get(self.front..).unwrap_or_default();
        let size = packet.len();
        if !Measure::of_packet(packet).valid {
            return Ok(0);
        }
        let mut kept = self.lock();
        kept.packets.push(bytes.unbind());
        kept.size += size;
        Ok(kept.size)
    }

    fn take<'py>(&self, py: Python<'py>) -> Result<Vec<Bound<'py, PyAny>>> {
        let packets = std::mem::take(&mut *self.lock()).packets;
        let front = Trimmer::new(py, self.front)?;
        packets.into_iter().map(|bytes| front.trim(bytes.bind(py).as_any())).collect()
    }
}

impl Gatherer {
    /// No Python runs while it is locked.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
