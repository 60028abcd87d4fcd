use super::*;
use crate::ids::Weight;

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

fn write(text: &str, key: &str, expected: Expected) -> RuleWrite {
    RuleWrite {
        domain: "d".into(),
        text: text.into(),
        origin: Origin::Apply,
        expected,
        key: key.to_owned(),
        author: "ada".to_owned(),
        message: String::new(),
        node: "n1".to_owned(),
        at_ms: 5,
        extent: Extent::default(),
    }
}

fn written(outcome: Outcome) -> Written {
    match outcome {
        Outcome::Written(written) => written,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_that_comes_again_happens_once() {
    let mut state = Replicated::default();
    let first = state.apply(7, LEADERSHIP, Command::Write(write("a", "k", Expected::Absent)));
    let again = state.apply(9, LEADERSHIP, Command::Write(write("a", "k", Expected::Absent)));
    assert_eq!(first, again);
    assert_eq!(written(first).revision, Revision::new(7));
    assert_eq!(
        state.apply(10, LEADERSHIP, Command::Write(write("b", "k", Expected::Any))),
        Outcome::KeyReused
    );
    assert_eq!(state.domains["d"].changes().len(), 1);
}

#[test]
fn a_lost_update_is_refused_and_not_remembered_as_a_write() {
    let mut state = Replicated::default();
    state.apply(1, LEADERSHIP, Command::Write(write("a", "1", Expected::Absent)));
    let refused = state.apply(2, LEADERSHIP, Command::Write(write("b", "2", Expected::Absent)));
    assert_eq!(refused, Outcome::Mismatch { current: Some(Revision::new(1)) });
    let taken = state.apply(3, LEADERSHIP, Command::Write(write("b", "2", Expected::At(Revision::new(1)))));
    assert_eq!(written(taken).previous, Some(Revision::new(1)));
}

#[test]
fn the_same_rules_again_are_no_new_revision() {
    let mut state = Replicated::default();
    state.apply(1, LEADERSHIP, Command::Write(write("a", "1", Expected::Any)));
    let same = written(state.apply(2, LEADERSHIP, Command::Write(write("a", "2", Expected::Any))));
    assert_eq!((same.revision, same.changed), (Revision::new(1), false));
    let back = written(state.apply(3, LEADERSHIP, Command::Write(write("b", "3", Expected::Any))));
    assert_eq!((back.revision, back.previous), (Revision::new(3), Some(Revision::new(1))));
}

#[test]
fn history_keeps_its_lines_longer_than_its_texts_and_both_have_an_end() {
    let mut state = Replicated::default();
    for index in 1..=(MAX_HISTORY as u64 + 50) {
        state.apply(
            index,
            LEADERSHIP,
            Command::Write(write(&index.to_string(), &index.to_string(), Expected::Any)),
        );
    }
    let history = &state.domains["d"];
    assert_eq!(history.changes().len(), MAX_HISTORY);
    assert_eq!(history.changes().iter().filter(|change| change.text.is_some()).count(), MAX_KEPT_TEXTS);
    assert_eq!(&**history.text(), "1050");
    assert!(history.at(Revision::new(1049)).unwrap().text.is_some());
    assert!(history.at(Revision::new(3)).is_none());
}

#[test]
fn old_texts_go_when_they_are_too_large_together() {
    let mut state = Replicated::default();
    for index in 1..=20 {
        let text = format!("{index}{}", "x".repeat(MAX_RULES_BYTES - 8));
        written(state.apply(
            index,
            LEADERSHIP,
            Command::Write(write(&text, &index.to_string(), Expected::Any)),
        ));
    }
    let kept: Vec<bool> = state.domains["d"].changes().iter().map(|change| change.text.is_some()).collect();
    assert_eq!(kept.iter().filter(|kept| **kept).count(), MAX_KEPT_BYTES / MAX_RULES_BYTES + 1);
    assert!(!kept[0] && kept[19]);
    let long = write(&"x".repeat(MAX_RULES_BYTES + 1), "long", Expected::Any);
    assert!(matches!(state.apply(21, LEADERSHIP, Command::Write(long)), Outcome::Full(_)));
}

#[test]
fn only_a_member_of_this_start_drains_and_its_next_start_does_not() {
    let mut state = Replicated::default();
    let peer = "127.0.0.1:7803".parse().unwrap();
    let row = |incarnation| MemberRow {
        keeps: false,
        id: 1,
        name: "n1".to_owned(),
        incarnation,
        peer,
        zone: None,
        weight: Weight::default(),
    };
    let drain = |incarnation| Command::Drain { start: NodeStart { node: 1, incarnation }, on: true };
    state.apply(1, LEADERSHIP, drain(1));
    assert!(state.draining.is_empty());
    state.apply(2, LEADERSHIP, Command::Member(row(1)));
    state.apply(3, LEADERSHIP, drain(1));
    assert_eq!(state.draining.len(), 1);
    state.apply(4, LEADERSHIP, Command::Member(row(2)));
    state.apply(5, LEADERSHIP, drain(1));
    assert!(state.draining.is_empty());
}

#[test]
fn a_cluster_is_founded_once() {
    let mut state = Replicated::default();
    let founding = |secret| Founding { cluster: ClusterId::from_bytes([1; 16]), hash_secret: [secret; 16] };
    use crate::ids::ClusterId;
    state.apply(1, LEADERSHIP, Command::Found(founding(1)));
    state.apply(2, LEADERSHIP, Command::Found(founding(2)));
    assert_eq!(state.founding, Some(founding(1)));
}
