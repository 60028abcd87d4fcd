//! The bytes of what nodes say to each other and of what lies on their disks, one of each kind. bincode numbers variants and
//! writes fields in their order, so moving one changes the bytes: a node of the version before would misread them.
//!
//! A change of `golden.txt` is a change of the wire version or of a disk format. It is written anew by
//! `UPDATE_GOLDEN=1 cargo test -p tidegate-cluster --lib golden`.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::Serialize;
use tidegate_proto::{codec, peer};

use super::{
    buckets::{
        FloorUpdate, HandOver, HandedOver, WireBucket, WireCharge, WireHeld, WireLetGo, WireRequest,
        WireSlot, WireTakeoverBasis, WireTakeoverState,
    },
    message::{Call, Envelope, Introduction, NotServed, Proposal, Question, Renewal, Reply, Standing},
};
use crate::{
    ids::{ClusterId, Leadership, NodeStart, RaftNode, Revision, Weight},
    member::MemberRow,
    owner::{
        floors::{Agreement, SuccessorRef},
        shares::ShareChange,
        slot_ownership::Refusal,
        table::{self, SlotMove},
    },
    ownership::saved::{Saved, SavedSlot},
    raft::belonging::Promise,
    state::types::Group,
    state::{
        access::AccessState,
        audit::{Actor, Identity},
        certificate_names::CertificateNames,
        command::{Act, Action, Command, Expected, Extent, Founding, Origin, Outcome, RuleWrite, Written},
        machine::Replicated,
        token::{ActError, Token, TokenId},
    },
};

const MOVE: SlotMove = SlotMove { slot: 7, id: 0x21 };
const OWNER: NodeStart = NodeStart { node: 0x11, incarnation: 0x12 };
const NEXT: NodeStart = NodeStart { node: 0x13, incarnation: 0x14 };
const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);

fn vote() -> Vote<u64> {
    Vote::new_committed(3, 0x11)
}

fn id(index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(3, 0x11), index)
}

fn node() -> RaftNode {
    RaftNode { name: "n1".to_owned(), peer: ([10, 0, 0, 1], 7803).into() }
}

fn membership() -> Membership<u64, RaftNode> {
    Membership::new(vec![[0x11].into()], BTreeMap::from([(0x11, node())]))
}

fn row() -> MemberRow {
    MemberRow {
        id: 0x11,
        name: "n1".to_owned(),
        incarnation: 0x12,
        peer: ([10, 0, 0, 1], 7803).into(),
        zone: Some("a".to_owned()),
        keeps: true,
        weight: Weight::new(100).unwrap(),
    }
}

fn rule_write() -> RuleWrite {
    RuleWrite {
        domain: "api".into(),
        text: "rules: []".into(),
        origin: Origin::Rollback { to: Revision::new(5) },
        expected: Expected::At(Revision::new(6)),
        key: "key".to_owned(),
        author: "ada".to_owned(),
        message: "why".to_owned(),
        node: "n1".to_owned(),
        at_ms: 0x77,
        extent: Extent { added: 1, removed: 2, changed: 3 },
    }
}

fn proposal() -> Proposal {
    Proposal { cluster: CLUSTER, founders: BTreeMap::from([(0x11, node())]) }
}

fn agreement() -> Agreement {
    Agreement { successor_ref: SuccessorRef { epoch: 8, named: 9 }, attempt: 10, owner: OWNER }
}

fn basis() -> WireTakeoverBasis {
    WireTakeoverBasis { rules: 1, heard: 2, begun: 3, before: Some(4), earlier: Some((5, 6)) }
}

fn buckets() -> Vec<WireBucket> {
    let held = [WireHeld::Debt(2), WireHeld::Window(3), WireHeld::Log { memory: 4, entries: vec![(5, 6)] }];
    held.into_iter().map(|held| WireBucket { key: 0xab, rule: 0x55, held }).collect()
}

fn let_go() -> Vec<WireLetGo> {
    vec![WireLetGo { rule: 0x55, held: WireHeld::Debt(7) }]
}

fn commands() -> Vec<(&'static str, Command)> {
    let slots = [
        ("assign", table::Entry::Assign(vec![OWNER])),
        ("prepare", table::Entry::Prepare { slots: vec![7], to: NEXT }),
        ("commit", table::Entry::Commit(vec![MOVE])),
        ("abort", table::Entry::Abort { moves: vec![MOVE], refused: true }),
        (
            "expire",
            table::Entry::Expire {
                leadership: Leadership { term: 3, leader: 0x11 },
                lapsed: vec![OWNER],
                slots: vec![(7, NEXT)],
            },
        ),
        ("succeed", table::Entry::Succeed(vec![(Some(NEXT), vec![7]), (None, vec![8])])),
    ];
    let mut all = vec![
        ("found", Command::Found(Founding { cluster: CLUSTER, hash_secret: [0x5e; 16] })),
        ("write", Command::Write(rule_write())),
        ("member", Command::Member(row())),
        ("forget", Command::Forget(0x11)),
        ("drain", Command::Drain { start: OWNER, on: true }),
        ("evict", Command::Evict(0x11)),
        (
            "shares",
            Command::Shares(ShareChange {
                settled: vec![(0x11, 1)],
                released: vec![0x13],
                parts: vec![(0x11, 2)],
            }),
        ),
    ];
    all.extend(slots.map(|(name, entry)| (name, Command::Slots(entry))));
    all.extend(actions().map(|(name, action)| (name, Command::By(Box::new(action)))));
    all
}

fn actions() -> [(&'static str, Action); 6] {
    let id = TokenId::parse("00000000000000f1").unwrap();
    let token = Token::golden();
    let of = |key, act, identity| {
        let actor = Actor { identity, address: "192.0.2.1".to_owned() };
        Action { actor, node: "n1".to_owned(), at_ms: 0x77, key, act }
    };
    let by_token = Identity::Token { id, name: "ci".to_owned() };
    let name = || "n1".to_owned();
    let reset = Act::NoteReset { domain: "api".to_owned(), detail: "one".to_owned() };
    [
        ("by-write", of(0x61, Act::Write(rule_write()), Identity::Nobody)),
        ("by-drain", of(0x62, Act::Drain { start: OWNER, on: true, name: name() }, Identity::AdminToken)),
        ("by-evict", of(0x63, Act::Evict { node: 0x13, name: name() }, by_token.clone())),
        ("by-make-token", of(0x64, Act::MakeToken { id, token }, Identity::AdminToken)),
        ("by-revoke-token", of(0x65, Act::RevokeToken { id }, by_token.clone())),
        ("by-note-reset", of(0x66, reset, by_token)),
    ]
}

fn certificate_action() -> Action {
    let id = TokenId::parse("00000000000000f1").unwrap();
    let certificate = || "deploy.example.com".to_owned();
    let identity = Identity::Certificate { id, name: "ci".to_owned(), certificate: certificate() };
    Action {
        actor: Actor { identity, address: "192.0.2.1".to_owned() },
        node: "n1".to_owned(),
        at_ms: 0x77,
        key: 0x67,
        act: Act::MakeCertificateToken { id, token: Token::golden(), certificate: certificate() },
    }
}

fn calls() -> Vec<(&'static str, Call)> {
    let entry = |payload| Entry::<Group> { log_id: id(2), payload };
    let entries = vec![
        entry(EntryPayload::Blank),
        entry(EntryPayload::Normal(Command::Forget(1))),
        entry(EntryPayload::Membership(membership())),
    ];
    let meta = SnapshotMeta {
        last_log_id: Some(id(2)),
        last_membership: StoredMembership::new(Some(id(1)), membership()),
        snapshot_id: "2-ff".to_owned(),
    };
    let state = WireTakeoverState { fingerprint: 1, since: 2, before: Some(3), earlier: Some((4, 5)) };
    let request = WireRequest {
        key: (1, 2),
        slot: 7,
        rest: Duration::from_millis(3),
        decisions: vec![peer::Decision {
            allowed: true,
            limit: 1,
            remaining: 2,
            reset_after: 3,
            retry_after: Some(4),
            delay: 5,
            assumed: false,
            banned: false,
        }],
    };
    vec![
        (
            "append",
            Call::Append(AppendEntriesRequest {
                vote: vote(),
                prev_log_id: Some(id(1)),
                entries,
                leader_commit: Some(id(1)),
            }),
        ),
        ("vote", Call::Vote(VoteRequest { vote: vote(), last_log_id: Some(id(1)) })),
        (
            "snapshot",
            Call::Snapshot(InstallSnapshotRequest {
                vote: vote(),
                meta,
                offset: 4,
                data: vec![5],
                done: true,
            }),
        ),
        ("found", Call::Found(proposal())),
        ("write", Call::Write { write: rule_write(), patience_ms: 9 }),
        ("read-index", Call::ReadIndex { patience_ms: 9 }),
        ("touched", Call::Touched { domain: "api".to_owned(), rules: vec!["one".to_owned()] }),
        ("renew", Call::Renew { row: row(), wants: true, applied: 9 }),
        ("moved", Call::Moved(vec![MOVE])),
        ("drain", Call::Drain { start: OWNER, on: true }),
        ("evict", Call::Evict(0x11)),
        ("refuse", Call::Refuse(vec![MOVE])),
        (
            "hand-over",
            Call::HandOver(HandOver {
                moves: vec![MOVE],
                buckets: buckets(),
                let_go: let_go(),
                slots: vec![WireSlot { one: MOVE, epoch: 8, drained_ago: Some(9), basis: Some(basis()) }],
                requests: vec![request],
                charges: vec![WireCharge { request: (1, 2), key: 3, at: 4, ago: 5, units: 6 }],
            }),
        ),
        ("may-stand", Call::MayStand(Question { last: Some(id(1)) })),
        (
            "tell",
            Call::UpdateFloors(FloorUpdate {
                owner: OWNER,
                to: NEXT,
                answer: 1,
                begin: vec![(7, agreement())],
                buckets: buckets(),
                complete: vec![(7, agreement(), state)],
                let_go: let_go(),
            }),
        ),
        ("strike", Call::Strike { successor: NEXT, slots: vec![7] }),
        ("reach", Call::Reach),
        ("introduce", Call::Introduce),
        ("release", Call::Release(CLUSTER)),
        ("act", Call::Act { action: actions()[4].1.clone(), patience_ms: 9 }),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let written = Written { revision: Revision::new(6), previous: Some(Revision::new(5)), changed: true };
    let not_done = |error| Reply::Write(Ok(Outcome::NotDone(error)));
    let introduced = |standing| {
        Reply::Introduced(Introduction { id: 0x11, name: "n1".to_owned(), standing, has_log: true })
    };
    vec![
        ("appended", Reply::Append(Ok(AppendEntriesResponse::Success))),
        ("appended-partly", Reply::Append(Ok(AppendEntriesResponse::PartialSuccess(Some(id(1)))))),
        ("append-conflict", Reply::Append(Ok(AppendEntriesResponse::Conflict))),
        ("append-higher", Reply::Append(Ok(AppendEntriesResponse::HigherVote(vote())))),
        (
            "vote",
            Reply::Vote(Ok(VoteResponse { vote: vote(), vote_granted: true, last_log_id: Some(id(1)) })),
        ),
        ("snapshot", Reply::Snapshot(Ok(InstallSnapshotResponse { vote: vote() }))),
        ("found", Reply::Found(Err("no".to_owned()))),
        ("write-done", Reply::Write(Ok(Outcome::Done))),
        ("write-written", Reply::Write(Ok(Outcome::Written(written)))),
        ("write-mismatch", Reply::Write(Ok(Outcome::Mismatch { current: Some(Revision::new(5)) }))),
        ("write-reused", Reply::Write(Ok(Outcome::KeyReused))),
        ("write-full", Reply::Write(Ok(Outcome::Full("full".to_owned())))),
        ("write-not-allowed", not_done(ActError::NotAllowed("no".to_owned()))),
        ("write-no-such-token", not_done(ActError::NoSuchToken)),
        ("write-name-taken", not_done(ActError::NameTaken("ci".to_owned()))),
        ("write-tokens-full", not_done(ActError::Full)),
        ("write-no-admin-left", not_done(ActError::NoAdminLeft)),
        ("write-not-leader", Reply::Write(Err(NotServed::NotLeader))),
        ("read-index", Reply::ReadIndex(Ok(9))),
        ("touched", Reply::Touched(vec![vec![1]])),
        ("renewed", Reply::Renew(Ok(Renewal::Granted(9)))),
        ("renew-behind", Reply::Renew(Ok(Renewal::Behind(9)))),
        ("not-renewed", Reply::Renew(Ok(Renewal::NotGranted))),
        ("written", Reply::Written(Err(NotServed::Unknown))),
        ("refuse", Reply::Refuse(Refusal { refused: vec![MOVE], taken: vec![MOVE] })),
        ("handed-over", Reply::HandOver(HandedOver::Done)),
        ("hand-over-not-yet", Reply::HandOver(HandedOver::NotYet)),
        ("hand-over-never", Reply::HandOver(HandedOver::Never)),
        ("may-stand", Reply::MayStand(true)),
        ("told", Reply::FloorsUpdated(Some(9))),
        ("refused", Reply::Refused("why".to_owned())),
        ("reached", Reply::Reached),
        ("introduced-free", introduced(Standing::Free)),
        ("introduced-proposing", introduced(Standing::Proposing)),
        ("introduced-promised", introduced(Standing::Promised(0x13))),
        ("introduced-bound", introduced(Standing::Bound(CLUSTER))),
        ("released", Reply::Released),
    ]
}

fn state() -> Replicated {
    let mut state = Replicated::default();
    let leadership = Leadership { term: 3, leader: 0x11 };
    for (index, (_, command)) in (1..).zip(commands()) {
        // What takes the member out again comes last.
        if !matches!(command, Command::Forget(_) | Command::Evict(_)) {
            let command = match command {
                Command::Write(write) => Command::Write(RuleWrite { expected: Expected::Any, ..write }),
                command => command,
            };
            state.apply(index, leadership, command);
        }
    }
    state.apply(100, leadership, Command::Evict(0x11));
    state
}

fn hex<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes, 16 << 20).unwrap();
    // A table has 4,096 rows.
    if bytes.len() > 4096 {
        return format!("{} bytes, blake3 {}", bytes.len(), blake3::hash(&bytes));
    }
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn all() -> String {
    let mut lines = String::new();
    let mut line = |kind: &str, name: &str, hex: String| {
        let _ = writeln!(lines, "{kind} {name} {hex}");
    };
    for (name, call) in calls() {
        line("call", name, hex(&Envelope { cluster: CLUSTER, from: 0x11, to: 0x13, call }));
    }
    for (name, reply) in replies() {
        line("reply", name, hex(&reply));
    }
    for (name, command) in commands() {
        let payload = EntryPayload::Normal(command);
        line("log", name, hex(&Entry::<Group> { log_id: id(2), payload }));
    }
    line("meta", "vote", hex(&vote()));
    line("meta", "committed", hex(&Some(id(1))));
    line("meta", "purged", hex(&id(1)));
    line("meta", "promise", hex(&Promise { proposal: proposal(), to: 0x13 }));
    line("snapshot", "state", hex(&state()));
    let slot = SavedSlot { slot: 7, epoch: 8, drained_ago: Some(9), basis: Some(basis()) };
    let saved = Saved { start: OWNER, slots: vec![slot], buckets: buckets(), let_go: let_go() };
    line("saved", "buckets", hex(&saved));
    // Since certificates may stand for tokens.
    let payload = EntryPayload::Normal(Command::By(Box::new(certificate_action())));
    line("log", "by-make-certificate-token", hex(&Entry::<Group> { log_id: id(2), payload }));
    line(
        "reply",
        "write-certificate-taken",
        hex(&Reply::Write(Ok(Outcome::NotDone(ActError::CertificateTaken("ci".to_owned()))))),
    );
    let mut access = AccessState::default();
    line("snapshot", "access-without-certificates", hex(&access));
    access.certificates = Arc::new(CertificateNames::golden());
    line("snapshot", "access-with-certificates", hex(&access));
    lines
}

#[test]
fn the_bytes_are_those_of_this_wire_version_and_of_these_disk_formats() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rpc/golden.txt");
    let now = all();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap();
    for (known, now) in known.lines().zip(now.lines()) {
        assert_eq!(known, now);
    }
    assert_eq!(known.lines().count(), now.lines().count());
}
