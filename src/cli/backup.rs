//! `tidegate backup`: a running cluster in one file.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_cluster::{
    backup::{BackupError, BackupWriter, Summary, look_at_part, verify},
    slots::SLOTS,
};
use tokio::time::{Instant, sleep};

use super::{
    node::{NodeArgs, plural},
    outcome::{self, DONE, FAILED, Failure, Output},
};
use crate::{
    client::{Ask, NodeAddress},
    instant,
    terminal::{note, print},
};

/// Slots that a node is asked for at once; it reads all of its buckets each time.
const SLOTS_AT_ONCE: usize = 512;
/// How long slots without an owner, or on their way to another, are waited for.
const OWNERS_WITHIN: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
In it are the rules of all domains with their history, the tokens (as hashes, with which nobody can ask), the audit
trail, and what each bucket has used. The cluster goes on meanwhile: of each bucket it has what was used when it was
read. Not in it: the cluster key, admin tokens, and the flags of the nodes.

It is asked for at one node, which names the others: each is asked, at its HTTP address, for the buckets that it owns.
Where they cannot be reached at these addresses, name all of them (--owner, several times).

With the file somebody can choose keys whose buckets collide, and try tokens out: it is made 0600, and is to stay so.

Examples:
  tidegate backup --output tidegate.backup --token-file ops.token
  tidegate backup --output rules-only.backup --without-counts
  tidegate backup verify tidegate.backup             what is in it, and whether it is whole
  tidegate restore tidegate.backup --data-dir /var/lib/tidegate"
)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,

    #[command(flatten)]
    make: MakeArgs,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Look whether a backup is whole, and say what is in it; no cluster is needed
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct MakeArgs {
    /// Where the backup is written; a file of that name is replaced when the new one is whole
    #[arg(long = "output", short = 'o', value_name = "FILE", required = true)]
    file: Option<PathBuf>,

    /// Leave out what the buckets have used: restored, they begin full
    #[arg(long)]
    without_counts: bool,

    /// A further node to ask for its buckets, at this address instead of the one that it tells; several times for several
    #[arg(long = "owner", value_name = "URL")]
    owners: Vec<NodeAddress>,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    format: Output,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("cannot write {path} (--output): {reason}")]
    Write { path: PathBuf, reason: io::Error },
    #[error("{0} answers with something else than buckets; do all nodes run this version?")]
    NoPart(NodeAddress),
    #[error(
        "{count} of {SLOTS} slots are owned by no node that could be asked, so that what their buckets have used is not known: look \
         at `tidegate cluster status`, name nodes by --owner, or leave the counts out (--without-counts)"
    )]
    NoOwner { count: usize },
}

#[derive(Debug, Deserialize)]
struct View {
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    live: bool,
    http: Option<String>,
}

impl BackupArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self.command {
            Some(BackupCommand::Verify(args)) => args.run(),
            None => outcome::run(self.make.run()),
        }
    }
}

impl VerifyArgs {
    fn run(self) -> Result<u8, Failure> {
        let summary = verify(&self.file).map_err(|fault| Failure::of(FAILED, fault))?;
        tell(&self.file, &summary, self.output);
        Ok(DONE)
    }
}

/// A file that is there when it is whole.
struct Draft {
    path: PathBuf,
    held: Option<File>,
    counts: bool,
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another backup is being written to this file: wait for it",
        ),
        TryLockError::Error(error) => error,
    })
}

impl Draft {
    fn of(file: &Path) -> Self {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        Self { path: file.with_file_name(name), held: None, counts: false }
    }

    /// Makes it. It stays locked for as long as this draft is there: another command takes it from nobody.
    fn create(&mut self) -> io::Result<File> {
        match File::open(&self.path) {
            Ok(left) => {
                lock(&left)?;
                // What an earlier command left may be open to others.
                fs::remove_file(&self.path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&self.path)?;
        lock(&file)?;
        self.held = Some(file.try_clone()?);
        Ok(file)
    }

    fn becomes(mut self, file: &Path) -> io::Result<()> {
        fs::rename(&self.path, file)?;
        self.counts = true;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.counts && self.held.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl MakeArgs {
    async fn run(self) -> Result<u8, Failure> {
        let file = self.file.clone().unwrap_or_default();
        let write = |reason| Failure::of(FAILED, MakeError::Write { path: file.clone(), reason });
        let beginning = self.node.ask_bytes(None, Ask::get(&["v1", "backup"])).await?;
        let mut draft = Draft::of(&file);
        let out = BufWriter::new(draft.create().map_err(write)?);
        let mut writer = BackupWriter::new(out, &beginning).map_err(write)?;
        drop(beginning);
        if !self.without_counts {
            self.add_buckets(&mut writer, &write).await?;
        }
        let mut out = writer.finish().map_err(write)?;
        out.flush().map_err(write)?;
        out.get_ref().sync_all().map_err(write)?;
        drop(out);
        // What a disk or a node has made of it is found now, and not when it is needed.
        let summary = verify(&draft.path).map_err(|fault: BackupError| Failure::of(FAILED, fault))?;
        draft.becomes(&file).map_err(write)?;
        tell(&file, &summary, self.format);
        Ok(DONE)
    }

    /// Asks each owner for the slots that nobody has told of yet, until all are there.
    async fn add_buckets(
        &self,
        writer: &mut BackupWriter<BufWriter<File>>,
        write: &impl Fn(io::Error) -> Failure,
    ) -> Result<(), Failure> {
        let mut missing = vec![true; SLOTS];
        let give_up = Instant::now() + OWNERS_WITHIN.max(self.node.timeout());
        loop {
            for owner in self.all_owners().await? {
                let mut next = 0;
                while let Some(first) = (next..SLOTS).find(|slot| missing[*slot]) {
                    let last = (first + SLOTS_AT_ONCE).min(SLOTS) - 1;
                    let query = vec![("first", first.to_string()), ("last", last.to_string())];
                    let ask = Ask::get(&["v1", "backup", "buckets"]).with_query(query);
                    let part = match self.node.ask_bytes(owner.as_ref(), ask).await {
                        Ok(part) => part,
                        // Another one may have its slots by now.
                        Err(fault) if owner.is_some() && fault.may_pass() => {
                            note(&format!("{fault}; trying again"));
                            break;
                        }
                        Err(fault) => return Err(fault.into()),
                    };
                    let Some(told) = look_at_part(&part) else {
                        let node = owner.clone().unwrap_or_else(|| self.node.address().clone());
                        return Err(Failure::of(FAILED, MakeError::NoPart(node)));
                    };
                    next = usize::from(told.last).max(first) + 1;
                    let is_news = told.slots.iter().any(|slot| missing[usize::from(*slot) % SLOTS]);
                    if is_news {
                        writer.buckets(&part).map_err(write)?;
                    }
                    told.slots.iter().for_each(|slot| missing[usize::from(*slot) % SLOTS] = false);
                }
            }
            let count = missing.iter().filter(|missing| **missing).count();
            if count == 0 {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(Failure::of(FAILED, MakeError::NoOwner { count }));
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Whom to ask, as the nodes are now. `None`: the one that is asked anyway.
    async fn all_owners(&self) -> Result<Vec<Option<NodeAddress>>, Failure> {
        if !self.owners.is_empty() {
            let named = self.owners.iter().cloned().map(Some);
            return Ok(std::iter::once(None).chain(named).collect());
        }
        let value = self.node.ask(Ask::get(&["v1", "cluster"])).await?;
        let view: View = self.node.read(&value)?;
        let others = view.members.into_iter().filter(|member| member.live).filter_map(|member| member.http);
        let scheme = if self.node.address().is_https() { "https" } else { "http" };
        let addresses = others.filter_map(|http| format!("{scheme}://{http}").parse().ok());
        // The node itself is among them: it is asked at the address that is known to work, and tells nothing new at the other one.
        Ok(std::iter::once(None).chain(addresses.map(Some)).collect())
    }
}

fn tell(file: &Path, summary: &Summary, format: Output) {
    let value = value_of(summary);
    if format == Output::Json {
        return print(&value.to_string());
    }
    let domains: Vec<String> = summary
        .domains
        .iter()
        .map(|(name, revision, changes)| format!("{name} ({revision}, of {})", plural(*changes, "revision")))
        .collect();
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let counts = match summary.slots {
        0 => "none: restored, all buckets begin full".to_owned(),
        SLOTS => plural(summary.buckets as usize, "bucket"),
        slots => format!("{} of {slots} of {SLOTS} slots", plural(summary.buckets as usize, "bucket")),
    };
    print(&format!(
        "{} is whole\n\ntaken      {}, by the clock of {} (Tidegate {})\ncluster    {}\nmembers    {}\nrules      {}\ntokens     {}\ncounts     {counts}",
        file.display(),
        instant::text_of(summary.taken_ms),
        summary.node,
        summary.tidegate,
        summary.cluster.map_or_else(|| "none".to_owned(), |cluster| cluster.to_string()),
        list(&summary.members),
        list(&domains),
        list(&summary.tokens),
    ));
}

pub(super) fn value_of(summary: &Summary) -> Value {
    let domains = summary.domains.iter().map(|(name, revision, changes)| {
        json!({ "domain": name, "revision": revision.get(), "revisions_kept": changes })
    });
    json!({
        "taken_at": instant::text_of(summary.taken_ms),
        "node": summary.node,
        "tidegate": summary.tidegate,
        "cluster": summary.cluster.map(|cluster| cluster.to_string()),
        "applied": summary.applied,
        "members": summary.members,
        "domains": domains.collect::<Vec<_>>(),
        "tokens": summary.tokens,
        "slots": summary.slots,
        "buckets": summary.buckets,
    })
}
