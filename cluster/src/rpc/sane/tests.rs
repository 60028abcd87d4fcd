use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    CommittedLeaderId, Entry, SnapshotMeta, StoredMembership,
    raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest, VoteResponse},
};

use super::*;

const LEADER: NodeId = 7;

fn at(term: u64, index: u64) -> Id {
    LogId::new(CommittedLeaderId::new(term, LEADER), index)
}

fn entry(term: u64, index: u64) -> Entry<Group> {
    Entry { log_id: at(term, index), payload: EntryPayload::Blank }
}

fn position(term: u64, applied: Option<Id>) -> Position {
    Position { vote: Vote::new_committed(term, LEADER), applied }
}

fn append(term: u64, prev: Option<Id>, entries: &[(u64, u64)], commit: Option<Id>) -> Append {
    AppendEntriesRequest {
        vote: Vote::new_committed(term, LEADER),
        prev_log_id: prev,
        entries: entries.iter().map(|(term, index)| entry(*term, *index)).collect(),
        leader_commit: commit,
    }
}

fn membership(voters: &[NodeId]) -> Membership<NodeId, RaftNode> {
    let nodes: BTreeMap<_, _> = voters.iter().map(|id| (*id, RaftNode::default())).collect();
    Membership::new(vec![voters.iter().copied().collect::<BTreeSet<_>>()], nodes)
}

fn judged(own: Position, request: Append) -> Result<(), Absurd> {
    call(&own, &Call::Append(request))
}

/// Attack C4 of the review, and what is like it.
#[test]
fn terms_that_no_cluster_comes_to_are_refused_in_each_call_and_in_each_answer() {
    let own = position(3, None);
    for term in [u64::MAX, u64::MAX - 1, END + 1, STEP + 4] {
        let absurd = Err(Absurd::Term { theirs: term, ours: 3 });
        assert_eq!(judged(own, append(term, None, &[], None)), absurd);
        let vote = VoteRequest::new(Vote::new(term, LEADER), None);
        assert_eq!(call(&own, &Call::Vote(vote)), absurd);
        let answers = [
            (
                Call::Append(append(3, None, &[], None)),
                Reply::Append(Ok(AppendEntriesResponse::HigherVote(Vote::new(term, 9)))),
            ),
            (
                Call::Vote(VoteRequest::new(Vote::new(3, LEADER), None)),
                Reply::Vote(Ok(VoteResponse {
                    vote: Vote::new(term, 9),
                    vote_granted: false,
                    last_log_id: None,
                })),
            ),
        ];
        for (asked, answer) in answers {
            assert_eq!(reply(&asked, &answer), absurd);
        }
    }
    // A member that was away for long, or has nothing yet, believes what a real cluster comes to.
    for term in [3, 4, 1 << 20, STEP] {
        assert_eq!(judged(own, append(term, None, &[], None)), Ok(()));
    }
    assert_eq!(
        judged(position(9, None), append(2, None, &[], None)),
        Ok(()),
        "an old leader is told by Raft"
    );
}

#[test]
fn indices_ranges_and_what_contradicts_the_committed_are_refused() {
    let own = position(5, Some(at(4, 10)));
    let fine: [Append; 5] = [
        append(5, None, &[(1, 0), (1, 1)], None),
        append(5, Some(at(4, 10)), &[(4, 11), (5, 12)], Some(at(4, 10))),
        append(5, Some(at(4, 10)), &[], Some(at(5, 900))),
        append(5, Some(at(5, 900)), &[], Some(at(4, 10))),
        // It cannot know yet that it was replaced: Raft tells it.
        append(4, Some(at(3, 10)), &[(4, 11)], None),
    ];
    for request in fine {
        assert_eq!(judged(own, request.clone()), Ok(()), "{request:?}");
    }
    let committed = |theirs| Absurd::Committed { theirs, ours: 10 };
    let absurd = [
        (append(5, Some(at(5, END + 1)), &[], None), Absurd::Index(END + 1)),
        (append(5, None, &[], Some(at(5, u64::MAX))), Absurd::Index(u64::MAX)),
        (append(5, Some(at(6, 11)), &[], None), Absurd::Later(11)),
        (append(5, Some(at(4, 10)), &[(6, 11)], None), Absurd::Later(11)),
        (append(5, Some(at(4, 10)), &[(5, 12)], None), Absurd::Range(12, 10)),
        (append(5, Some(at(4, 11)), &[(4, 11)], None), Absurd::Range(11, 11)),
        (append(5, None, &[(4, 1)], None), Absurd::Range(1, 0)),
        (append(5, Some(at(5, 11)), &[(4, 12)], None), Absurd::Range(12, 11)),
        (append(5, Some(at(5, 20)), &[(5, 21)], Some(at(4, 30))), Absurd::Range(30, 21)),
        // Of a later term at an earlier index: what made openraft apply from behind the end.
        (append(5, None, &[], Some(at(5, 3))), committed(3)),
        (append(5, Some(at(5, 10)), &[], None), committed(10)),
        (append(5, Some(at(3, 12)), &[], None), committed(12)),
    ];
    for (request, why) in absurd {
        assert_eq!(judged(own, request.clone()), Err(why), "{request:?}");
    }
    let uncommitted = AppendEntriesRequest { vote: Vote::new(5, LEADER), ..append(5, None, &[], None) };
    assert_eq!(judged(own, uncommitted), Err(Absurd::Vote));
}

#[test]
fn a_group_without_voters_and_a_snapshot_that_is_none_are_refused() {
    let own = position(5, Some(at(4, 10)));
    let members = |membership| {
        let mut request = append(5, Some(at(4, 10)), &[(5, 11)], None);
        request.entries[0].payload = EntryPayload::Membership(membership);
        judged(own, request)
    };
    assert_eq!(members(membership(&[1, 2])), Ok(()));
    assert_eq!(members(membership(&[])), Err(Absurd::NoVoters));
    assert_eq!(members(Membership::default()), Err(Absurd::NoVoters));

    let snapshot = |last: Option<Id>, named: Id, offset: u64, name: &str| {
        call(
            &own,
            &Call::Snapshot(InstallSnapshotRequest {
                vote: Vote::new_committed(5, LEADER),
                meta: SnapshotMeta {
                    last_log_id: last,
                    last_membership: StoredMembership::new(Some(named), membership(&[1, 2])),
                    snapshot_id: name.to_owned(),
                },
                offset,
                data: vec![0; 10],
                done: false,
            }),
        )
    };
    assert_eq!(snapshot(Some(at(5, 90)), at(4, 3), 0, "90-a"), Ok(()));
    assert_eq!(snapshot(Some(at(5, 90)), at(4, 91), 0, "90-a"), Err(Absurd::Range(91, 90)));
    assert_eq!(snapshot(Some(at(5, END + 1)), at(4, 3), 0, "x"), Err(Absurd::Index(END + 1)));
    assert_eq!(snapshot(Some(at(5, 9)), at(4, 3), 0, "x"), Err(Absurd::Committed { theirs: 9, ours: 10 }));
    assert!(matches!(snapshot(None, at(4, 3), 0, "x"), Err(Absurd::Snapshot(_))));
    assert!(matches!(snapshot(Some(at(5, 90)), at(4, 3), u64::MAX, "x"), Err(Absurd::Snapshot(_))));
    let long = "x".repeat(1000);
    assert!(matches!(snapshot(Some(at(5, 90)), at(4, 3), 0, &long), Err(Absurd::Snapshot(_))));
}

#[test]
fn an_answer_that_acknowledges_what_was_never_sent_is_refused() {
    let asked = Call::Append(append(5, Some(at(4, 10)), &[(5, 11), (5, 12)], None));
    let answer = |index| Reply::Append(Ok(AppendEntriesResponse::PartialSuccess(Some(at(5, index)))));
    assert_eq!(reply(&asked, &answer(12)), Ok(()));
    assert_eq!(reply(&asked, &answer(13)), Err(Absurd::Unsent(1)));
    let index = Call::ReadIndex { patience_ms: 1 };
    assert_eq!(reply(&index, &Reply::ReadIndex(Ok(END))), Ok(()));
    assert_eq!(reply(&index, &Reply::ReadIndex(Ok(u64::MAX))), Err(Absurd::Index(u64::MAX)));
    assert_eq!(reply(&index, &Reply::Renew(Ok(Renewal::Granted(u64::MAX)))), Err(Absurd::Index(u64::MAX)));
}

/// Nothing that is decoded makes the judges end, and nothing absurd gets through.
#[test]
fn no_numbers_make_a_judge_panic() {
    let ids = [None, Some(at(0, 0)), Some(at(u64::MAX, u64::MAX)), Some(at(4, 10)), Some(at(u64::MAX, 0))];
    for own in [position(0, None), position(u64::MAX, Some(at(u64::MAX, u64::MAX))), position(5, ids[3])] {
        for (prev, commit) in ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))) {
            for term in [0, 5, u64::MAX] {
                for entries in [&[][..], &[(0, 0)], &[(u64::MAX, u64::MAX)], &[(4, 11), (4, 11)]] {
                    let request = append(term, prev, entries, commit);
                    let judged = judged(own, request.clone());
                    assert!(judged.is_err() || term <= END, "{request:?}");
                }
            }
        }
    }
}
