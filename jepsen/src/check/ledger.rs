//! Is everything that was acknowledged in the histories that the nodes tell in the end, once, and in the same order?

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// What a client knows of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOutcome {
    /// It happened, as this revision.
    Written(u64),
    /// It did not happen.
    NotWritten,
    /// Nothing.
    Nothing,
}

/// One write: what it wrote, which nobody else wrote, and what its client knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// What it wrote.
    pub value: u64,
    /// What its client knows of it.
    #[serde(rename = "told")]
    pub outcome: WriteOutcome,
}

/// What is wrong with the histories of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Two nodes tell different histories.
    Differs {
        /// The first node.
        one: String,
        /// The other.
        other: String,
        /// The first revision where they do.
        at: u64,
    },
    /// Revisions do not grow.
    Order {
        /// Where.
        node: String,
        /// The revision that is not above the one before.
        at: u64,
    },
    /// An acknowledged write is not there.
    Lost {
        /// What it wrote.
        value: u64,
        /// As which revision.
        revision: u64,
    },
    /// A write is there twice.
    Twice {
        /// What it wrote.
        value: u64,
    },
    /// A write is there of which the client was told that it did not happen.
    Ghost {
        /// What it wrote.
        value: u64,
    },
}

/// Revisions with what they wrote, the oldest first; `None`: something that no client wrote.
pub type Lines = Vec<(u64, Option<u64>)>;

/// Holds the histories that the nodes tell against what the clients were told. A history may have lost its beginning:
/// what was written before its first line is not asked for.
pub fn check(writes: &[Write], histories: &BTreeMap<String, Lines>) -> Result<(), Fault> {
    for (node, history) in histories {
        if let Some(pair) = history.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(Fault::Order { node: node.clone(), at: pair[1].0 });
        }
    }
    let mut nodes = histories.iter();
    let Some((one, first)) = nodes.next() else { return Ok(()) };
    for (other, history) in nodes {
        let differs = first.iter().zip(history).find(|(a, b)| a != b).map(|(a, b)| a.0.min(b.0));
        let longer = |a: &Lines, b: &Lines| a.get(b.len()).map(|line| line.0);
        if let Some(at) = differs.or_else(|| longer(first, history)).or_else(|| longer(history, first)) {
            return Err(Fault::Differs { one: one.clone(), other: other.clone(), at });
        }
    }
    let mut revision_of: HashMap<u64, u64> = HashMap::new();
    for (revision, value) in first {
        if let Some(value) = value
            && revision_of.insert(*value, *revision).is_some()
        {
            return Err(Fault::Twice { value: *value });
        }
    }
    let begins_at = first.first().map_or(0, |(revision, _)| *revision);
    for Write { value, outcome } in writes {
        let known = revision_of.get(value).copied();
        match outcome {
            WriteOutcome::Written(revision) if *revision >= begins_at && known != Some(*revision) => {
                return Err(Fault::Lost { value: *value, revision: *revision });
            }
            WriteOutcome::NotWritten if known.is_some() => return Err(Fault::Ghost { value: *value }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histories(one: &[(u64, Option<u64>)], other: &[(u64, Option<u64>)]) -> BTreeMap<String, Lines> {
        BTreeMap::from([("n1".to_owned(), one.to_vec()), ("n2".to_owned(), other.to_vec())])
    }

    const GOOD: [(u64, Option<u64>); 3] = [(4, None), (7, Some(1)), (9, Some(2))];

    #[test]
    fn what_was_acknowledged_and_is_there_is_fine() {
        let writes = [
            Write { value: 1, outcome: WriteOutcome::Written(7) },
            Write { value: 2, outcome: WriteOutcome::Nothing },
            Write { value: 3, outcome: WriteOutcome::NotWritten },
            Write { value: 4, outcome: WriteOutcome::Nothing },
            Write { value: 5, outcome: WriteOutcome::Written(2) },
        ];
        assert_eq!(check(&writes, &histories(&GOOD, &GOOD)), Ok(()));
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let good = histories(&GOOD, &GOOD);
        let lost = check(&[Write { value: 8, outcome: WriteOutcome::Written(8) }], &good);
        assert_eq!(lost, Err(Fault::Lost { value: 8, revision: 8 }));
        let moved = check(&[Write { value: 1, outcome: WriteOutcome::Written(9) }], &good);
        assert_eq!(moved, Err(Fault::Lost { value: 1, revision: 9 }));
        let ghost = check(&[Write { value: 2, outcome: WriteOutcome::NotWritten }], &good);
        assert_eq!(ghost, Err(Fault::Ghost { value: 2 }));
        let swapped = [GOOD[0], (7, Some(2)), (9, Some(1))];
        assert!(matches!(check(&[], &histories(&GOOD, &swapped)), Err(Fault::Differs { at: 7, .. })));
        assert!(matches!(check(&[], &histories(&GOOD, &GOOD[..2])), Err(Fault::Differs { at: 9, .. })));
        let twice = [GOOD[0], (7, Some(1)), (9, Some(1))];
        assert_eq!(check(&[], &histories(&twice, &twice)), Err(Fault::Twice { value: 1 }));
        let back = [(4, None), (3, Some(1))];
        assert!(matches!(check(&[], &histories(&back, &back)), Err(Fault::Order { at: 3, .. })));
    }
}
