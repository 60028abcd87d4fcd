//! Is there one cluster? However many nodes begin at once, and whenever: all of them are of the same one, always. And a node of another
//! cluster that gets an address of this one's stays of its own.

use std::collections::BTreeMap;

use super::{Finding, Verdict};
use crate::record::Record;

/// Looks at what all nodes have said of the cluster that they belong to.
pub fn check(record: &Record) -> Finding {
    let mut clusters: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
    for sample in &record.samples {
        if let Some(cluster) = &sample.cluster {
            let of_cluster = clusters.entry(cluster).or_default();
            if of_cluster.iter().all(|(node, _)| *node != sample.node) {
                of_cluster.push((&sample.node, record.seconds(sample.at)));
            }
        }
    }
    let tell = |(cluster, nodes): (&&str, &Vec<(&str, f64)>)| {
        let nodes: Vec<String> =
            nodes.iter().map(|(node, at)| format!("{node} (first seen at second {at:.1})")).collect();
        format!("cluster {cluster}: {}", nodes.join(", "))
    };
    let mut wrong: Vec<String> =
        if clusters.len() > 1 { clusters.iter().map(tell).collect() } else { Vec::new() };
    wrong.extend(record.faults.iter().filter_map(|fault| {
        let broke = fault.broke.as_ref()?;
        Some(format!(
            "{} at second {:.1} ({}): {broke}",
            fault.kind.name(),
            record.seconds(fault.begun),
            fault.what
        ))
    }));
    let says = match clusters.len() {
        1 => format!("all nodes belong to one; {}", record.setup.founded),
        count => format!("{count} clusters; {}", record.setup.founded),
    };
    let mut finding = Finding::of("one cluster", says, wrong);
    if clusters.is_empty() {
        finding.verdict = Verdict::Unknown;
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nemesis::Kind,
        record::tests::{SECOND, fault, record, sample},
    };

    #[test]
    fn a_second_cluster_is_found_though_only_one_node_was_ever_of_it() {
        let mut record = record();
        assert_eq!(check(&record).verdict, Verdict::Unknown);
        let of = |node: &str, cluster: &str| crate::sampler::Sample {
            cluster: Some(cluster.to_owned()),
            ..sample(node, SECOND)
        };
        record.samples = vec![of("n1", "a"), of("n2", "a"), sample("n3", SECOND)];
        assert_eq!(check(&record).verdict, Verdict::Valid);
        record.samples.push(of("n3", "b"));
        let found = check(&record);
        assert_eq!((found.verdict, found.details.len()), (Verdict::Violated, 2));
        record.samples.pop();
        assert_eq!(check(&record).verdict, Verdict::Valid);
        record.faults.push(fault(Kind::ReuseAddress, "n1", 10, 12));
        assert_eq!(check(&record).verdict, Verdict::Valid);
        record.faults[0].broke = Some("n1 lists the node of the other cluster".to_owned());
        assert_eq!(check(&record).details.len(), 1);
    }
}
