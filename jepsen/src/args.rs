//! What several command lines have in common.

#![allow(clippy::print_stdout, reason = "for a terminal")]

use std::time::Duration;

use clap::Args;

use crate::network::{Choice, Form};

/// What lies between the nodes.
#[derive(Debug, Clone, Copy, Args)]
pub struct NetworkArgs {
    /// What lies between the nodes: `namespaces` (each node has a network namespace; root or a user namespace is needed),
    /// `proxies` (loopback addresses with proxies between them; nothing is needed), or the first that is possible
    #[arg(long, value_name = "auto|namespaces|proxies", default_value = "auto", hide_possible_values = true)]
    network: Choice,
}

impl NetworkArgs {
    /// Settles on a form, and says so if it is not the usual one. This program may be started again for that.
    ///
    /// # Errors
    /// When the one that is asked for is not possible here.
    pub fn settle(self) -> Result<Form, String> {
        let (form, reason) = self.network.settle()?;
        if let Some(reason) = reason {
            println!("no network namespaces here, {form} instead: {reason}");
        }
        Ok(form)
    }
}

/// `90`, `90s`, `5m`, `1h`.
///
/// # Errors
/// With what is wrong with the text.
pub fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a time like 60s, 5m, 1h"))?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        unit => return Err(format!("{unit:?} is none of s, m, h")),
    };
    match seconds {
        20..=14_400 => Ok(Duration::from_secs(seconds)),
        _ => Err("it takes 20 seconds to 4 hours".to_owned()),
    }
}
