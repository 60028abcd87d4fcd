//! `tidegate cluster recover`: one node goes on when a quorum is permanently lost. It asks no node: it works on a
//! directory.

use std::path::PathBuf;

use clap::Args;
use tidegate_cluster::raft::Remains;

use super::outcome::{DONE, FAILED, Failure, Output};
use crate::{data_dir::DataDir, terminal::print};

#[derive(Debug, Args)]
#[command(after_help = "\
Only for when a quorum is permanently lost: their disks, not only their processes. While they may come back,
starting them is all that is needed.

  1. Stop all nodes that are left, and see to it that they stay stopped.
  2. Look at each of their data directories:   tidegate cluster recover --data-dir DIR
     Of those with the same cluster, that with the last entry (first the term, then the number) knows most.
  3. On that one node:                         tidegate cluster recover --data-dir DIR --yes
  4. Start it, alone, and wait until it is ready. Never empty its data directory: it has the rules.
  5. Move the data directories of the others away and start them. They join it and get its rules.

It keeps the rules and their history. Rules that were acknowledged by the lost nodes only may be missing, and all
buckets start exhausted: nothing is admitted twice.")]
pub(super) struct RecoverArgs {
    /// The data directory of a node that is not running
    #[arg(long, env = "TIDEGATE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,

    /// Make this node the only member of a cluster of its own; without it, show what is there and change nothing
    #[arg(long)]
    yes: bool,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

impl RecoverArgs {
    pub(super) async fn run(self) -> Result<u8, Failure> {
        // Looking must not make a directory, nor a file in one that is no node's.
        Remains::look_for(&self.data_dir).map_err(|fault| Failure::of(FAILED, fault))?;
        // No node runs on it from here on.
        let _taken = DataDir::open(&self.data_dir).map_err(|fault| Failure::of(FAILED, fault))?;
        let remains = Remains::read(&self.data_dir).await.map_err(|fault| Failure::of(FAILED, fault))?;
        let (term, index) = remains.last();
        let rules: Vec<String> =
            remains.rules().iter().map(|(domain, revision)| format!("{domain} ({revision})")).collect();
        let mut value = serde_json::json!({
            "node": remains.node(),
            "cluster": remains.cluster().to_string(),
            "last": { "term": term, "index": index },
            "voters": remains.voters(),
            "rules": remains.rules().iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "forged_term": remains.forged_term(),
            "new_cluster": null,
        });
        let mut text = format!(
            "node           {}\ncluster        {}\nlast entry     {index}, of term {term}\nvoters         {}\nrules          {}\n\n",
            remains.node(),
            remains.cluster(),
            remains.voters().join(", "),
            if rules.is_empty() { "none".to_owned() } else { rules.join(", ") },
        );
        if let Some(term) = remains.forged_term() {
            text += &format!(
                "The term {term} was forged: no cluster comes to it. The new cluster begins with a term of its own.\n\n"
            );
        }
        if self.yes {
            let name = remains.node().to_owned();
            let cluster = remains.go_on_alone().map_err(|fault| Failure::of(FAILED, fault))?;
            value["new_cluster"] = cluster.to_string().into();
            text += &format!(
                "{name} is the only member of the new cluster {cluster} now, with these rules. Start it alone; when it is\nready, move the data directories of the others away and start them."
            );
        } else {
            text += "Nothing was changed. If most of these voters are permanently lost and no other node has a later entry, --yes\nlets this node go on without them; see --help.";
        }
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(&text),
        }
        Ok(DONE)
    }
}
