//! Pace: how much a direction forwards after a wake-up, and with how many threads, by the pair of ends.

use crate::io::bundle::MAX_BUNDLE;
use crate::pump::end::End;

/// How a pump forwards between two ends.
pub(super) struct Pace {
    /// The most reads after one wake-up: one bundle for each number.
    pub(super) limits: &'static [usize],
    /// The most bytes of a bundle from an adapter.
    pub(super) bundle_size: usize,
    /// True to have one thread forward both directions while there is little traffic.
    pub(super) one_thread_if_calm: bool,
}

/// Between adapters whole bundles are forwarded, as they can be coalesced, and each direction has its thread. A single packet costs four system calls: to wait, to read, to find
/// nothing more to read, and to write. A bundle has at most 15 superpackets, or 256 packets of 1500 bytes.
const ADAPTERS: Pace = Pace { limits: &[MAX_BUNDLE], bundle_size: 1 << 20, one_thread_if_calm: false };

/// With an end that is not an adapter: after a wake-up, forward one packet before reading for more. While there is
/// little traffic one thread forwards both directions, as waking another takes longer than forwarding a packet.
#[cfg(target_os = "linux")]
const OTHERS: Pace = Pace { limits: &[1, MAX_BUNDLE], bundle_size: 1 << 19, one_thread_if_calm: true };

impl Pace {
    /// Return the pace between two ends. None if they do not fit together.
    pub(super) fn between(left: &End<'_>, right: &End<'_>) -> Option<&'static Self> {
        match (left, right) {
            (End::Tun(left), End::Tun(right)) => (left.vnet_header == right.vnet_header).then_some(&ADAPTERS),
            #[cfg(target_os = "linux")]
            (End::Peers(_), End::Peers(_)) => None,
            #[cfg(target_os = "linux")]
            _ => Some(&OTHERS),
        }
    }
}
