//! The limiting core of Tidegate: algorithms, rules, matching and buckets. No I/O, no async, no clock.
