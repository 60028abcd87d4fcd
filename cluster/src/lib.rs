//! The cluster of Tidegate: gossip, slots, forwarding.
