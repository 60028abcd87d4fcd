//! Does a process hold in the end what it held in the beginning: memory, threads, open files and connections?

use super::Finding;
use crate::{record::Record, sampler::Sample};

/// Rules of the `large` domain that faults of the disk have written, snapshots, and what an allocator keeps.
const MORE_MEMORY: u64 = 160 << 20;
const MORE_DESCRIPTORS: u64 = 48;
/// As many threads for blocking work as once ran together stay for as long as there is some every few seconds: a move, a snapshot and
/// what is read at a start come together after some faults.
const MORE_THREADS: u64 = 12;

/// Compares the last samples of each node with those of all nodes before the first fault.
pub fn check(record: &Record) -> Finding {
    let calm: Vec<&Sample> = record
        .samples
        .iter()
        .filter(|sample| sample.at < record.times.broken && sample.resident > 0)
        .collect();
    let most = |of: fn(&Sample) -> u64| calm.iter().map(|sample| of(sample)).max().unwrap_or(0);
    let begin = [most(|one| one.resident), most(|one| one.threads), most(|one| one.descriptors)];
    if calm.is_empty() {
        let says = "no node was looked at before the first fault".to_owned();
        return Finding { verdict: super::Verdict::Unknown, ..Finding::of("no leaks", says, Vec::new()) };
    }
    let (mut wrong, mut worst) = (Vec::new(), [0; 3]);
    for node in 1..=record.setup.nodes {
        let name = format!("n{node}");
        let of_node: Vec<&Sample> =
            record.samples.iter().filter(|sample| sample.node == name && sample.resident > 0).collect();
        // The least of the last few: what is only in use for a moment is no leak.
        let last = &of_node[of_node.len().saturating_sub(8)..];
        let least = |of: fn(&Sample) -> u64| last.iter().map(|sample| of(sample)).min().unwrap_or(0);
        let end = [least(|one| one.resident), least(|one| one.threads), least(|one| one.descriptors)];
        let allowed = [2 * begin[0] + MORE_MEMORY, begin[1] + MORE_THREADS, begin[2] + MORE_DESCRIPTORS];
        let units = ["bytes of memory", "threads", "descriptors"];
        for place in 0..3 {
            worst[place] = worst[place].max(end[place]);
            if end[place] > allowed[place] {
                wrong.push(format!(
                    "{name} ends with {} {}, all began with at most {}",
                    end[place], units[place], begin[place]
                ));
            }
        }
    }
    let says = format!(
        "at most {} MiB, {} threads, {} descriptors in the beginning; {} MiB, {}, {} in the end",
        begin[0] >> 20,
        begin[1],
        begin[2],
        worst[0] >> 20,
        worst[1],
        worst[2]
    );
    Finding::of("no leaks", says, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{SECOND, record, sample};

    #[test]
    fn what_grows_and_stays_is_found() {
        let mut record = record();
        record.samples = (0..50).map(|n| sample("n1", n * SECOND)).collect();
        assert!(check(&record).details.is_empty());
        for sample in &mut record.samples[30..] {
            (sample.threads, sample.descriptors, sample.resident) = (40, 300, 1 << 30);
        }
        assert_eq!(check(&record).details.len(), 3);
    }
}
