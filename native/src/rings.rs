//! The rings of a Wintun session, by the functions of its library. One of three modules with unsafe code.
//!
//! Python gives the addresses of the functions, from a library that it keeps loaded, and that of the session, which it
//! ends only while no call is running. Nothing can check these addresses, neither here nor in ctypes. No lengths come
//! from Python: the library gives those of received packets, checked against its ring, and memory to be filled has the
//! length that was asked for. The twin of `threepipe.core.rings`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::slice;

use pyo3::intern;
use pyo3::prelude::*;

use crate::buffer::{Buffers, Cutter, new_memory};
use crate::error::{Error, Result};
use crate::packet::listed;

/// The most packets in a bundle. The twin of `MAX_BUNDLE` in `threepipe.core.descriptor`.
const MAX_BUNDLE: usize = 256;

type Session = *mut c_void;
type ReceivePacket = unsafe extern "system" fn(Session, *mut u32) -> *mut u8;
type AllocateSendPacket = unsafe extern "system" fn(Session, u32) -> *mut u8;
/// `WintunReleaseReceivePacket` or `WintunSendPacket`.
type ReturnPacket = unsafe extern "system" fn(Session, *const u8);

#[pyfunction]
pub fn ring_receive<'py>(
    py: Python<'py>,
    rings: &Bound<'py, PyAny>,
    memory: &Bound<'py, PyAny>,
    limit: usize,
) -> Result<(Vec<Bound<'py, PyAny>>, usize, i32)> {
    let (held, code) = Library::of(rings)?.receive(limit);
    let sizes = held.sizes();
    let total = sizes.iter().sum();
    let mut buffers = Buffers::of(memory)?;
    let (memory, used) = if let Some(bytes) = buffers.slice_mut(0)?.get_mut(..total) {
        held.copy_into(bytes);
        (memory.clone(), total)
    } else {
        let fill = |bytes: &mut [u8]| {
            held.copy_into(bytes);
            Ok(())
        };
        (new_memory(py, total, fill)?, 0)
    };
    drop((held, buffers));
    let mut memory = Cutter::new(&memory)?;
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    Ok((ends.map(|end| memory.cut(end)).collect::<Result<_>>()?, used, code))
}

#[pyfunction]
pub fn ring_send(rings: &Bound<'_, PyAny>, packets: &Bound<'_, PyAny>) -> Result<(usize, i32)> {
    let library = Library::of(rings)?;
    let buffers = Buffers::of_all(&listed(packets)?)?;
    Ok(library.send(&buffers.slices()))
}

/// The session and the functions, from the attribute of `threepipe.core.rings.Rings`.
struct Library {
    session: Session,
    receive: ReceivePacket,
    release: ReturnPacket,
    allocate: AllocateSendPacket,
    send: ReturnPacket,
}

impl Library {
    fn of(rings: &Bound<'_, PyAny>) -> Result<Self> {
        let addresses: [usize; 5] = rings.getattr(intern!(rings.py(), "addresses"))?.extract()?;
        if addresses.contains(&0) {
            return Err(Error::NoAddress);
        }
        let [session, receive, release, allocate, send] = addresses.map(|address| address as *mut c_void);
        // SAFETY: pointers to functions have the size of other pointers, and these are not null. That they point to
        // these functions is Python's promise, as the module's documentation says.
        unsafe {
            Ok(Self {
                session,
                receive: std::mem::transmute::<Session, ReceivePacket>(receive),
                release: std::mem::transmute::<Session, ReturnPacket>(release),
                allocate: std::mem::transmute::<Session, AllocateSendPacket>(allocate),
                send: std::mem::transmute::<Session, ReturnPacket>(send),
            })
        }
    }

    /// Receive up to `limit` packets, at most [`MAX_BUNDLE`]. Return them and the error of the call that found none.
    fn receive(&self, limit: usize) -> (Held, i32) {
        let limit = limit.min(MAX_BUNDLE);
        let mut held = Held { session: self.session, return_packet: self.release, packets: Vec::with_capacity(limit) };
        for _ in 0..limit {
            let mut size = 0;
            // SAFETY: the session is open, and `size` is writable.
            let packet = unsafe { (self.receive)(self.session, &raw mut size) };
            if packet.is_null() {
                return (held, last_error());
            }
            held.packets.push((packet, size as usize));
        }
        (held, 0)
    }

    /// Send `packets` until there is no room. Return how many were sent, and the error of the call that found none.
    fn send(&self, packets: &[&[u8]]) -> (usize, i32) {
        let mut held =
            Held { session: self.session, return_packet: self.send, packets: Vec::with_capacity(packets.len()) };
        for packet in packets {
            let Ok(size) = u32::try_from(packet.len()) else { break };
            // SAFETY: the session is open.
            let target = unsafe { (self.allocate)(self.session, size) };
            if target.is_null() {
                return (held.packets.len(), last_error());
            }
            held.packets.push((target, packet.len()));
            // SAFETY: the memory has `size` bytes and belongs to this call until it is returned.
            unsafe { target.copy_from(packet.as_ptr(), packet.len()) };
        }
        (held.packets.len(), 0)
    }
}

/// Return the error of the last call of the library. Call it right after.
fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Packets in a ring that belong to this call. Dropping it returns them to the library from the last to the first, so
/// returning the first publishes all of them at once.
struct Held {
    session: Session,
    return_packet: ReturnPacket,
    packets: Vec<(*mut u8, usize)>,
}

impl Held {
    fn sizes(&self) -> Vec<usize> {
        self.packets.iter().map(|packet| packet.1).collect()
    }

    /// Copy all of them end to end to `memory`, which has their size.
    fn copy_into(&self, mut memory: &mut [u8]) {
        for &(packet, size) in &self.packets {
            let (target, rest) = memory.split_at_mut(size);
            // SAFETY: the library gave `size` bytes at `packet`, which belong to this call until they are returned.
            target.copy_from_slice(unsafe { slice::from_raw_parts(packet, size) });
            memory = rest;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for &(packet, _) in self.packets.iter().rev() {
            // SAFETY: the session is open, and the packet came from it and was not returned before.
            unsafe { (self.return_packet)(self.session, packet) };
        }
    }
}
