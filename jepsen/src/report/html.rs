//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use super::{
    svg::{BAD, DOUBT, GOOD, escape},
    terminal::word,
    timeline,
};
use crate::{
    check::{Verdict, admission::OfRule},
    judge::Judgement,
    record::Record,
};

const STYLE: &str = include_str!("page.css");

/// Writes it.
pub fn page(record: &Record, judgement: &Judgement) -> String {
    let mut page = String::new();
    let title = format!("Tidegate, seed {}: {}", record.setup.seed, word(judgement.verdict));
    let _ = writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{}</title>\n<style>{STYLE}</style></head><body><main>",
        escape(&title)
    );
    head(&mut page, record, judgement);
    rules(&mut page, record, judgement);
    findings(&mut page, judgement);
    let _ = writeln!(page, "<h2>Timeline</h2>\n<figure>{}</figure>", timeline::svg(record, judgement));
    page.push_str("<p class=\"note\">Dashed lines: the first fault may happen; nothing new is broken; all is settled. Point at a bar for what it was.</p>\n");
    phases(&mut page, judgement);
    coverage(&mut page, judgement);
    faults(&mut page, record);
    foot(&mut page, record);
    page.push_str("</main></body></html>\n");
    page
}

fn head(page: &mut String, record: &Record, judgement: &Judgement) {
    let (class, says) = match judgement.verdict {
        Verdict::Valid => ("valid", "Every promise that was checked was kept."),
        Verdict::Violated => ("violated", "A promise was broken: see the checkers below."),
        Verdict::Unknown => {
            ("unknown", "Whether all promises were kept cannot be said: see the checkers below.")
        }
    };
    let setup = &record.setup;
    let _ = writeln!(
        page,
        "<header class=\"{class}\"><div><p class=\"verdict\">{}</p><p>{says}</p></div><p class=\"seed\">seed <b>{}</b></p></header>",
        word(judgement.verdict),
        setup.seed
    );
    if let Some(bug) = &setup.planted_bug {
        let _ =
            writeln!(page, "<p class=\"bug\">A bug was switched on on purpose: <b>{}</b></p>", escape(bug));
    }
    let operations = record.history.operations.len();
    let facts = [
        ("nodes", setup.nodes.to_string()),
        ("length", format!("{:.0} s", record.seconds(record.times.ended))),
        ("checks", thousands(operations as u64)),
        ("rule writes and reads", thousands(record.rules.len() as u64)),
        (
            "faults that hit",
            record.faults.iter().filter(|fault| fault.evidence.is_some()).count().to_string(),
        ),
        (
            "settled after",
            match (record.times.healed, record.times.settled) {
                (Some(healed), Some(settled)) => {
                    format!("{:.1} s", settled.saturating_sub(healed) as f64 / 1e9)
                }
                _ => "never".to_owned(),
            },
        ),
    ];
    page.push_str("<dl class=\"facts\">");
    for (name, value) in facts {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    let _ = writeln!(page, "</dl>\n<pre class=\"again\">{}</pre>", escape(&setup.command));
}

fn rules(page: &mut String, record: &Record, judgement: &Judgement) {
    page.push_str(
        "<h2>Each rule against its bound</h2>\n<p>The worst interval of a rule is the one, of all intervals of all its keys, \
         that came nearest to what the rule says of itself for what happened. Only checks that lie wholly inside count. What is allowed \
         in it has what was given back meanwhile, and what a partition adds, if it meets one.</p>\n\
         <table><thead><tr><th>rule</th><th>limit</th><th class=\"n\">keys</th><th class=\"n\">admitted</th><th class=\"n\">denied</th>\
         <th>may admit</th><th>worst interval</th><th class=\"n\">admitted in it</th><th class=\"n\">allowed in it</th><th>used</th></tr></thead><tbody>\n",
    );
    for rule in &judgement.rules {
        let allowed = rule.allowed;
        let may = match rule.times {
            None => "no bound".to_owned(),
            Some(1) => "its limit".to_owned(),
            Some(times) => format!("its limit; {times} times in partitions"),
        };
        let _ = writeln!(
            page,
            "<tr><td><b>{}</b></td><td class=\"small\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{may}</td>\
             <td class=\"small\">key {}, second {:.3}, {} long</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"used\">{}</td></tr>",
            escape(&rule.name),
            escape(&rule.text),
            rule.keys,
            thousands(rule.admitted),
            thousands(rule.denied),
            escape(&rule.worst_key),
            record.seconds(rule.worst.from),
            seconds(rule.worst.to - rule.worst.from),
            thousands(rule.worst.inside),
            thousands(allowed),
            meter(rule, allowed),
        );
    }
    page.push_str("</tbody></table>\n");
}

/// How near it came: a bar that is full at what is allowed.
fn meter(rule: &OfRule, allowed: u64) -> String {
    let part = rule.worst.inside as f64 / allowed.max(1) as f64;
    let colour = if rule.exceeded { BAD } else { GOOD };
    format!(
        "<span class=\"meter\"><i style=\"width:{:.0}%;background:{colour}\"></i></span> {:.0} %",
        (part * 100.0).min(100.0),
        part * 100.0
    )
}

fn findings(page: &mut String, judgement: &Judgement) {
    page.push_str("<h2>Checkers</h2>\n<table><tbody>\n");
    for finding in &judgement.findings {
        let class = match finding.verdict {
            Verdict::Valid => "valid",
            Verdict::Violated => "violated",
            Verdict::Unknown => "unknown",
        };
        let _ = write!(
            page,
            "<tr><td><span class=\"pill {class}\">{}</span></td><td><b>{}</b></td><td>{}",
            word(finding.verdict),
            escape(&finding.checker),
            escape(&finding.says)
        );
        if !finding.details.is_empty() {
            let open = if finding.details.len() <= 12 { " open" } else { "" };
            let _ = write!(page, "<details{open}><summary>{} in all</summary><ul>", finding.details.len());
            for detail in finding.details.iter().take(200) {
                let _ = write!(page, "<li>{}</li>", escape(detail));
            }
            page.push_str("</ul></details>");
        }
        page.push_str("</td></tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

fn phases(page: &mut String, judgement: &Judgement) {
    page.push_str(
        "<h2>What callers saw</h2>\n<p>Faults overlap: a check counts in each phase in which it began. Latencies are of nodes \
         that ran and were not stopped or restarted.</p>\n<table><thead><tr><th>while</th><th class=\"n\">seconds</th><th class=\"n\">checks</th>\
         <th class=\"n\">owner decided</th><th class=\"n\">rule without owner</th><th class=\"n\">not answered</th><th class=\"n\">of them at nodes without trouble</th>\
         <th class=\"n\">p50</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">slowest</th></tr></thead><tbody>\n",
    );
    for phase in &judgement.phases {
        let part = |count: usize| {
            let part = 100.0 * count as f64 / phase.checks.max(1) as f64;
            if count == 0 { "0".to_owned() } else { format!("{part:.2} %") }
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>",
            escape(&phase.name),
            phase.length as f64 / 1e9,
            thousands(phase.checks as u64),
            part(phase.by_owner),
            part(phase.by_loss),
            part(phase.failed),
            phase.failed_without_reason,
        );
        for latency in phase.latencies {
            let text = if latency == 0 { "\u{2013}".to_owned() } else { seconds(latency) };
            let _ = write!(page, "<td class=\"n\">{text}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

fn coverage(page: &mut String, judgement: &Judgement) {
    page.push_str(
        "<h2>Did the faults hit?</h2>\n<table><thead><tr><th>fault</th><th class=\"n\">planned</th><th class=\"n\">done</th><th class=\"n\">seen to hit</th>\
         <th class=\"n\">owner of the hottest key</th><th class=\"n\">Raft leader</th><th class=\"n\">in mid-move</th></tr></thead><tbody>\n",
    );
    for row in &judgement.coverage {
        let colour = if row.hit == 0 { DOUBT } else { "inherit" };
        let [hot, leader, moving] = row.roles;
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\" style=\"color:{colour}\">{}</td><td class=\"n\">{hot}</td><td class=\"n\">{leader}</td><td class=\"n\">{moving}</td></tr>",
            row.kind.name(),
            row.planned,
            row.done,
            row.hit,
        );
    }
    page.push_str("</tbody></table>\n");
}

fn faults(page: &mut String, record: &Record) {
    let _ = write!(page, "<h2>All faults</h2>\n<details><summary>{} faults</summary>", record.faults.len());
    page.push_str(
        "<table><thead><tr><th class=\"n\">second</th><th class=\"n\">lasted</th><th>what</th><th>aimed at</th><th>was</th><th>seen</th></tr></thead><tbody>\n",
    );
    for fault in &record.faults {
        let lasted = fault.ended.unwrap_or(record.times.ended).saturating_sub(fault.begun);
        let roles: Vec<&str> = fault.roles.iter().map(|role| role.name()).collect();
        let _ = writeln!(
            page,
            "<tr><td class=\"n\">{:.2}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"small\">{}</td></tr>",
            record.seconds(fault.begun),
            seconds(lasted),
            escape(&fault.what),
            fault.aim.name(),
            roles.join(", "),
            escape(fault.evidence.as_deref().unwrap_or("nothing"))
        );
    }
    page.push_str("</tbody></table></details>\n");
}

fn foot(page: &mut String, record: &Record) {
    let setup = &record.setup;
    let _ = writeln!(
        page,
        "<footer><p>tidegate-jepsen {}{}; node: {}. Beside this page: the history of every operation (history.ndjson, history.edn), \
         faults, samples of the nodes, their logs, and the result as JSON. <code>tidegate-jepsen check</code> judges it again.</p>\
         <p>Between the nodes: {}.{}</p><p>What can be said for sure of a check is that it was decided between its question and its answer. All intervals are \
         looked at, none is sampled; a check without an answer counts as not admitted, so an alarm is never false.</p></footer>",
        escape(&setup.version),
        setup.commit.as_ref().map_or(String::new(), |commit| format!(", commit {}", escape(commit))),
        escape(&setup.binary),
        setup.network,
        match &setup.left_out[..] {
            [] => String::new(),
            left_out => format!(" Faults that could not be done: {}.", escape(&left_out.join("; "))),
        }
    );
}

/// With the unit that suits.
fn seconds(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::judge,
        nemesis::Kind,
        record::tests::{SECOND, admitted, fault, record},
        report::picture,
    };

    #[test]
    fn the_page_is_whole_and_the_picture_is_one() {
        let mut record = record();
        record.setup.command = "run --seed 1 <&>".to_owned();
        record.faults.push(fault(Kind::Kill, "n1", 10, 12));
        record.history.operations = (0..500).map(|n| admitted(0, n * SECOND / 10)).collect();
        let judgement = judge(&record);
        let page = page(&record, &judgement);
        assert!(page.contains("seed <b>1</b>") && page.contains("run --seed 1 &lt;&amp;&gt;"));
        assert!(page.contains("<svg") && page.ends_with("</html>\n"));
        assert!(!page.contains("http://") || page.matches("http").count() == 1, "only the name of SVG");
        let png = picture::png(&record, &judgement).unwrap();
        assert_eq!(&png[1..4], b"PNG");
        assert!(png.len() > 10_000);
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!((thousands(1), thousands(1_234_567)), ("1".to_owned(), "1,234,567".to_owned()));
        assert_eq!((seconds(1_500_000), seconds(2_000_000_000)), ("1.5 ms".to_owned(), "2.00 s".to_owned()));
    }
}
