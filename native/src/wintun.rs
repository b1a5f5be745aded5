//! The rings of a Wintun session, by the functions of its library. One of three unsafe modules.
//!
//! Python gives addresses: of the functions, which it looked up in a library that it keeps loaded, and the session's,
//! which it ends only when nobody is in a call. That they are what they should be nobody can check, here or in
//! ctypes. No lengths come from Python: those of packets received are the library's, which has checked them against its
//! ring, and places to be filled have the length that was asked for.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::slice;

use pyo3::intern;
use pyo3::prelude::*;

use crate::buffer::{Buffers, Cutter, new_bytearray};
use crate::error::{Error, Result};
use crate::offload::listed;

/// As in `threepipe.core.descriptor`.
const MAX_BUNDLE: usize = 256;

type Session = *mut c_void;
type ReceivePacket = unsafe extern "system" fn(Session, *mut u32) -> *mut u8;
type AllocateSendPacket = unsafe extern "system" fn(Session, u32) -> *mut u8;
/// `WintunReleaseReceivePacket` or `WintunSendPacket`.
type GivePacketBack = unsafe extern "system" fn(Session, *const u8);

#[pyfunction]
pub fn take<'py>(
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
        (new_bytearray(py, total, fill)?, 0)
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
pub fn give(rings: &Bound<'_, PyAny>, packets: &Bound<'_, PyAny>) -> Result<(usize, i32)> {
    let library = Library::of(rings)?;
    let buffers = Buffers::of_all(&listed(packets)?)?;
    Ok(library.send(&buffers.slices()))
}

/// The session and the functions, by the attribute of `threepipe.core.rings.Rings`.
struct Library {
    session: Session,
    receive: ReceivePacket,
    release: GivePacketBack,
    allocate: AllocateSendPacket,
    send: GivePacketBack,
}

impl Library {
    fn of(rings: &Bound<'_, PyAny>) -> Result<Self> {
        let addresses: [usize; 5] = rings.getattr(intern!(rings.py(), "addresses"))?.extract()?;
        if addresses.contains(&0) {
            return Err(Error::NoAddress);
        }
        let [session, receive, release, allocate, send] = addresses.map(|address| address as *mut c_void);
        // SAFETY: pointers to functions have the size of others and are not null. That they are of these functions
        // is what Python says, as the module tells.
        unsafe {
            Ok(Self {
                session,
                receive: std::mem::transmute::<Session, ReceivePacket>(receive),
                release: std::mem::transmute::<Session, GivePacketBack>(release),
                allocate: std::mem::transmute::<Session, AllocateSendPacket>(allocate),
                send: std::mem::transmute::<Session, GivePacketBack>(send),
            })
        }
    }

    /// Up to `limit` packets, at most [`MAX_BUNDLE`], and the error of the call that had none.
    fn receive(&self, limit: usize) -> (Held, i32) {
        let limit = limit.min(MAX_BUNDLE);
        let mut held = Held { session: self.session, back: self.release, packets: Vec::with_capacity(limit) };
        for _ in 0..limit {
            let mut size = 0;
            // SAFETY: the session is open, and `size` may be written to.
            let packet = unsafe { (self.receive)(self.session, &raw mut size) };
            if packet.is_null() {
                return (held, last_error());
            }
            held.packets.push((packet, size as usize));
        }
        (held, 0)
    }

    /// How many of `packets` found room, and the error of the call that had none.
    fn send(&self, packets: &[&[u8]]) -> (usize, i32) {
        let mut held = Held { session: self.session, back: self.send, packets: Vec::with_capacity(packets.len()) };
        for packet in packets {
            let Ok(size) = u32::try_from(packet.len()) else { break };
            // SAFETY: the session is open.
            let place = unsafe { (self.allocate)(self.session, size) };
            if place.is_null() {
                return (held.packets.len(), last_error());
            }
            held.packets.push((place, packet.len()));
            // SAFETY: the place has `size` bytes, and is nobody else's until it is given back.
            unsafe { place.copy_from(packet.as_ptr(), packet.len()) };
        }
        (held.packets.len(), 0)
    }
}

/// Why the last call of the library failed; to be asked at once.
fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Packets in a ring that are ours until this goes, which gives them back from the last to the first: so all of them are
/// published at once, by the first.
struct Held {
    session: Session,
    back: GivePacketBack,
    packets: Vec<(*mut u8, usize)>,
}

impl Held {
    fn sizes(&self) -> Vec<usize> {
        self.packets.iter().map(|packet| packet.1).collect()
    }

    /// Copy all of them end to end; `memory` has just that room.
    fn copy_into(&self, mut memory: &mut [u8]) {
        for &(packet, size) in &self.packets {
            let (place, rest) = memory.split_at_mut(size);
            // SAFETY: the library gave `size` bytes at `packet`, which are ours until they are given back.
            place.copy_from_slice(unsafe { slice::from_raw_parts(packet, size) });
            memory = rest;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for &(packet, _) in self.packets.iter().rev() {
            // SAFETY: the session is open, and the packet was got from it and not given back yet.
            unsafe { (self.back)(self.session, packet) };
        }
    }
}
