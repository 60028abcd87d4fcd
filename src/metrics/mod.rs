//! What a node counts of the checks it answers, and how it tells of that.
//!
//! - `counters`: each worker thread counts for itself, on cache lines of its own; the sums are made when somebody asks.
//! - `exposition`: all numbers of a node, as a `page` for Prometheus.

mod counters;
mod exposition;
mod page;

pub(crate) use self::{
    counters::WorkerMetrics,
    exposition::{Sources, render},
    page::MEDIA_TYPE,
};
