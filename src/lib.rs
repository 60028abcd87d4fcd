//! A rate limiter that is a cluster by itself.
