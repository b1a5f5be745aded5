//! Any datagrams to a device with two peers: only packets that the peers sealed come out, unchanged, once, and only
//! from their allowed IPs.

#![no_main]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threepipe_core::io::datagrams::Arrival;
use threepipe_core::pump::Raised;
use threepipe_core::wireguard::handler::{Handler, Target};
use threepipe_core::wireguard::opener::Opener;
use threepipe_core::wireguard::router::{Keypair, PeerSettings, Router};
use threepipe_core::wireguard::sealing::Messages;
use threepipe_core::wireguard::traffic::Traffic;
use threepipe_core::wireguard::transport::Transport;

const NOW: f64 = 100.0;
const PACKETS: u8 = 8;

/// A sealed message, perhaps changed, or other bytes.
#[derive(Arbitrary, Debug)]
struct Datagram<'a> {
    peer: bool,
    message: u8,
    changes: Vec<(u8, u8)>,
    length: Option<u8>,
    noise: Option<&'a [u8]>,
}

/// A run of datagrams of one source.
#[derive(Arbitrary, Debug)]
struct Run<'a> {
    size: Option<u8>,
    source: u8,
    datagrams: Vec<Datagram<'a>>,
}

/// A handler that does nothing.
struct NoHandler;

impl Handler for NoHandler {
    fn send(&self, _: &[&[u8]], _: bool) -> Result<(), Raised> {
        unreachable!("nothing is sent")
    }

    fn keep(&self, _: &[u8], _: usize, _: Target) -> Result<(), Raised> {
        unreachable!("nothing is sent")
    }

    fn receive(&self, _: &[u8], _: &Arrival) -> Result<Vec<Vec<u8>>, Raised> {
        Ok(Vec::new())
    }

    fn attend(&self, _: u32, sending: bool) -> Result<f64, Raised> {
        assert!(!sending);
        Ok(f64::INFINITY)
    }
}

fuzz_target!(|runs: Vec<Run<'_>>| check(&runs));

fn source(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number % 3], 51820))
}

/// Return a packet of a peer. The source of every fourth one is not among its allowed IPs.
fn packet(peer: u8, number: u8) -> Vec<u8> {
    let length = 20 + u16::from(number) * 3;
    let mut packet = vec![number; length.into()];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[12..16].copy_from_slice(&[10, if number % 4 == 3 { 9 } else { peer }, 0, 1]);
    packet
}

fn check(runs: &[Run<'_>]) {
    let router = Router::default();
    let mut sealed: HashMap<Vec<u8>, (u8, u8)> = HashMap::new();
    let mut messages = [Vec::new(), Vec::new()];
    for peer in 0..2_u8 {
        let (key, other) = ([peer + 1; 32], [peer + 3; 32]);
        let transport = |send, receive| Transport::new(send, receive, u32::from(peer) + 7, u32::from(peer) + 7);
        let (theirs, ours) = (transport(&key, &other).unwrap(), Arc::new(transport(&other, &key).unwrap()));
        for number in 0..PACKETS {
            let packet = packet(peer, number);
            let sealing = Messages::new(vec![&packet], false, 0).unwrap();
            let mut message = vec![0; sealing.size()];
            let counter = u64::from(number) * 5_000; // Some are too old once others have arrived.
            theirs.set_counter(counter + 1);
            theirs.seal(&sealing, counter..counter + 1, &mut message).unwrap();
            sealed.insert(message.clone(), (peer, number));
            messages[usize::from(peer)].push(message);
        }
        let settings = PeerSettings {
            traffic: Arc::new(Traffic::default()),
            endpoint: Some(source(peer)),
            local: None,
            sending: None,
            receiving: vec![Keypair::new(ours, NOW + 1.0, f64::INFINITY)],
        };
        router.set_peer(peer.into(), settings);
        router.set_allowed(peer.into(), vec![([10, peer, 0, 0].into(), 16)], None);
    }

    let (mut memory, mut arrivals, mut possible) = (Vec::new(), Vec::new(), HashMap::<(u8, u8), bool>::new());
    for run in runs {
        let start = memory.len();
        for datagram in &run.datagrams {
            let mut bytes = match datagram.noise {
                Some(noise) => noise.to_vec(),
                None => messages[usize::from(datagram.peer)][usize::from(datagram.message % PACKETS)].clone(),
            };
            for (offset, change) in &datagram.changes {
                let offset = usize::from(*offset) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= change;
                }
            }
            bytes.truncate(datagram.length.map_or(usize::MAX, usize::from));
            memory.extend(bytes);
        }
        let bytes = memory.len() - start;
        let size = usize::from(run.size.unwrap_or(52)).max(1);
        for chunk in memory[start..].chunks(size) {
            if let Some((peer, number)) = sealed.get(chunk) {
                if source(run.source) == source(*peer) && number % 4 != 3 {
                    possible.insert((*peer, *number), false);
                }
            }
        }
        if bytes > 0 {
            arrivals.push((start, Arrival { bytes, size, source: source(run.source), local: None, ecn: 0 }));
        }
    }

    let handler = NoHandler;
    let mut opener = Opener::new(&router, &handler);
    let pieces = opener.open(&mut memory, &arrivals, NOW).expect("a handler that does not fail");
    for piece in pieces {
        let found = &memory[piece.place.clone()];
        let peer = found[13];
        let number = (0..PACKETS).find(|number| packet(peer, *number) == found).expect("a packet that was sealed");
        let taken = possible.get_mut(&(peer, number)).expect("a message that arrived from its peer");
        assert!(!std::mem::replace(taken, true), "each is accepted once");
    }
}
