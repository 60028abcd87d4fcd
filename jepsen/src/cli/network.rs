//! What lies between the nodes, as the command line says it.

use clap::Args;
use tidegate_jepsen::network::{Choice, Form};

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct NetworkArgs {
    /// What lies between the nodes: `namespaces` (each node has a network namespace; root or a user namespace is needed),
    /// `proxies` (loopback addresses with proxies between them; nothing is needed), or the first that is possible
    #[arg(long, value_name = "auto|namespaces|proxies", default_value = "auto", hide_possible_values = true)]
    network: Choice,
}

impl NetworkArgs {
    /// Settles on a form, and says so if it is not the usual one. This program may be started again for that.
    pub(crate) fn settle(self) -> Result<Form, String> {
        let (form, reason) = self.network.settle()?;
        if let Some(reason) = reason {
            println!("no network namespaces here, {form} instead: {reason}");
        }
        Ok(form)
    }
}
