//! A datagram socket as an end of the pump, and its Python handler. See `DatagramsEnd` in `threepipe.core.ends`.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};
use rustix::io::Errno;
use threepipe_core::endpoints::datagrams::{self, Own, Received, Sent, Way, Ways};
use threepipe_core::io::datagrams::Arrival;
use threepipe_core::pump::Raised;

use crate::address::{PyEndpoint, from_bytes, from_endpoint, to_endpoint};
use crate::buffer::Buffers;
use crate::error::Result;
use crate::file::File;
use crate::transport::to_bytes;

/// A `Way`: the peer, the local address, and the form of its datagrams as packets.
type PyWay<'py> = (Option<PyEndpoint<'py>>, Option<Bound<'py, PyBytes>>, Option<(Bound<'py, PyBytes>, usize, usize)>);

/// A socket of which the pump has a duplicate.
pub struct Datagrams {
    pub socket: OwnedFd,
    pub ways: Ways,
    pub handler: Handler,
    pub kept: Mutex<Vec<Vec<u8>>>,
}

impl Datagrams {
    /// Read a `DatagramsEnd`.
    pub fn of(end: &Bound<'_, PyAny>) -> Result<Self> {
        let py = end.py();
        let handler = end.getattr(intern!(py, "handler"))?;
        let way = handler.call_method0(intern!(py, "way"))?.extract()?;
        Ok(Self {
            socket: File::of(&end.getattr(intern!(py, "socket"))?)?.duplicate()?,
            ways: Ways::new(to_way(way)?),
            handler: Handler(handler.unbind()),
            kept: Mutex::default(),
        })
    }
}

fn to_way(way: Option<PyWay<'_>>) -> Result<Option<Way>> {
    let Some((peer, local, own)) = way else { return Ok(None) };
    Ok(Some(Way {
        peer: peer.map(|peer| from_endpoint(&peer)).transpose()?,
        local: local.map(|local| from_bytes(local.as_bytes())).transpose()?,
        own: own.map(|(key, start, protocol)| Own { key: key.as_bytes().to_vec(), start, protocol }),
    }))
}

/// Calls the methods of a `threepipe.core.ends.DatagramHandler`, from threads of the pump.
pub struct Handler(Py<PyAny>);

impl datagrams::Handler for Handler {
    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> std::result::Result<Received, Raised> {
        Python::attach(|py| {
            let source = (!arrival.source.ip().is_unspecified()).then(|| to_endpoint(py, arrival.source));
            let local = arrival.local.map(|local| to_bytes(py, local));
            let arguments = (PyByteArray::new(py, datagrams), arrival.size, source, local);
            let handled = self.0.bind(py).call_method1(intern!(py, "receive"), arguments)?;
            let (packets, way): (Vec<Bound<'_, PyAny>>, _) = handled.extract()?;
            let copy = |packet: &Bound<'_, PyAny>| Ok(Buffers::of(packet)?.slice(0).to_vec());
            let packets = packets.iter().map(copy).collect::<Result<_>>().map_err(PyErr::from)?;
            Ok(Received { packets, way: to_way(way).map_err(PyErr::from)? })
        })
    }

    fn receive_failed(&self, error: Errno) -> std::result::Result<(), Raised> {
        Python::attach(|py| {
            self.0.bind(py).call_method1(intern!(py, "receive_failed"), (error.raw_os_error(),))?;
            Ok(())
        })
    }

    fn send(&self, packets: &[&[u8]], error: Errno) -> std::result::Result<Sent, Raised> {
        Python::attach(|py| {
            let packets = PyList::new(py, packets.iter().map(|packet| PyByteArray::new(py, packet)))?;
            let handled = self.0.bind(py).call_method1(intern!(py, "send"), (packets, error.raw_os_error()))?;
            let (sent, dropped) = handled.extract()?;
            Ok(Sent { sent, dropped })
        })
    }

    fn dropped_own(&self) -> std::result::Result<(), Raised> {
        Python::attach(|py| {
            self.0.bind(py).call_method0(intern!(py, "dropped_own"))?;
            Ok(())
        })
    }
}
