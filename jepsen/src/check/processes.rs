//! Did a process end that nobody ended, or not end as it should, or panic?

use super::Finding;
use crate::record::Record;

/// Looks at exit codes and logs.
pub fn check(record: &Record) -> Finding {
    let mut wrong: Vec<String> = record
        .ends
        .iter()
        .filter_map(|end| {
            let why = end.wrong.as_ref()?;
            Some(format!(
                "{} ended with {} at second {:.3}: {why}",
                end.node,
                end.code,
                record.seconds(end.at)
            ))
        })
        .collect();
    wrong.extend(record.outcries.iter().cloned());
    let says = format!(
        "{} processes were asked to stop; none of all panicked or ended by itself",
        record.ends.len()
    );
    let says = if wrong.is_empty() { says } else { "processes ended or panicked".to_owned() };
    Finding::of("processes", says, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nemesis::Ends, record::tests::record};

    #[test]
    fn a_process_that_ends_by_itself_and_a_panic_are_found() {
        let mut record = record();
        record.ends.push(Ends { node: "n1".into(), at: 0, code: 0, wrong: None });
        assert!(check(&record).details.is_empty());
        record.ends.push(Ends {
            node: "n1".into(),
            at: 0,
            code: 101,
            wrong: Some("it ended by itself".into()),
        });
        record.outcries.push("n1: thread 'main' panicked at src/main.rs:1".to_owned());
        assert_eq!(check(&record).details.len(), 2);
    }
}
