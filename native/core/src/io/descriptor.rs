//! Records received from and sent to a non-blocking file, one record a system call.
//!
//! A record may be a packet or have a virtio header, which is wide in some files (see `packet::tunnel`) and never in the
//! records to send. This module does not look into records, but it can send those of a plan. The twin of
//! `threepipe.core.descriptor`.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{Errno, read, write, writev};

use crate::packet::coalesce::{LONGEST_HEAD, Plan};
use crate::packet::record::{HEADER_SIZE, MAX_RECORD, PLAIN_HEADER};
use crate::packet::tunnel::{FILLER, MAX_WIDE_RECORD};

/// Receive up to `limit` records that are ready, end to end into `memory`, and append the end of each to `ends`.
///
/// Stops when the rest of `memory` has less than [`MAX_RECORD`] bytes, or [`MAX_WIDE_RECORD`] if `wide`; headers stay
/// wide.
///
/// # Errors
///
/// The error of reading the first record. After an error of a later one the next call meets it again.
pub fn receive(
    file: impl AsFd,
    memory: &mut [u8],
    limit: usize,
    wide: bool,
    ends: &mut Vec<usize>,
) -> Result<(), Errno> {
    let longest = if wide { MAX_WIDE_RECORD } else { MAX_RECORD };
    let file = file.as_fd();
    let mut used = 0;
    for index in 0..limit {
        if memory.len() - used < longest {
            break;
        }
        match receive_record(file, &mut memory[used..]) {
            Ok(Some(size)) => used += size,
            Err(error) if index == 0 => return Err(error),
            Ok(None) | Err(_) => break,
        }
        ends.push(used);
    }
    Ok(())
}

/// Receive one record into `memory`, which has room for it, and return its size. None if no record is ready.
///
/// # Errors
///
/// Return the system's error.
pub fn receive_record(file: BorrowedFd<'_>, memory: &mut [u8]) -> Result<Option<usize>, Errno> {
    loop {
        match read(file, &mut *memory) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(Errno::AGAIN) => return Ok(None),
            result => return result.map(Some),
        }
    }
}

/// Write a record that consists of `parts`, the first of which has its whole virtio header, if any.
///
/// # Errors
///
/// Return the system's error.
pub fn write_record(file: impl AsFd, parts: &[IoSlice<'_>], wide: bool) -> Result<usize, Errno> {
    match parts {
        [whole] if !wide => write(file, whole),
        [first, others @ ..] if wide => {
            let (header, rest) = first.split_at(HEADER_SIZE.min(first.len()));
            let front = [header, &FILLER, rest].map(IoSlice::new);
            if others.is_empty() {
                return writev(file, &front);
            }
            let others = others.iter().map(|part| IoSlice::new(part));
            writev(file, &front.into_iter().chain(others).collect::<Vec<_>>())
        }
        parts => writev(file, parts),
    }
}

/// Send `records` until there is no room. Return how many were sent, and the error that stopped it.
pub fn send<'a>(file: impl AsFd, records: impl IntoIterator<Item = &'a [u8]>, wide: bool) -> (usize, Option<Errno>) {
    send_each(records, |record| write_record(&file, &[IoSlice::new(record)], wide))
}

/// Send the records of a plan for `pieces`, as [`send`] does. The kernel collects the pieces of most, without a copy.
///
/// # Panics
///
/// If `pieces` are not those of the plan.
pub fn send_plan(
    file: impl AsFd,
    plan: &Plan<'_>,
    pieces: &[&[u8]],
    vnet_header: bool,
    wide: bool,
) -> (usize, Option<Errno>) {
    let mut merged = Vec::new();
    send_each(plan.groups(), |group| {
        let mut head = [0; LONGEST_HEAD];
        if !group.is_merged() {
            let piece = IoSlice::new(pieces[group.first()]);
            let parts = [IoSlice::new(&PLAIN_HEADER), piece];
            return write_record(&file, if vnet_header { &parts[1..] } else { &parts }, wide);
        }
        if group.is_whole() {
            let size = group.head(&mut head);
            let mut parts = vec![IoSlice::new(&head[..size])];
            parts.extend(plan.pieces(group).map(|index| IoSlice::new(group.data(pieces[index], vnet_header))));
            return write_record(&file, &parts, wide);
        }
        merged.resize(group.size(pieces, vnet_header), 0);
        plan.write(group, pieces, vnet_header, &mut merged);
        write_record(&file, &[IoSlice::new(&merged)], wide)
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
