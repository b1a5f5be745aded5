//! Records received from and sent to a non-blocking file, one record a system call.
//!
//! A record may be a packet or have a virtio header; this module does not look into it. The twin of
//! `threepipe.core.descriptor`.

use std::os::fd::AsFd;

use rustix::io::{Errno, read, write};

use crate::packet::record::MAX_RECORD;

/// Receive up to `limit` records that are ready, end to end into `memory`, and append the end of each to `ends`.
///
/// Stops when the rest of `memory` has less than [`MAX_RECORD`] bytes.
///
/// # Errors
///
/// The error of reading the first record. After an error of a later one the next call meets it again.
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

/// Send `records` until there is no room. Return how many were sent, and the error that stopped it.
pub fn send<'a>(file: impl AsFd, records: impl IntoIterator<Item = &'a [u8]>) -> (usize, Option<Errno>) {
    let file = file.as_fd();
    let mut sent = 0;
    for record in records {
        loop {
            match write(file, record) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return (sent, None),
                Err(error) => return (sent, Some(error)),
                Ok(_) => break,
            }
        }
        sent += 1;
    }
    (sent, None)
}
