//! `tidegate cluster`: who is there, and taking a node out.

use std::{fmt::Write as _, time::Duration};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    node::NodeArgs,
    outcome::{self, DONE, FAILED, Failure, Output},
    recover::RecoverArgs,
};
use crate::{
    client::Ask,
    config::Span,
    terminal::{note, print},
};

/// How often the command asks how far a node is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often that is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  tidegate cluster status
  tidegate cluster drain n2                          then n2 may be stopped, and no count is lost
  tidegate cluster drain n2 --undo                   it takes its share again
  tidegate cluster remove n2                         it is dead, or was drained, and will not come back
  tidegate cluster recover --data-dir /var/lib/tidegate    a quorum is permanently lost"
)]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show the nodes, what each owns, and what is on its way
    Status(StatusArgs),
    /// Give all slots of a node to the others, with their counts; returns when it owns none and may be stopped
    Drain(DrainArgs),
    /// Take out a node that is dead or drained
    Remove(RemoveArgs),
    /// Go on from one node's data directory when a quorum is permanently lost
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct DrainArgs {
    /// The node's name
    #[arg(value_name = "NODE")]
    name: String,

    /// Let it have its share again
    #[arg(long)]
    undo: bool,

    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    within: Span,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// The node's name
    #[arg(value_name = "NODE")]
    name: String,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Deserialize)]
struct View {
    node: String,
    slots: usize,
    slots_moving: usize,
    slots_to_move: usize,
    members: Vec<Member>,
    raft: Raft,
}

#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    state: String,
    live: bool,
    draining: bool,
    slots: usize,
    peer: String,
    zone: Option<String>,
    weight: u16,
    voter: bool,
    gone_for_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Raft {
    leader: Option<String>,
    #[serde(default)]
    voters: Vec<String>,
    /// What an earlier version does not tell.
    live_voters: Option<usize>,
}

impl Raft {
    /// What the group can still lose, in one line.
    fn tolerance(&self) -> Option<String> {
        let (there, all) = (self.live_voters?, self.voters.len());
        if all == 0 {
            return None;
        }
        let there_are = match (there, all) {
            (1, 1) => "1 voter is there".to_owned(),
            (there, all) if there == all => format!("all {all} voters are there"),
            (there, all) => format!("{there} of {all} voters are there"),
        };
        let quorum = all / 2 + 1;
        Some(match there.checked_sub(quorum) {
            None => format!(
                "{there_are} ({}): {quorum} are needed to change rules and members",
                self.voters.join(", ")
            ),
            Some(0) => format!("{there_are}: one more loss stops changes of rules and members"),
            Some(1) => format!("{there_are}: one more may be lost"),
            Some(more) => format!("{there_are}: {more} more may be lost"),
        })
    }
}

impl ClusterArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        outcome::run(async {
            match self.command {
                ClusterCommand::Status(args) => args.run().await,
                ClusterCommand::Drain(args) => args.run().await,
                ClusterCommand::Remove(args) => args.run().await,
                ClusterCommand::Recover(args) => args.run().await,
            }
        })
    }
}

impl StatusArgs {
    async fn run(self) -> Result<u8, Failure> {
        let value = self.node.ask(Ask::get(&["v1", "cluster"])).await?;
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(self.node.read::<View>(&value)?.to_text().trim_end()),
        }
        Ok(DONE)
    }
}

impl View {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{:<16} {:<10} {:>6} {:>6} {:<8} {:<12} {}\n",
            "NODE", "STATE", "SLOTS", "WEIGHT", "RAFT", "ZONE", "PEERS"
        );
        for member in &self.members {
            let state = match member {
                Member { gone_for_ms: Some(gone), .. } => format!("gone {}s", gone / 1000),
                Member { draining: true, .. } => "draining".to_owned(),
                member => member.state.clone(),
            };
            let raft = match &self.raft.leader {
                Some(leader) if *leader == member.name => "leader",
                _ if member.voter => "voter",
                _ if member.live => "learner",
                _ => "-",
            };
            let zone = member.zone.as_deref().unwrap_or("-");
            let _ = writeln!(
                text,
                "{:<16} {state:<10} {:>6} {:>6} {raft:<8} {zone:<12} {}",
                member.name, member.slots, member.weight, member.peer
            );
        }
        let _ = match (self.slots_moving, self.slots_to_move) {
            (0, 0) => writeln!(
                text,
                "\nall {} slots are where they should be, as {} sees it",
                self.slots, self.node
            ),
            (moving, waiting) => {
                writeln!(text, "\n{moving} slots are on their way, {waiting} of {} have to move", self.slots)
            }
        };
        if let Some(tolerance) = self.raft.tolerance() {
            let _ = writeln!(text, "{tolerance}");
        }
        if self.raft.leader.is_none() && !self.raft.voters.is_empty() {
            let _ = writeln!(text, "no leader: rules and members cannot be changed, and no slots can move");
        }
        text
    }
}

impl DrainArgs {
    async fn run(self) -> Result<u8, Failure> {
        let query = if self.undo { vec![("undo", "true".to_owned())] } else { Vec::new() };
        let ask = Ask::post(&["v1", "cluster", "drain", &self.name], String::new()).with_query(query);
        let value = self.node.ask(ask).await?;
        if self.undo {
            self.tell(&value, &format!("{} takes its share again", self.name));
            return Ok(DONE);
        }
        let give_up = Instant::now() + self.within.0;
        let mut tell_at = Instant::now();
        loop {
            let value = self.node.ask(Ask::get(&["v1", "cluster"])).await?;
            let view: View = self.node.read(&value)?;
            let left = view.members.iter().find(|member| member.name == self.name).map_or(0, |one| one.slots);
            if left == 0 && view.slots_moving == 0 {
                let result = serde_json::json!({ "node": self.name, "slots": 0 });
                self.tell(&result, &format!("{} owns nothing any more and may be stopped", self.name));
                return Ok(DONE);
            }
            if Instant::now() >= give_up {
                let result = serde_json::json!({ "node": self.name, "slots": left });
                self.tell(
                    &result,
                    &format!("{} still owns {left} slots; it goes on: ask again, or --undo", self.name),
                );
                return Ok(FAILED);
            }
            if Instant::now() >= tell_at {
                note(&format!("{} still owns {left} slots", self.name));
                tell_at = Instant::now() + TELL_EVERY;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn tell(&self, value: &Value, text: &str) {
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(text),
        }
    }
}

impl RemoveArgs {
    async fn run(self) -> Result<u8, Failure> {
        let ask = Ask::post(&["v1", "cluster", "remove", &self.name], String::new());
        let value = self.node.ask(ask).await?;
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(&format!("{} is no member any more", self.name)),
        }
        Ok(DONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_can_still_lose_is_one_line() {
        let told = |live_voters, all: usize| {
            let voters = (1..=all).map(|number| format!("n{number}")).collect();
            Raft { leader: None, voters, live_voters }.tolerance().unwrap_or_default()
        };
        assert_eq!(told(Some(1), 1), "1 voter is there: one more loss stops changes of rules and members");
        assert_eq!(
            told(Some(2), 3),
            "2 of 3 voters are there: one more loss stops changes of rules and members"
        );
        assert_eq!(told(Some(3), 3), "all 3 voters are there: one more may be lost");
        assert_eq!(told(Some(5), 5), "all 5 voters are there: 2 more may be lost");
        assert_eq!(
            told(Some(1), 3),
            "1 of 3 voters are there (n1, n2, n3): 2 are needed to change rules and members"
        );
        assert_eq!(told(None, 3), "", "an earlier version does not say");
        assert_eq!(told(Some(0), 0), "");
    }
}
