//! Room that all clients share, and of which each has a part at most: a client that takes its whole part keeps nobody else out.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::{DashMap, Entry};

/// How much all clients can have together, and each of them.
#[derive(Debug)]
pub(crate) struct Room {
    all: usize,
    each: usize,
    taken: AtomicUsize,
    /// Only those that have some of it.
    clients: DashMap<IpAddr, usize>,
}

/// What somebody has of a room, until this is dropped. The default is a part of no room, which has nothing to give.
#[derive(Debug, Default)]
pub(crate) struct Part {
    room: Option<Arc<Room>>,
    client: Option<IpAddr>,
    taken: usize,
}

impl Room {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: AtomicUsize::new(0), clients: DashMap::new() })
    }

    /// Nothing, to begin with. Without a client only the room as a whole is a bound.
    pub(crate) fn part(self: &Arc<Self>, client: Option<IpAddr>) -> Part {
        Part { room: Some(Arc::clone(self)), client, taken: 0 }
    }

    fn take(&self, client: Option<IpAddr>, amount: usize) -> bool {
        // Others take some at the same time, so it is counted first and looked at then.
        let before = self.taken.fetch_add(amount, Relaxed);
        let fits = before.checked_add(amount).is_some_and(|taken| taken <= self.all)
            && client.is_none_or(|client| self.take_of_client(client, amount));
        if !fits {
            self.taken.fetch_sub(amount, Relaxed);
        }
        fits
    }

    fn take_of_client(&self, client: IpAddr, amount: usize) -> bool {
        match self.clients.entry(client) {
            Entry::Occupied(mut known) => {
                let fits = *known.get() + amount <= self.each;
                if fits {
                    *known.get_mut() += amount;
                }
                fits
            }
            Entry::Vacant(vacant) => {
                let fits = amount <= self.each;
                if fits {
                    vacant.insert(amount);
                }
                fits
            }
        }
    }

    fn give_back(&self, client: Option<IpAddr>, amount: usize) {
        self.taken.fetch_sub(amount, Relaxed);
        let Some(client) = client else { return };
        if let Entry::Occupied(mut known) = self.clients.entry(client) {
            *known.get_mut() -= amount;
            if *known.get() == 0 {
                known.remove();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

impl Part {
    /// Takes so much that it has `total`. False: there is no room for it, and it has what it had.
    pub(crate) fn grow_to(&mut self, total: usize) -> bool {
        let more = total.saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let fits = self.room.as_ref().is_some_and(|room| room.take(self.client, more));
        if fits {
            self.taken = total;
        }
        fits
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(room) = self.room.as_ref().filter(|_| self.taken > 0) {
            room.give_back(self.client, self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_its_part_and_the_others_have_the_rest() {
        let room = Room::new(64, 16);
        let client = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        let (mut one, mut more) = (room.part(client(1)), room.part(client(1)));
        assert!(one.grow_to(10) && more.grow_to(6) && one.grow_to(10));
        assert!(!one.grow_to(11) && !room.part(client(1)).grow_to(1), "its part is taken");
        let mut two = room.part(client(2));
        assert!(!two.grow_to(17) && two.grow_to(16));
        // A proxy speaks for many.
        let mut proxy = room.part(None);
        assert!(!proxy.grow_to(33) && proxy.grow_to(32));
        assert!(!room.part(client(3)).grow_to(1), "all of it is taken");
        drop(more);
        assert!(one.grow_to(16) && !one.grow_to(usize::MAX));
        assert_eq!(room.taken(), 64);
        drop((one, two, proxy));
        assert!(room.taken() == 0 && room.clients.is_empty());
        assert!(!Part::default().grow_to(1) && Part::default().grow_to(0));
    }
}
