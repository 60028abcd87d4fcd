//! Options whose values are words.

use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use tidegate_cluster::Clock;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line, for machines.
    Json,
}

/// The `X-RateLimit-*` headers, which nobody has written down, so that there are two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LegacyHeaders {
    /// `X-RateLimit-Reset` in seconds from now.
    #[default]
    Seconds,
    /// `X-RateLimit-Reset` in seconds since 1970, as GitHub has it.
    UnixTime,
    /// None.
    Off,
}

impl LegacyHeaders {
    /// What is added to the time from now; none if there are no such headers.
    pub(crate) fn offset(self, clock: Clock) -> Option<Duration> {
        match self {
            Self::Seconds => Some(Duration::ZERO),
            Self::UnixTime => Some(Duration::from_nanos(clock.now().get())),
            Self::Off => None,
        }
    }
}

/// What needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequireToken {
    /// Administration: all but checks, and whether the node lives.
    Admin,
    /// Checks too.
    All,
}

/// Whether something must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// It may be missing.
    Optional,
    /// It must be there.
    Required,
}

/// A front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsPort {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// The Redis protocol.
    Redis,
}

/// What Envoy is told to add to answers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvoyHeaders {
    /// Nothing; it can make `x-ratelimit-*` headers itself (enable_x_ratelimit_headers).
    #[default]
    None,
    /// The headers RateLimit and RateLimit-Policy of the current IETF draft, and Retry-After.
    Ratelimit,
}
