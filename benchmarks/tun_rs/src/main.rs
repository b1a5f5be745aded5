//! A forwarder on the `tun-rs` crate, with its offload, with a thread for each direction; see benchmarks/forwarders.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;

use tun_rs::{DeviceBuilder, GROTable, SyncDevice, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};

const LARGEST: usize = VIRTIO_NET_HDR_LEN + 65535;
const SEGMENT: usize = VIRTIO_NET_HDR_LEN + 1500;

fn main() -> io::Result<()> {
    let left = Arc::new(open("left")?);
    let right = Arc::new(open("right")?);
    println!("made");
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;

    let (source, target) = (right.clone(), left.clone());
    thread::spawn(move || forward(&source, &target));
    forward(&left, &right)
}

fn open(name: &str) -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .name(name)
        .enable(false) // The harness moves it to its network and enables it there.
        .with(|builder| {
            builder.offload(true);
        })
        .build_sync()
}

/// Receive superpackets as segments, coalesce the segments again, and send the result.
fn forward(source: &SyncDevice, target: &SyncDevice) -> io::Result<()> {
    let mut whole = vec![0; LARGEST];
    // Each buffer has room for a superpacket, so coalescing never allocates.
    let mut segments: Vec<Vec<u8>> = (0..IDEAL_BATCH_SIZE)
        .map(|_| {
            let mut segment = Vec::with_capacity(LARGEST);
            segment.resize(SEGMENT, 0);
            segment
        })
        .collect();
    let mut sizes = vec![0; IDEAL_BATCH_SIZE];
    let mut table = GROTable::default();
    loop {
        let count = source.recv_multiple(&mut whole, &mut segments, &mut sizes, VIRTIO_NET_HDR_LEN)?;
        for (segment, size) in segments.iter_mut().zip(&sizes).take(count) {
            segment.truncate(VIRTIO_NET_HDR_LEN + size);
        }
        // A packet that the kernel rejects is lost, as on a wire.
        let _ = target.send_multiple(&mut table, &mut segments[..count], VIRTIO_NET_HDR_LEN);
        for segment in &mut segments[..count] {
            segment.resize(SEGMENT, 0);
        }
    }
}
