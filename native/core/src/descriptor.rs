//! Records read from and written to a non-blocking file descriptor, one record a system call.
//!
//! What a record is, a packet with or without a header, is the caller's business.

use std::os::fd::AsFd;

use rustix::io::{Errno, read, write};

use crate::record::MAX_RECORD;

/// Read up to `limit` records that are ready, end to end into `memory`, and append to `ends` where each ends.
///
/// Stops where the rest of `memory` has less than [`MAX_RECORD`] bytes.
///
/// # Errors
///
/// Where reading the first one fails. An error after that is left for the next call to meet.
pub fn receive(file: impl AsFd, memory: &mut [u8], limit: usize, ends: &mut Vec<usize>) -> Result<(), Errno> {
    let file = file.as_fd();
    let mut used = 0;
    for index in 0..limit {
        if memory.len() - used < MAX_RECORD {
            break;
        }
        let size = loop {
            match read(file, &mut memory[used..]) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        match size {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(size) => used += size,
            Err(error) if index == 0 => return Err(error),
            Err(_) => break,
        }
        ends.push(used);
    }
    Ok(())
}

/// Write `records` until there is no room: how many were written, and the error that stopped it.
pub fn send<'a>(file: impl AsFd, records: impl IntoIterator<Item = &'a [u8]>) -> (usize, Option<Errno>) {
    let file = file.as_fd();
    let mut written = 0;
    for record in records {
        loop {
            match write(file, record) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return (written, None),
                Err(error) => return (written, Some(error)),
                Ok(_) => break,
            }
        }
        written += 1;
    }
    (written, None)
}
