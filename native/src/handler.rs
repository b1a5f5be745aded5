//! A Python object, `threepipe.wireguard.routing.Handler`, that does the part of a device that the pump does not do.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyList};
use threepipe_core::io::datagrams::Arrival;
use threepipe_core::pump::Raised;
use threepipe_core::wireguard::handler;

use crate::address::to_endpoint;
use crate::buffer::Buffers;
use crate::error::Error;
use crate::transport::to_bytes;

/// Calls the methods of a Python object, from threads of the pump.
pub struct Handler(pub Py<PyAny>);

impl handler::Handler for Handler {
    fn send(&self, records: &[&[u8]], vnet_header: bool) -> Result<(), Raised> {
        Python::attach(|py| {
            let records = PyList::new(py, records.iter().map(|record| PyByteArray::new(py, record)))?;
            self.0.bind(py).call_method1(intern!(py, "send"), (records, vnet_header))?;
            Ok(())
        })
    }

    fn keep(&self, messages: &[u8], size: usize, target: handler::Target) -> Result<(), Raised> {
        Python::attach(|py| {
            let local = target.local.map(|local| to_bytes(py, local));
            let endpoint = to_endpoint(py, target.endpoint);
            let arguments = (PyByteArray::new(py, messages), size, endpoint, local, target.ecn);
            self.0.bind(py).call_method1(intern!(py, "keep"), arguments)?;
            Ok(())
        })
    }

    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> Result<Vec<Vec<u8>>, Raised> {
        Python::attach(|py| {
            let local = arrival.local.map(|local| to_bytes(py, local));
            let source = to_endpoint(py, arrival.source);
            let arguments = (PyByteArray::new(py, datagrams), arrival.size, source, local, arrival.ecn);
            let packets = self.0.bind(py).call_method1(intern!(py, "receive"), arguments)?;
            let copy = |packet: &Bound<'_, PyAny>| Ok(Buffers::of(packet)?.slice(0).to_vec());
            let packets = packets.try_iter()?.map(|packet| copy(&packet?).map_err(|error: Error| PyErr::from(error)));
            Ok(packets.collect::<PyResult<_>>()?)
        })
    }

    fn attend(&self, peer: u32, sending: bool) -> Result<f64, Raised> {
        Python::attach(|py| Ok(self.0.bind(py).call_method1(intern!(py, "attend"), (peer, sending))?.extract()?))
    }
}
