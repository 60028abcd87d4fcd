//! Black-box testing of Tidegate clusters: real processes, recorded histories, checkers.
