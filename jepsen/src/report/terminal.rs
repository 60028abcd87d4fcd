//! The summary on a terminal.

use std::fmt::Write as _;

use crate::{check::Verdict, judge::Judgement, record::Record};

/// At most so many details of a finding; the page has all.
const MAX_DETAILS: usize = 6;

/// The verdict in a word.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Unknown => "unknown",
        Verdict::Violated => "VIOLATED",
    }
}

/// What was found, in some lines.
pub fn summary(record: &Record, judgement: &Judgement) -> String {
    let mut text = String::new();
    let setup = &record.setup;
    let _ = writeln!(
        text,
        "\n{:<10} seed {}, {} nodes, {}, {:.0} s, {} checks, {} faults\n",
        word(judgement.verdict),
        setup.seed,
        setup.nodes,
        setup.network,
        record.seconds(record.times.ended),
        record.history.operations.len(),
        record.faults.len()
    );
    if !setup.left_out.is_empty() {
        let _ = writeln!(text, "left out   {}\n", setup.left_out.join("; "));
    }
    for finding in &judgement.findings {
        let _ = writeln!(text, "{:<10} {}: {}", word(finding.verdict), finding.checker, finding.says);
        for detail in finding.details.iter().take(MAX_DETAILS) {
            let _ = writeln!(text, "           - {detail}");
        }
        if finding.details.len() > MAX_DETAILS {
            let _ = writeln!(text, "           - and {} more", finding.details.len() - MAX_DETAILS);
        }
    }
    let _ = writeln!(
        text,
        "\n{:<10} {:>8} {:>10} {:>9} {:>9}  worst interval",
        "rule", "times", "admitted", "burst", "needed"
    );
    for rule in &judgement.rules {
        let times = rule.times.map_or("any".to_owned(), |times| times.to_string());
        let length = (rule.worst.to - rule.worst.from) as f64 / 1e9;
        let _ = writeln!(
            text,
            "{:<10} {:>8} {:>10} {:>9} {:>9}  {} in {:.3} s, {} allowed{}",
            rule.name,
            times,
            rule.admitted,
            rule.bound.burst,
            rule.worst.burst,
            rule.worst.inside,
            length,
            rule.allowed,
            if rule.exceeded { ", too many" } else { "" }
        );
    }
    text
}
