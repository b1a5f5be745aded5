//! Records received from and sent to a non-blocking file, one record a system call.
//!
//! A record may be a packet or have a virtio header. This module does not look into it, but it can send the records of a
//! plan. The twin of `threepipe.core.descriptor`.

use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::io::{Errno, read, write, writev};

use crate::packet::coalesce::{LONGEST_HEAD, Plan};
use crate::packet::record::{MAX_RECORD, PLAIN_HEADER};

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
    send_each(records, |record| write(&file, record))
}

/// Send the records of a plan for `pieces`, as [`send`] does. The kernel collects the pieces of most, without a copy.
///
/// # Panics
///
/// If `pieces` are not those of the plan.
pub fn send_plan(file: impl AsFd, plan: &Plan<'_>, pieces: &[&[u8]], vnet_header: bool) -> (usize, Option<Errno>) {
    let mut merged = Vec::new();
    send_each(plan.groups(), |group| {
        let mut head = [0; LONGEST_HEAD];
        if !group.is_merged() {
            let piece = IoSlice::new(pieces[group.first()]);
            return if vnet_header {
                write(&file, &piece)
            } else {
                writev(&file, &[IoSlice::new(&PLAIN_HEADER), piece])
            };
        }
        if group.is_whole() {
            let size = group.head(&mut head);
            let mut parts = vec![IoSlice::new(&head[..size])];
            parts.extend(plan.pieces(group).map(|index| IoSlice::new(group.data(pieces[index], vnet_header))));
            return writev(&file, &parts);
        }
        merged.resize(group.size(pieces, vnet_header), 0);
        plan.write(group, pieces, vnet_header, &mut merged);
        write(&file, &merged)
    })
}

/// Do `send` for each of `records`, until there is no room.
fn send_each<T>(
    records: impl IntoIterator<Item = T>,
    mut send: impl FnMut(&T) -> Result<usize, Errno>,
) -> (usize, Option<Errno>) {
    let mut sent = 0;
    for record in records {
        loop {
            match send(&record) {
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
