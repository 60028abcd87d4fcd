//! All numbers of a node, for Prometheus.

use tidegate_cluster::{
    Cluster, GossipRejection, Readiness, Router,
    rules::GroupRole,
    stats::{CallKind, WorkerStats},
};
use tidegate_limiter::{
    cluster::{Rules, Store},
    rules::Zone,
};

use super::{
    counters::{LATENCY_BOUNDS, Totals, WorkerMetrics},
    page::Page,
};
use crate::{
    accept::ServerStats,
    check::{Decider, ProblemKind},
    logging, process,
    tls::Certificates,
};

/// One of the numbers that each worker counts.
type WorkerCount = fn(&WorkerStats) -> u64;

/// Where the numbers of a node are.
pub(crate) struct Sources<'n> {
    pub(crate) workers: &'n [WorkerMetrics],
    pub(crate) http: &'n ServerStats,
    pub(crate) grpc: &'n ServerStats,
    pub(crate) resp: &'n ServerStats,
    pub(crate) readiness: Readiness,
    pub(crate) cluster: &'n Cluster,
    pub(crate) router: &'n Router,
    pub(crate) store: &'n Store,
    pub(crate) rules: &'n Rules,
    pub(crate) certificates: &'n Certificates,
    /// Unix time in milliseconds.
    pub(crate) now: u64,
}

/// Writes all metrics of a node.
pub(crate) fn render(node: &Sources<'_>) -> String {
    let mut page = Page::default();
    checks(&mut page, node);
    http(&mut page, node);
    grpc(&mut page, node);
    resp(&mut page, node);
    tls(&mut page, node);
    cluster(&mut page, node);
    raft(&mut page, node);
    store(&mut page, node);
    process_info(&mut page);
    page.finish()
}

fn checks(page: &mut Page, node: &Sources<'_>) {
    let totals = Totals::of(node.workers);
    page.family("tidegate_checks_total", "counter", "Checks answered, by result and by who decided.");
    for (result, counts) in [("allowed", &totals.allowed), ("denied", &totals.denied)] {
        for (by, count) in Decider::ALL.iter().zip(counts) {
            page.sample("tidegate_checks_total", &[("result", result), ("decided_by", by.as_str())], count);
        }
    }
    page.simple(
        "tidegate_shadow_denied_total",
        "counter",
        "Rules in shadow mode that would have denied a check.",
        totals.shadow_denied,
    );
    page.simple("tidegate_batches_total", "counter", "Batches of checks answered.", totals.batches);

    let name = "tidegate_check_duration_seconds";
    page.family(name, "histogram", "Time from a check that has been read to its answer.");
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (bound, count) in LATENCY_BOUNDS.iter().zip(&totals.latency) {
        below += count;
        page.sample(&bucket, &[("le", &bound.as_secs_f64().to_string())], below);
    }
    below += totals.latency[LATENCY_BOUNDS.len()];
    page.sample(&bucket, &[("le", "+Inf")], below);
    page.sample(&format!("{name}_sum"), &[], totals.latency_nanos as f64 / 1e9);
    page.sample(&format!("{name}_count"), &[], below);

    page.family(
        "tidegate_http_problems_total",
        "counter",
        "Requests and batched checks refused, by kind of problem.",
    );
    for (kind, count) in ProblemKind::ALL.iter().zip(totals.problems.0) {
        page.sample("tidegate_http_problems_total", &[("problem", kind.word())], count);
    }
}

fn http(page: &mut Page, node: &Sources<'_>) {
    let stats = node.http;
    page.simple("tidegate_http_connections", "gauge", "Open HTTP connections.", stats.open());
    page.simple(
        "tidegate_http_connections_accepted_total",
        "counter",
        "HTTP connections accepted.",
        stats.accepted(),
    );
    page.simple(
        "tidegate_http_connections_refused_total",
        "counter",
        "HTTP connections refused, because there were too many.",
        stats.refused(),
    );
    page.simple(
        "tidegate_http_connections_refused_of_clients_total",
        "counter",
        "HTTP connections refused, because their client had as many as one can have.",
        stats.refused_clients(),
    );
    page.simple(
        "tidegate_http_accept_errors_total",
        "counter",
        "HTTP connections that the system did not give.",
        stats.accept_errors(),
    );
}

fn grpc(page: &mut Page, node: &Sources<'_>) {
    let stats = node.grpc;
    page.simple("tidegate_grpc_connections", "gauge", "Open gRPC connections.", stats.open());
    page.simple(
        "tidegate_grpc_connections_accepted_total",
        "counter",
        "gRPC connections accepted.",
        stats.accepted(),
    );
    page.simple(
        "tidegate_grpc_connections_refused_total",
        "counter",
        "gRPC connections refused, because there were too many.",
        stats.refused(),
    );
    page.simple(
        "tidegate_grpc_connections_refused_of_clients_total",
        "counter",
        "gRPC connections refused, because their client had as many as one can have.",
        stats.refused_clients(),
    );
    page.simple(
        "tidegate_grpc_connections_noisy_total",
        "counter",
        "gRPC connections closed, because their client sent too much that asks for nothing.",
        stats.noisy(),
    );
}

fn resp(page: &mut Page, node: &Sources<'_>) {
    let stats = node.resp;
    page.simple("tidegate_resp_connections", "gauge", "Open Redis protocol connections.", stats.open());
    page.simple(
        "tidegate_resp_connections_accepted_total",
        "counter",
        "Redis protocol connections accepted.",
        stats.accepted(),
    );
    page.simple(
        "tidegate_resp_connections_refused_total",
        "counter",
        "Redis protocol connections refused, because there were too many.",
        stats.refused(),
    );
    page.simple(
        "tidegate_resp_connections_refused_of_clients_total",
        "counter",
        "Redis protocol connections refused, because their client had as many as one can have.",
        stats.refused_clients(),
    );
    page.simple(
        "tidegate_resp_connections_noisy_total",
        "counter",
        "Redis protocol connections closed, because their client sent too much that asks for nothing.",
        stats.noisy(),
    );
}

fn tls(page: &mut Page, node: &Sources<'_>) {
    let name = "tidegate_tls_handshakes_total";
    page.family(name, "counter", "TLS handshakes with clients, by front end and by how they ended.");
    for (port, handshakes) in node.certificates.handshakes() {
        for (result, count) in handshakes.all() {
            page.sample(name, &[("port", port.as_str()), ("result", result.as_str())], count);
        }
    }
    let name = "tidegate_certificate_expires_in_seconds";
    page.family(
        name,
        "gauge",
        "For how long a certificate of this node holds, by whom it is shown to; below 0 it has expired.",
    );
    let now = i64::try_from(node.now / 1000).unwrap_or(i64::MAX);
    for (to, left) in node.certificates.expire_in(now) {
        page.sample(name, &[("shown_to", to)], left);
    }
    let name = "tidegate_certificate_reloads_total";
    page.family(name, "counter", "Changed files of certificates and cluster keys, put in force or refused.");
    let (renewed, refused) = node.certificates.reloads();
    page.sample(name, &[("result", "in_force")], renewed);
    page.sample(name, &[("result", "refused")], refused);
    let help = "Cluster keys that this node accepts; 2 while they are changed, 0 without one.";
    page.simple("tidegate_cluster_keys", "gauge", help, node.certificates.keys().len());
}

fn cluster(page: &mut Page, node: &Sources<'_>) {
    let status = node.cluster.status();
    let stats = node.cluster.stats();
    let ready = node.readiness == Readiness::Ready;
    page.simple("tidegate_ready", "gauge", "Whether this node can decide checks.", u8::from(ready));
    page.family(
        "tidegate_members",
        "gauge",
        "Members of the cluster as gossip sees them, this node included.",
    );
    page.sample("tidegate_members", &[("live", "true")], status.live.len());
    page.sample("tidegate_members", &[("live", "false")], status.lost.len());
    let owned = status.slots_owned();
    let mine = owned.iter().find(|(name, _)| *name == status.me.name).map_or(0, |(_, count)| *count);
    page.simple("tidegate_slots_owned", "gauge", "Slots that this node owns.", mine);
    let help = "Whether this node has a session with the leader, which `strict` rules need.";
    page.simple("tidegate_session", "gauge", help, u8::from(status.has_session));
    let moves = &stats.moves;
    let help = "Slots that this node gave to others by plan.";
    page.simple("tidegate_slots_moved_total", "counter", help, moves.slots());
    let help = "Buckets that went with them.";
    page.simple("tidegate_buckets_moved_total", "counter", help, moves.buckets());
    let help = "Time for which nobody decided about slots that were given away, added up over the slots.";
    page.simple("tidegate_slots_frozen_seconds_total", "counter", help, moves.frozen().as_secs_f64());
    let help = "The longest of these times.";
    page.simple("tidegate_slots_frozen_longest_seconds", "gauge", help, moves.longest_frozen().as_secs_f64());
    let name = "tidegate_slot_frozen_seconds";
    page.family(name, "histogram", "For how long nobody decided about a slot that was given away.");
    for (bound, count) in moves.frozen_within() {
        let le = (bound as f64 / 1000.0).to_string();
        page.sample("tidegate_slot_frozen_seconds_bucket", &[("le", &*le)], count);
    }
    page.sample("tidegate_slot_frozen_seconds_bucket", &[("le", "+Inf")], moves.slots());
    page.sample("tidegate_slot_frozen_seconds_sum", &[], moves.frozen().as_secs_f64());
    page.sample("tidegate_slot_frozen_seconds_count", &[], moves.slots());
    page.family("tidegate_calls_total", "counter", "Calls to other nodes about what all must agree on.");
    for kind in CallKind::ALL {
        page.sample("tidegate_calls_total", &[("about", kind.as_str())], stats.calls.calls(kind));
    }
    page.family("tidegate_call_bytes_total", "counter", "Bytes of these calls and their answers.");
    for kind in CallKind::ALL {
        page.sample("tidegate_call_bytes_total", &[("about", kind.as_str())], stats.calls.bytes(kind));
    }

    let (repeated, unremembered) = node.router.requests();
    let help = "Checks that this node answered as before, because their request_id was charged already.";
    page.simple("tidegate_requests_repeated_total", "counter", help, repeated);
    let help = "Requests with an id that were forgotten before their two seconds were over, because too many were remembered.";
    page.simple("tidegate_requests_unremembered_total", "counter", help, unremembered);
    let floors = &stats.floors;
    let help = "Slots of this node whose successor could begin from what it was told (takeover: reserve).";
    page.simple("tidegate_slots_told", "gauge", help, floors.complete());
    let help = "Times that a bucket was told to a successor.";
    page.simple("tidegate_floors_told_total", "counter", help, floors.told());
    let help = "Times that a check waited until a successor was told.";
    page.simple("tidegate_checks_held_total", "counter", help, floors.held());
    let help = "Slots of lost nodes that this node has begun from what it was told.";
    page.simple("tidegate_slots_reserved_total", "counter", help, floors.begun());
    let help = "Slots of this node of which its disk has all floors: after a crash they begin from these.";
    page.simple("tidegate_slots_on_disk", "gauge", help, floors.on_disk());
    let help = "Slots that this node has begun from the floors on its disk.";
    page.simple("tidegate_slots_from_disk_total", "counter", help, floors.from_disk());
    let help = "Times that the floor of a bucket was written to the disk.";
    page.simple("tidegate_floors_written_total", "counter", help, floors.floors_on_disk());
    let help = "Bytes of the file of floors in the data directory.";
    page.simple("tidegate_floors_disk_bytes", "gauge", help, floors.disk_bytes());
    let help = "Commits of the file of floors.";
    page.simple("tidegate_floors_commits_total", "counter", help, floors.commits());
    let help = "How long the last commit of the file of floors took.";
    page.simple("tidegate_floors_last_commit_seconds", "gauge", help, floors.last_commit().as_secs_f64());
    let help = "Times that floors could not be written, and their file was removed.";
    page.simple("tidegate_floors_disk_errors_total", "counter", help, floors.disk_errors());

    let sum = |count: WorkerCount| stats.workers.iter().map(|worker| count(worker)).sum::<u64>();
    let forwards: [(&str, WorkerCount); 8] = [
        ("sent", |worker| worker.sent.get()),
        ("answered", |worker| worker.answered.get()),
        ("timed_out", |worker| worker.timed_out.get()),
        ("lost", |worker| worker.lost.get()),
        ("unreachable", |worker| worker.unreachable.get()),
        ("queue_full", |worker| worker.queue_full.get()),
        ("not_owner", |worker| worker.not_owner.get()),
        ("suspected", |worker| worker.suspected.get()),
    ];
    page.family("tidegate_forwards_total", "counter", "What became of checks that another node owns.");
    for (event, count) in forwards {
        page.sample("tidegate_forwards_total", &[("event", event)], sum(count));
    }
    page.family("tidegate_peer_checks_total", "counter", "Checks that other nodes sent to this one.");
    page.sample(
        "tidegate_peer_checks_total",
        &[("result", "decided")],
        sum(|worker| worker.decided_for_peers.get()),
    );
    page.sample(
        "tidegate_peer_checks_total",
        &[("result", "refused")],
        sum(|worker| worker.refused_to_peers.get()),
    );

    page.simple(
        "tidegate_peer_streams_accepted_total",
        "counter",
        "Streams of peers let in.",
        stats.peers.accepted(),
    );
    page.family(
        "tidegate_peer_streams_broken_total",
        "counter",
        "Streams with proved peers ended because of what came on them, by reason; `seal`: changed on the way.",
    );
    for (reason, count) in stats.peers.broken() {
        page.sample("tidegate_peer_streams_broken_total", &[("reason", reason)], count);
    }
    page.family(
        "tidegate_peer_calls_refused_total",
        "counter",
        "Calls of proved peers and answers to calls refused unseen: in another member's name, or with absurd numbers.",
    );
    for (reason, count) in stats.peers.calls_refused() {
        page.sample("tidegate_peer_calls_refused_total", &[("reason", reason)], count);
    }
    page.family(
        "tidegate_peer_streams_refused_total",
        "counter",
        "Streams to the peer port refused, by reason.",
    );
    for (reason, count) in stats.peers.refused() {
        page.sample("tidegate_peer_streams_refused_total", &[("reason", reason)], count);
    }
    page.family(
        "tidegate_gossip_rejected_total",
        "counter",
        "Gossip datagrams refused, whole or in part, by reason.",
    );
    for rejection in GossipRejection::ALL {
        let count = stats.gossip.rejected(rejection);
        page.sample("tidegate_gossip_rejected_total", &[("reason", rejection.as_str())], count);
    }
    page.simple(
        "tidegate_gossip_oversize_total",
        "counter",
        "Gossip messages that did not fit a datagram.",
        stats.gossip.oversize(),
    );
    page.simple("tidegate_gossip_alive", "gauge", "Whether gossip works.", u8::from(status.gossip_alive));
}

fn raft(page: &mut Page, node: &Sources<'_>) {
    let ledger = node.cluster.ledger();
    let status = ledger.status();
    page.simple("tidegate_raft_term", "gauge", "The term of the Raft group.", status.term);
    page.simple(
        "tidegate_raft_is_leader",
        "gauge",
        "Whether this node leads the Raft group.",
        u8::from(status.role == GroupRole::Leader),
    );
    page.simple("tidegate_raft_voters", "gauge", "Nodes that vote in the Raft group.", status.voters.len());
    page.simple(
        "tidegate_raft_live_voters",
        "gauge",
        "Nodes that vote in the Raft group and seem alive.",
        status.live_voters,
    );
    page.simple(
        "tidegate_raft_failures_tolerated",
        "gauge",
        "How many more voters may be lost before rules and members cannot be changed; -1: they cannot now.",
        status.failures_tolerated.map_or(-1, |failures| failures as i64),
    );
    page.simple(
        "tidegate_raft_has_leader",
        "gauge",
        "Whether a leader is known.",
        u8::from(status.leader.is_some()),
    );
    page.simple("tidegate_raft_last_log_index", "gauge", "The last entry in the log.", status.last_log);
    page.simple("tidegate_raft_applied_index", "gauge", "The last entry that was applied.", status.applied);
    page.simple(
        "tidegate_raft_failed",
        "gauge",
        "Whether the replicated log of this node has failed, with the disk perhaps.",
        u8::from(status.trouble.is_some()),
    );
    page.simple(
        "tidegate_foreign_cluster",
        "gauge",
        "Whether a second cluster of the same name is there: each admits every limit by itself.",
        u8::from(ledger.foreign_cluster().is_some()),
    );
    if let Some(age) = ledger.age() {
        page.simple(
            "tidegate_raft_leader_heard_seconds",
            "gauge",
            "How long the leader was not heard: so old the rules may be.",
            age.as_secs_f64(),
        );
    }
    page.simple(
        "tidegate_rules_applied_index",
        "gauge",
        "The rules in force are those of the log up to here.",
        status.in_force,
    );
    page.simple(
        "tidegate_rules_broken",
        "gauge",
        "Domains whose rules this version cannot use, and which keep the ones before.",
        ledger.broken().len(),
    );
}

fn store(page: &mut Page, node: &Sources<'_>) {
    let stats = node.store.stats();
    page.simple("tidegate_buckets", "gauge", "Buckets in memory.", stats.buckets);
    page.simple("tidegate_bucket_bytes", "gauge", "Memory of the buckets.", stats.bytes);
    page.simple(
        "tidegate_buckets_folded_total",
        "counter",
        "Buckets of rules with on_memory_full: strict for which there was no room: what they had consumed is assumed from then on.",
        stats.folded,
    );
    page.simple(
        "tidegate_buckets_forgotten_total",
        "counter",
        "Buckets of other rules, and of limits that came with checks, for which there was no room: each was a full one again.",
        stats.forgotten,
    );
    page.simple(
        "tidegate_bans_total",
        "counter",
        "Bans that began at this node: keys that exceeded a limit of a rule with `ban`.",
        stats.bans,
    );
    let rules = node.rules;
    let count: usize = rules.domains().into_iter().map(|domain| rules.rules(domain).len()).sum();
    page.simple("tidegate_rules", "gauge", "Rules in force.", count);
}

fn process_info(page: &mut Page) {
    page.family("tidegate_build_info", "gauge", "The version of this node.");
    page.sample(
        "tidegate_build_info",
        &[("version", env!("CARGO_PKG_VERSION")), ("timezones", Zone::database())],
        1,
    );
    page.simple(
        "tidegate_log_lines_dropped_total",
        "counter",
        "Lines of the log that were dropped because standard error was not read in time, or failed.",
        logging::dropped_lines(),
    );
    let Some(process) = process::Usage::read() else { return };
    page.simple(
        "process_cpu_seconds_total",
        "counter",
        "Processor time of this process.",
        process.cpu.as_secs_f64(),
    );
    page.simple(
        "process_resident_memory_bytes",
        "gauge",
        "Memory of this process that is in RAM.",
        process.resident_bytes,
    );
    page.simple("process_threads", "gauge", "Threads of this process.", process.threads);
    page.simple("process_open_fds", "gauge", "Open files and sockets of this process.", process.open_files);
    page.simple(
        "process_start_time_seconds",
        "gauge",
        "Start of this process, in Unix time.",
        process.started.as_secs_f64(),
    );
}
