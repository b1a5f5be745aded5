//! The pump, between ends that are read by the attributes of their classes in `threepipe.core.ends`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use threepipe_core::pump::{self as core, Ended, Side};

use crate::buffer::Counters;
#[cfg(target_os = "linux")]
use crate::datagrams::Datagrams;
use crate::error::{Error, Result};
use crate::file::File;
#[cfg(target_os = "linux")]
use crate::handler::Handler;
use crate::packet::listed;
#[cfg(target_os = "linux")]
use crate::records::Records;
#[cfg(target_os = "linux")]
use crate::router::Router;

#[pyfunction]
pub fn pump<'py>(
    py: Python<'py>,
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    bells: &Bound<'py, PyAny>,
) -> Result<(i32, Option<Bound<'py, PyAny>>)> {
    let ends = [End::of(left)?, End::of(right)?];
    let bells = duplicates(bells)?;
    let ended = py.detach(|| {
        let sources = ends.each_ref().map(End::sources);
        let [left, right] = [ends[0].lend(&sources[0]), ends[1].lend(&sources[1])];
        core::pump(&left, &right, &borrowed(&bells), &Interpreter)
    });
    for (object, end) in [left, right].into_iter().zip(ends) {
        end.report(object)?;
    }
    match ended? {
        Ended::Bell => Ok((0, None)),
        Ended::Failed(error, Side::Left) => Ok((error.raw_os_error(), Some(left.clone()))),
        Ended::Failed(error, Side::Right) => Ok((error.raw_os_error(), Some(right.clone()))),
        Ended::Raised(raised) => Err(exception(raised)),
    }
}

/// The interpreter. It would else make its state of a thread anew for each call of a handler.
struct Interpreter;

impl core::Host for Interpreter {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Python::attach(|py| py.detach(work))
    }
}

/// Return the exception that a handler raised.
fn exception(raised: core::Raised) -> Error {
    let other = |other: core::Raised| PyRuntimeError::new_err(other.to_string());
    Error::Python(raised.downcast::<PyErr>().map_or_else(other, |error| *error))
}

/// An end, with duplicates of its files: the pump may run for days, and no other code may close them meanwhile.
struct End {
    kind: Kind,
    received: Counters,
    sent: Counters,
}

enum Kind {
    Tun(Tun),
    #[cfg(target_os = "linux")]
    Peers(Peers),
    #[cfg(target_os = "linux")]
    Datagrams(Datagrams),
    #[cfg(target_os = "linux")]
    Records(Records),
}

struct Tun {
    sources: Vec<OwnedFd>,
    target: OwnedFd,
    vnet_header: bool,
    wide: bool,
    udp: bool,
    coalescing: AtomicBool,
    kept: Mutex<Vec<Vec<u8>>>,
}

#[cfg(target_os = "linux")]
struct Peers {
    router: Py<Router>,
    sockets: Vec<OwnedFd>,
    handler: Handler,
}

impl End {
    /// Read an end, of the class that its `kind` names.
    fn of(end: &Bound<'_, PyAny>) -> Result<Self> {
        let py = end.py();
        let kind = match end.getattr(intern!(py, "kind"))?.extract()? {
            "tun" => Kind::Tun(Tun {
                sources: duplicates(&end.getattr(intern!(py, "sources"))?)?,
                target: File::of(&end.getattr(intern!(py, "target"))?)?.duplicate()?,
                vnet_header: end.getattr(intern!(py, "vnet_header"))?.extract()?,
                wide: end.getattr(intern!(py, "wide"))?.extract()?,
                udp: end.getattr(intern!(py, "udp"))?.extract()?,
                coalescing: AtomicBool::new(end.getattr(intern!(py, "coalescing"))?.extract()?),
                kept: Mutex::default(),
            }),
            #[cfg(target_os = "linux")]
            "peers" => Kind::Peers(Peers {
                router: end.getattr(intern!(py, "router"))?.cast_into::<Router>().map_err(PyErr::from)?.unbind(),
                sockets: duplicates(&end.getattr(intern!(py, "sockets"))?)?,
                handler: Handler(end.getattr(intern!(py, "handler"))?.unbind()),
            }),
            #[cfg(target_os = "linux")]
            "datagrams" => Kind::Datagrams(Datagrams::of(end)?),
            #[cfg(target_os = "linux")]
            "records" => Kind::Records(Records::of(end)?),
            _ => return Err(Error::Mismatch),
        };
        let received = Counters::of(&end.getattr(intern!(py, "received"))?)?;
        let sent = Counters::of(&end.getattr(intern!(py, "sent"))?)?;
        Ok(Self { kind, received, sent })
    }

    /// Return the files to receive from.
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Tun(tun) => borrowed(&tun.sources),
            #[cfg(target_os = "linux")]
            Kind::Peers(peers) => borrowed(&peers.sockets),
            #[cfg(target_os = "linux")]
            Kind::Datagrams(datagrams) => vec![datagrams.socket.as_fd()],
            #[cfg(target_os = "linux")]
            Kind::Records(records) => vec![records.reader.as_fd()],
        }
    }

    /// Return the end as the core takes it; `sources` are its own.
    fn lend<'a>(&'a self, sources: &'a [BorrowedFd<'a>]) -> core::End<'a> {
        let (received, sent) = (self.received.get().into(), self.sent.get().into());
        match &self.kind {
            Kind::Tun(tun) => core::End::Tun(core::TunEnd {
                sources,
                target: tun.target.as_fd(),
                vnet_header: tun.vnet_header,
                wide: tun.wide,
                udp: tun.udp,
                coalescing: &tun.coalescing,
                kept: &tun.kept,
                received,
                sent,
            }),
            #[cfg(target_os = "linux")]
            Kind::Peers(peers) => core::End::Peers(core::PeersEnd {
                router: &peers.router.get().0,
                sockets: sources,
                handler: &peers.handler,
                received,
                sent,
            }),
            #[cfg(target_os = "linux")]
            Kind::Records(records) => core::End::Records(core::RecordsEnd {
                sources,
                target: records.writer.as_fd(),
                stream: &records.stream,
                handler: records.handler.as_ref().map(|handler| handler as _),
                received,
                sent,
            }),
            #[cfg(target_os = "linux")]
            Kind::Datagrams(datagrams) => core::End::Datagrams(core::DatagramsEnd {
                socket: datagrams.socket.as_fd(),
                sources,
                ways: &datagrams.ways,
                handler: &datagrams.handler,
                kept: &datagrams.kept,
                received,
                sent,
            }),
        }
    }

    /// Set `coalescing` to False if a superpacket was refused, add what waited for room to `kept`, and set `left` of a
    /// stream.
    fn report(self, object: &Bound<'_, PyAny>) -> Result<()> {
        let py = object.py();
        match self.kind {
            Kind::Tun(tun) => {
                if !tun.coalescing.load(Ordering::Relaxed) {
                    object.setattr(intern!(py, "coalescing"), false)?;
                }
                keep(object, tun.kept)
            }
            #[cfg(target_os = "linux")]
            Kind::Peers(_) => Ok(()),
            #[cfg(target_os = "linux")]
            Kind::Datagrams(datagrams) => keep(object, datagrams.kept),
            #[cfg(target_os = "linux")]
            Kind::Records(records) => records.report(object),
        }
    }
}

/// Add the records or packets that waited for room to `kept` of `end`.
fn keep(end: &Bound<'_, PyAny>, kept: Mutex<Vec<Vec<u8>>>) -> Result<()> {
    let py = end.py();
    let kept = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
    let kept: Vec<_> = kept.iter().map(|record| PyByteArray::new(py, record)).collect();
    end.getattr(intern!(py, "kept"))?.call_method1(intern!(py, "extend"), (kept,))?;
    Ok(())
}

fn duplicates(files: &Bound<'_, PyAny>) -> Result<Vec<OwnedFd>> {
    listed(files)?.iter().map(|file| File::of(file)?.duplicate()).collect()
}

fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}
