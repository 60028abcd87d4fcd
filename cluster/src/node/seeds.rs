//! Names of `--join`, of hosts and of services, looked up in the background: each by a task of its own, so that a name service that hangs holds up neither
//! the start nor the end of a node (a look-up that was given up ends by the timeout of the resolver). As long as this node has no cluster, a name is looked up each second: it
//! may appear when the nodes behind it have started, as those of Kubernetes do. Afterwards twice a minute, for as long as the node
//! runs: two parts of a cluster that have lost sight of each other find each other by it.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{names::addresses_of, rules::ledger::Ledger};

/// How often a name is looked up by a node without a cluster.
const SEEK_EVERY: Duration = Duration::from_secs(1);
/// How often by one that has a cluster.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Addresses that a name may stand for; more are not greeted.
const MAX_ADDRESSES: usize = 256;
/// A name that stands for no address for so many look-ups is worth a line.
const SAID_AFTER: u32 = 10;

/// Looks a name up again and again, and greets whoever is behind it. Runs until it is dropped.
pub(super) async fn keep_looking_up(name: String, greet: impl Fn(SocketAddr), ledger: Ledger) {
    let mut failures = 0;
    loop {
        let reason = match timeout(PATIENCE, addresses_of(&name)).await {
            Ok(Ok(addresses)) => {
                let count = addresses.into_iter().take(MAX_ADDRESSES).map(&greet).count();
                (count == 0).then(|| "it stands for no address".to_owned())
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {PATIENCE:?}")),
        };
        match reason {
            Some(reason) => {
                failures += 1;
                if failures == SAID_AFTER {
                    warn!(%name, reason, "a name of --join cannot be looked up; it is tried again and again");
                }
            }
            None => {
                if failures >= SAID_AFTER {
                    info!(%name, failures, "a name of --join is found again");
                }
                failures = 0;
            }
        }
        let pause = if ledger.group().is_some() { LOOK_EVERY } else { SEEK_EVERY };
        sleep(pause).await;
    }
}
