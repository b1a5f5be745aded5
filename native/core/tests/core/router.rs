//! A device's router, by allowed IPs and by next hops.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use threepipe_core::wireguard::next_hops::Flow;
use threepipe_core::wireguard::router::{PeerSettings, Router};

const PEER: u32 = 3;
const NO_FLOW: [u8; 20] = [0x45; 20];

fn packet(destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[16..].copy_from_slice(&destination);
    packet
}

fn with_peer(router: Router) -> Router {
    let settings =
        PeerSettings { traffic: Arc::default(), endpoint: None, local: None, sending: None, receiving: Vec::new() };
    router.set_peer(PEER, settings);
    router
}

fn destination(router: &Router, packet: &[u8]) -> Option<u32> {
    router.tables().destination(packet).map(|peer| peer.number)
}

#[test]
fn a_router_by_next_hops_finds_peers_of_learned_flows_and_not_by_networks() {
    let router = with_peer(Router::by_next_hops());
    router.set_allowed(PEER, vec![([10, 0, 0, 0].into(), 8)], Some(Ipv6Addr::LOCALHOST));
    assert_eq!(destination(&router, &packet([10, 0, 0, 2])), None);
    let learned = Flow { source: None, destination: IpAddr::from([10, 0, 0, 2]) };
    router.set_next_hops(Vec::new(), vec![(learned, PEER)]);
    assert_eq!(destination(&router, &packet([10, 0, 0, 2])), Some(PEER));
    assert_eq!((destination(&router, &NO_FLOW), destination(&router, &[])), (None, None));
    router.set_next_hops(vec![([10, 0, 0, 0].into(), 24)], Vec::new());
    assert_eq!(destination(&router, &packet([10, 0, 0, 2])), None);
    router.set_next_hops(Vec::new(), vec![(learned, PEER + 1)]);
    assert_eq!(destination(&router, &packet([10, 0, 0, 2])), None, "there is no such peer");
}

#[test]
fn a_router_by_next_hops_lets_several_peers_send_from_one_network_until_they_are_removed() {
    let router = Router::by_next_hops();
    for number in [PEER, PEER + 1] {
        router.set_allowed(number, vec![([10, 0, 0, 0].into(), 8)], Some(Ipv6Addr::LOCALHOST));
    }
    let allowed = |number| router.tables().allows([10, 1, 1, 1].into(), number);
    assert!(allowed(PEER) && allowed(PEER + 1) && !allowed(PEER + 2));
    router.set_allowed(PEER, Vec::new(), None);
    assert!(!allowed(PEER) && allowed(PEER + 1));
}

#[test]
fn a_router_by_allowed_ips_ignores_next_hops() {
    let router = with_peer(Router::default());
    router.set_allowed(PEER, vec![([10, 0, 0, 0].into(), 8)], None);
    let learned = Flow { source: None, destination: IpAddr::from([11, 0, 0, 2]) };
    router.set_next_hops(Vec::new(), vec![(learned, PEER)]);
    assert_eq!(destination(&router, &packet([11, 0, 0, 2])), None);
    assert_eq!(destination(&router, &packet([10, 0, 0, 2])), Some(PEER));
    assert!(router.tables().allows([10, 1, 1, 1].into(), PEER));
}
