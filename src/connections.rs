//! Which connections are open, of all front ends together and of each client.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use dashmap::{DashMap, Entry};

use crate::{
    client_address::Network,
    turns::{Turn, Turns, Whose},
};

/// One of so many places is kept for HTTP: a node whose other ports are full of idle connections tells that it lives, and can
/// be asked what is wrong.
const KEPT_FOR_HTTP: u64 = 8;
/// Bits of an IPv6 address that are one client.
const CLIENT_BITS: u32 = 64;

/// The places of all front ends.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicU64,
    caps: Caps,
    /// No more entries than open connections.
    clients: DashMap<IpAddr, u64>,
    /// By worker thread: the connections of all front ends take turns there.
    turns: Arc<OnceLock<Vec<Arc<Turns>>>>,
    whose: Whose,
}

/// How many connections there can be.
#[derive(Debug, Clone)]
pub(crate) struct Caps {
    pub(crate) all: u64,
    /// Of one client: an IPv4 address, or 64 bits of an IPv6 address.
    pub(crate) each_client: u64,
    /// They connect for many clients, and have no cap but that of all.
    pub(crate) proxies: Vec<Network>,
}

impl Default for Caps {
    fn default() -> Self {
        Self { all: u64::MAX, each_client: u64::MAX, proxies: Vec::new() }
    }
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All places are taken, or all that this front end can have.
    OfAll,
    /// This client has as many as one can have.
    OfClient,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(Caps::default())
    }
}

impl Connections {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            open: AtomicU64::new(0),
            caps,
            clients: DashMap::new(),
            turns: Arc::default(),
            whose: Whose::Clients,
        }
    }

    /// Places of administration at an address of its own, whose connections take turns with those of these.
    pub(crate) fn of_administration(caps: Caps, others: &Self) -> Self {
        Self { turns: Arc::clone(&others.turns), whose: Whose::Operators, ..Self::new(caps) }
    }

    /// How many there can be for HTTP, and for each other front end as long as nobody asks over HTTP.
    pub(crate) fn cap(&self, is_http: bool) -> u64 {
        if is_http { self.caps.all } else { self.caps.all - self.caps.all / KEPT_FOR_HTTP }
    }

    /// A place for one more, of whom [`Connections::leave`] is told.
    pub(crate) fn enter(&self, client: IpAddr, is_http: bool) -> Result<Option<IpAddr>, NoPlace> {
        // Two front ends may add at the same time, so it is counted first and looked at then.
        if self.open.fetch_add(1, Relaxed) >= self.cap(is_http) {
            self.open.fetch_sub(1, Relaxed);
            return Err(NoPlace::OfAll);
        }
        // The whole address: a network of proxies may be longer than what is one client.
        let address = client.to_canonical();
        if self.caps.proxies.iter().any(|network| network.contains(address)) {
            return Ok(None);
        }
        let client = client_of(address);
        let mut count = self.clients.entry(client).or_insert(0);
        if *count >= self.caps.each_client {
            drop(count);
            self.open.fetch_sub(1, Relaxed);
            return Err(NoPlace::OfClient);
        }
        *count += 1;
        Ok(Some(client))
    }

    /// The turns of each of so many worker threads.
    pub(crate) fn turns(&self, workers: usize) -> &[Arc<Turns>] {
        self.turns.get_or_init(|| (0..workers).map(|_| Turns::new()).collect())
    }

    /// The turn of a connection from there on one of so many worker threads.
    pub(crate) fn turn(&self, workers: usize, worker: usize, address: IpAddr) -> Arc<Turn> {
        self.turns(workers)[worker].of(self.whose, client_of(address))
    }

    /// A connection that was given a place has ended.
    pub(crate) fn leave(&self, client: Option<IpAddr>) {
        self.open.fetch_sub(1, Relaxed);
        let Some(client) = client else { return };
        if let Entry::Occupied(mut known) = self.clients.entry(client) {
            *known.get_mut() -= 1;
            if *known.get() == 0 {
                known.remove();
            }
        }
    }
}

/// The client whose address this is: an IPv4 address, or 64 bits of an IPv6 address.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host_bits = u128::MAX.checked_shr(CLIENT_BITS).unwrap_or(0);
            IpAddr::V6((u128::from(address) & !host_bits).into())
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_its_part_proxies_have_more_and_http_has_the_last_places() {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let places = Connections::new(Caps { all: 16, each_client: 4, proxies });
        let one = address("2001:db8::1");
        for n in 0..4_u128 {
            assert!(places.enter(IpAddr::V6((u128::from_be_bytes([0x20; 16]) + n).into()), false).is_ok());
            assert!(places.enter(address("::ffff:192.0.2.1"), false).is_ok());
        }
        assert_eq!(places.enter(address("192.0.2.1"), true), Err(NoPlace::OfClient));
        let proxy = address("10.1.1.1");
        let taken: Vec<_> = (0..6).map(|_| places.enter(proxy, false).unwrap()).collect();
        assert_eq!(places.enter(one, false), Err(NoPlace::OfAll), "two are kept for HTTP");
        let last = places.enter(one, true).unwrap();
        assert!(places.enter(one, true).is_ok());
        assert_eq!(places.enter(one, true), Err(NoPlace::OfAll));
        places.leave(last);
        places.leave(Some(client_of(address("192.0.2.1"))));
        assert!(places.enter(address("192.0.2.1"), true).is_ok());
        taken.into_iter().for_each(|client| places.leave(client));
        assert!(places.enter(one, false).is_ok());
    }

    #[test]
    fn a_proxy_is_known_by_its_whole_address() {
        let proxies = ["::1", "2001:db8::5/128", "2001:db8:1::/48", "2001:db8:2::80/121", "192.0.2.7"];
        let proxies = proxies.map(|network| network.parse().unwrap()).to_vec();
        let places = Connections::new(Caps { all: 1000, each_client: 1, proxies });
        for proxy in ["::1", "2001:db8::5", "2001:db8:1:2::3", "2001:db8:2::ff", "::ffff:192.0.2.7"] {
            for _ in 0..3 {
                assert_eq!(places.enter(address(proxy), true), Ok(None), "{proxy}");
            }
        }
        for (client, neighbour) in
            [("2001:db8::6", "2001:db8::7"), ("2001:db8:2::7f", "2001:db8:2::100"), ("::2", "::3")]
        {
            assert!(matches!(places.enter(address(client), true), Ok(Some(_))), "{client}");
            assert_eq!(places.enter(address(neighbour), true), Err(NoPlace::OfClient), "{neighbour}");
        }
    }

    #[test]
    fn nothing_is_kept_of_clients_that_are_gone() {
        let places = Connections::default();
        let clients: Vec<_> =
            (0..100_u8).map(|n| places.enter(IpAddr::from([192, 0, 2, n]), true).unwrap()).collect();
        assert_eq!(places.clients.len(), 100);
        clients.into_iter().for_each(|client| places.leave(client));
        assert!(places.clients.is_empty() && places.open.load(Relaxed) == 0);
    }
}
