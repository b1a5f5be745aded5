//! Python's memory: borrowed buffers, bytearrays for results, and views of them. One of three modules with unsafe code.
//!
//! The buffer protocol holds a buffer for as long as a slice of it lives. So its memory keeps its place and its size,
//! also while other threads run. Its bytes are not guaranteed to keep their values: another thread may write to them,
//! as it may during a system call. So no code may rely on reading the same value twice. All lengths come from the
//! buffer protocol, and slices are bounds-checked.

#![allow(unsafe_code)]

#[cfg(unix)]
use std::ffi::CStr;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::slice;
#[cfg(unix)]
use std::sync::atomic::AtomicU64;

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView};

use crate::error::{Error, Result};
use crate::spares;

/// The buffers of objects that hold contiguous single bytes. Dropping it releases them.
pub struct Buffers(Vec<ffi::Py_buffer>);

// SAFETY: a `Py_buffer` is pointers and numbers, tied to no thread. Only filling and releasing it need the
// interpreter, and both are done attached to it.
unsafe impl Send for Buffers {}
// SAFETY: a shared reference only reads it.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// Hold the buffer of `object`.
    pub fn of(object: &Bound<'_, PyAny>) -> Result<Self> {
        Self::of_all(slice::from_ref(object))
    }

    /// Hold the buffers of `objects`, in order.
    pub fn of_all(objects: &[Bound<'_, PyAny>]) -> Result<Self> {
        let mut buffers = Self(Vec::with_capacity(objects.len()));
        for object in objects {
            if buffers.hold(object, ffi::PyBUF_SIMPLE)?.itemsize != 1 {
                return Err(Error::NotBytes);
            }
        }
        Ok(buffers)
    }

    /// Add the buffer of `object`. The vector must have capacity for it.
    fn hold(&mut self, object: &Bound<'_, PyAny>, flags: c_int) -> Result<&ffi::Py_buffer> {
        let index = self.0.len();
        let buffer: &mut MaybeUninit<ffi::Py_buffer> = &mut self.0.spare_capacity_mut()[0];
        // SAFETY: `buffer` is valid for writes and does not move, as the vector never grows beyond its capacity.
        // `object` is valid, and shows that the interpreter is attached.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), buffer.as_mut_ptr(), flags) } < 0 {
            return Err(PyErr::fetch(object.py()).into());
        }
        // SAFETY: the call succeeded, so it has initialised the element after the last one.
        unsafe { self.0.set_len(index + 1) };
        Ok(&self.0[index])
    }

    /// Return the bytes of each.
    pub fn slices(&self) -> Vec<&[u8]> {
        self.0.iter().map(bytes).collect()
    }

    /// Return the bytes of the one at `index`.
    pub fn slice(&self, index: usize) -> &[u8] {
        bytes(&self.0[index])
    }

    /// Return the bytes of the one at `index`, for writing.
    pub fn slice_mut(&mut self, index: usize) -> Result<&mut [u8]> {
        let buffer = &self.0[index];
        if buffer.readonly != 0 {
            return Err(Error::ReadOnly);
        }
        if buffer.buf.is_null() {
            return Ok(&mut []);
        }
        // SAFETY: as in `bytes`, and the exporter says that the memory is writable. As `self` is borrowed mutably,
        // no other slice of these buffers exists meanwhile, not even if two of them share memory. Other threads see
        // the same as during a system call that reads into the buffer.
        Ok(unsafe { slice::from_raw_parts_mut(buffer.buf.cast(), length(buffer)) })
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        Python::attach(|_| {
            for buffer in &mut self.0 {
                // SAFETY: `PyObject_GetBuffer` filled the buffer, and it is released only here, once.
                unsafe { ffi::PyBuffer_Release(buffer) };
            }
        });
    }
}

fn length(buffer: &ffi::Py_buffer) -> usize {
    usize::try_from(buffer.len).unwrap_or(0) // Never negative.
}

fn bytes(buffer: &ffi::Py_buffer) -> &[u8] {
    if buffer.buf.is_null() {
        return &[];
    }
    // SAFETY: the exporter gave `len` contiguous bytes (PyBUF_SIMPLE) and keeps them in place until the buffer is
    // released, which needs a mutable reference. Their values may change, as the module's documentation says.
    unsafe { slice::from_raw_parts(buffer.buf.cast(), length(buffer)) }
}

/// Four counters in the memory of an `array("Q")`, which is held for as long as this lives.
#[cfg(unix)]
pub struct Counters(Buffers);

#[cfg(unix)]
impl Counters {
    /// The number of counters: packets, bytes, bundles and dropped packets.
    pub const COUNT: usize = 4;

    /// Hold the first counters of `array`.
    pub fn of(array: &Bound<'_, PyAny>) -> Result<Self> {
        let mut buffers = Buffers(Vec::with_capacity(1));
        let buffer = buffers.hold(array, ffi::PyBUF_FORMAT | ffi::PyBUF_WRITABLE)?;
        // SAFETY: with PyBUF_FORMAT the format is a C string, or null for single bytes.
        let is_u64 = !buffer.format.is_null() && unsafe { CStr::from_ptr(buffer.format) } == c"Q";
        let aligned = buffer.buf.cast::<AtomicU64>().is_aligned();
        if is_u64 && aligned && !buffer.buf.is_null() && length(buffer) >= Self::COUNT * size_of::<u64>() {
            Ok(Self(buffers))
        } else {
            Err(Error::NotCounters(Self::COUNT))
        }
    }

    /// Return the counters.
    pub fn get(&self) -> &[AtomicU64; Self::COUNT] {
        // SAFETY: the memory has `COUNT` aligned, writable numbers of 64 bits, and stays in place until the buffer is
        // released. Python may read a number while it changes, and sees the old or the new value.
        unsafe { &*self.0.0[0].buf.cast() }
    }
}

/// Return a bytearray of at least `size` bytes that no other code uses, for views of the first `size` bytes.
///
/// `fill` has to write all of these; the others may be old.
pub fn new_memory(py: Python<'_>, size: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Bound<'_, PyAny>> {
    let array = spares::take(py, size, |size| new_bytearray(py, size))?;
    debug_assert!(array.is_instance_of::<PyByteArray>() && array.len().is_ok_and(|has| has >= size));
    // SAFETY: the object is a bytearray of at least `size` bytes. Until this function returns, no other code has a
    // reference to it, and so neither a buffer nor a view of it. Its memory comes from an allocator behind a foreign
    // function, and is written before it is read.
    fill(unsafe { slice::from_raw_parts_mut(ffi::PyByteArray_AsString(array.as_ptr()).cast(), size) })?;
    Ok(array)
}

/// Return true if there is no other reference to `object`. Every view and every buffer of it holds one.
///
/// Python without a GIL counts otherwise; it does not load a module for the stable ABI.
pub fn is_unshared(py: Python<'_>, object: &Py<PyAny>) -> bool {
    let _ = py;
    // SAFETY: the reference is valid, and the interpreter is attached.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// Make a bytearray of `size` bytes of any value.
fn new_bytearray(py: Python<'_>, size: usize) -> Result<Bound<'_, PyAny>> {
    let length = isize::try_from(size).map_err(|_| PyMemoryError::new_err(()))?;
    // SAFETY: without a source, the interpreter makes an object with memory of that size or sets an exception.
    Ok(unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyByteArray_FromStringAndSize(std::ptr::null(), length)) }?)
}

/// Return a memoryview of `object`, or `object` itself if it is one.
pub fn view_of<'py>(object: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
    let is_view = object.is_exact_instance_of::<PyMemoryView>();
    Ok(if is_view { object.clone() } else { PyMemoryView::from(object)?.into_any() })
}

/// Cuts a memoryview into consecutive slices.
pub struct Cutter<'py> {
    view: Bound<'py, PyAny>,
    position: Bound<'py, PyAny>,
}

impl<'py> Cutter<'py> {
    pub fn new(object: &Bound<'py, PyAny>) -> Result<Self> {
        Ok(Self { view: view_of(object)?, position: number(object.py(), 0) })
    }

    /// Return the slice from the end of the previous one to `end`.
    pub fn cut(&mut self, end: usize) -> Result<Bound<'py, PyAny>> {
        let end = number(self.view.py(), end);
        let start = std::mem::replace(&mut self.position, end);
        item(&self.view, &slice_object(&start, &self.position)?)
    }
}

/// Return the slice of `view` from `start` to `end`.
pub fn piece<'py>(view: &Bound<'py, PyAny>, start: usize, end: usize) -> Result<Bound<'py, PyAny>> {
    item(view, &slice_object(&number(view.py(), start), &number(view.py(), end))?)
}

/// Cuts the same number of bytes from the start of memoryviews.
pub struct Trimmer<'py>(Bound<'py, PyAny>);

impl<'py> Trimmer<'py> {
    pub fn new(py: Python<'py>, size: usize) -> Result<Self> {
        Ok(Self(slice_object(&number(py, size), py.None().bind(py))?))
    }

    pub fn trim(&self, object: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        item(&view_of(object)?, &self.0)
    }
}

fn number(py: Python<'_>, value: usize) -> Bound<'_, PyAny> {
    value.into_pyobject(py).map_or_else(|never| match never {}, Bound::into_any)
}

/// Make a slice object. One that `PyO3` makes would leak its numbers.
fn slice_object<'py>(start: &Bound<'py, PyAny>, end: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
    let py = start.py();
    // SAFETY: both references are valid, and the interpreter is attached. The call returns a new reference, or null
    // with an exception set.
    Ok(unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PySlice_New(start.as_ptr(), end.as_ptr(), std::ptr::null_mut()))
    }?)
}

fn item<'py>(view: &Bound<'py, PyAny>, key: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
    // SAFETY: as in `slice_object`.
    Ok(unsafe { Bound::from_owned_ptr_or_err(view.py(), ffi::PyObject_GetItem(view.as_ptr(), key.as_ptr())) }?)
}
