//! `tidegate-jepsen run`: breaks a cluster for a while and says whether it kept its promises.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Args;
use tidegate_jepsen::{
    args::{NetworkArgs, time},
    binary,
    campaign::{self, Plan},
    history::monotonic,
    judge::{Judgement, judge},
    machine,
    nemesis::{Kind, Means},
    network::Form,
    record::Record,
    report::{html, picture, progress::Line, terminal},
};

use super::exit_code;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p jepsen -- run --nodes 5 --time 60s --nemesis all --seed 1
  tidegate-jepsen run --time 5m --nemesis kill,pause,partition
  tidegate-jepsen run --time 1h                        the long campaign
  tidegate-jepsen run --network proxies                without root, without namespaces: in a container
  tidegate-jepsen run --nemesis upgrade,kill --other-binary /tmp/tidegate-0.2

Faults: kill, pause, vm-stop, restart, wipe, replace, rolling, clock-jump, torn-write, upgrade, move-addresses, reuse-address,
late-dns; halves, majority-ring, one-way, bridge, alone
(all five: partition), unconnectable, slow, loss, double, delay, reorder, far-apart, lost-answers, hung-fsync; full-disk,
failed-fsync, clock-drift, stalled-log, drain, join, scale, flood. Each is aimed at the owner of the hottest key, the Raft leader, a node in mid-move, or
any.
move-addresses: one, some or all nodes end at once and come back elsewhere, or at the addresses of each other. reuse-address: a node of
another cluster gets a node's former address. scale: nodes leave by plan and come back (five, three, five), or two more come and leave.
late-dns: a node starts again, and the name of the others stands for nothing for seconds. Clocks, syncs and torn writes need a build for tests, which is what is built without --binary; upgrade needs --other-binary.

The seed also says how the cluster is founded (by all nodes at once, by three of them while all start, or by three before all others
come at once), whether some nodes are drained from the beginning, so that they own nothing, and when limits are changed.

Each node has a network namespace where that is possible: it needs root, or leave to make a user namespace, and iproute2
and nftables. Elsewhere, or with --network proxies, the nodes are on loopback addresses with proxies between them. Only
proxies can delay, reorder and lose answers; full-disk and late-dns need leave to mount, late-dns namespaces as well. What cannot be done is left out of `all`, and told.

Exit codes: 0 all promises kept, 1 one was not, 2 that cannot be said: the faults did not hit, or nothing could be tested.")]
pub(crate) struct RunArgs {
    /// How many nodes, each in a network of its own; one more may join
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,

    /// For how long checks are made: a tenth of it before the first fault, a sixth after the last one
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    time: Duration,

    #[command(flatten)]
    network: NetworkArgs,

    /// Which faults: a list, `all`, or `none`; `all,-flood` leaves one out
    #[arg(long, value_name = "KINDS", default_value = "all")]
    nemesis: String,

    /// What chance begins with [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The node's program [default: one for tests, beside this program, built if cargo runs this]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,

    /// Another build of the node's program, for rolling upgrades: to it, and the next time back
    #[arg(long, value_name = "FILE")]
    other_binary: Option<PathBuf>,

    /// Where the history and the report go [default: target/jepsen/jepsen-seed-N]
    #[arg(long, value_name = "DIRECTORY")]
    store: Option<PathBuf>,

    /// Switches a bug on, of a build that has such switches: a checker should find it
    #[arg(long, value_name = "NAME")]
    planted_bug: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    match try_run(args) {
        Ok(judgement) => exit_code(judgement.verdict),
        Err(fault) => {
            eprintln!("nothing was tested: {fault}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: RunArgs) -> Result<Judgement, String> {
    // What is wrong with it is said before anything is built.
    Kind::parse_list(&args.nemesis).map_err(|fault| format!("--nemesis: {fault}"))?;
    let seed = args.seed.unwrap_or_else(|| monotonic() % 1_000_000);
    let binary = binary::for_tests(args.binary)?;
    let other = args.other_binary.as_deref().map(|path| binary::existing(path, "--other-binary"));
    let other = other.transpose()?;
    let network = args.network.settle()?;
    let means =
        Means { network, follows_orders: machine::follows_orders(&binary), other_build: other.is_some() };
    let (kinds, left_out) =
        Kind::parse_possible(&args.nemesis, &means).map_err(|fault| format!("--nemesis: {fault}"))?;
    let mut command = format!(
        "cargo run --release -p jepsen -- run --nodes {} --time {}s --nemesis {} --seed {seed}",
        args.nodes,
        args.time.as_secs(),
        args.nemesis
    );
    if network != Form::default() {
        command.push_str(" --network proxies");
    }
    if let Some(bug) = &args.planted_bug {
        command.push_str(&format!(" --planted-bug {bug}"));
    }
    if let Some(other) = &other {
        command.push_str(&format!(" --other-binary {}", other.display()));
    }
    println!("{} nodes, {network}, {:?}, faults: {}, seed {seed}", args.nodes, args.time, args.nemesis);
    if !left_out.is_empty() {
        println!("left out of the faults: {}", left_out.join("; "));
    }
    let plan = Plan {
        binary,
        other_binary: other,
        follows_orders: means.follows_orders,
        nodes: args.nodes,
        network,
        left_out,
        length: args.time,
        kinds,
        seed,
        planted_bug: args.planted_bug,
        command,
    };
    let record = with_progress(&plan)?;
    let place = args.store.unwrap_or_else(|| Record::place(&record.setup));
    record.write(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    tell(&record, &place)
}

/// Runs a plan with a line of progress; Ctrl-C and SIGTERM end it early and in order.
fn with_progress(plan: &Plan) -> Result<Record, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second one ends this program at once; the next run removes what is left then.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 2, Arc::clone(&interrupted));
        let _ = signal_hook::flag::register(signal, Arc::clone(&interrupted));
    }
    let mut line = Line::new();
    let record = campaign::run(plan, &interrupted, |progress| line.show(progress));
    line.end();
    if interrupted.load(Relaxed) {
        eprintln!("interrupted: all nodes and networks are gone");
    }
    record
}

/// Judges a run, and writes the report beside it.
pub(super) fn tell(record: &Record, place: &Path) -> Result<Judgement, String> {
    let judgement = judge(record);
    let within = |name: &str, error: std::io::Error| format!("{}: {error}", place.join(name).display());
    let result = serde_json::to_vec_pretty(&judgement).map_err(|error| error.to_string())?;
    std::fs::write(place.join("result.json"), result).map_err(|error| within("result.json", error))?;
    let page = html::page(record, &judgement);
    std::fs::write(place.join("report.html"), page).map_err(|error| within("report.html", error))?;
    let png = picture::png(record, &judgement)?;
    std::fs::write(place.join("timeline.png"), png).map_err(|error| within("timeline.png", error))?;
    println!("{}", terminal::summary(record, &judgement));
    println!("report     {}", place.join("report.html").display());
    println!("again      {}", record.setup.command);
    Ok(judgement)
}
