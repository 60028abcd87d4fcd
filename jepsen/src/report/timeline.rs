//! The run over time: what was broken, what was admitted against what was allowed, who decided, how fast, who owned chosen
//! keys, who led.

use std::fmt::Write as _;

use super::{
    svg::{self, ADMITTED, BAD, DENIED, FAINT, GOOD, INK, LEFT, LOSS, Sheet},
    terminal::word,
};
use crate::{
    check::Verdict,
    history::{Operation, Outcome},
    judge::Judgement,
    nemesis::{Fault, Track},
    record::Record,
};

/// At most so many steps of time are drawn.
const MOST_STEPS: f64 = 240.0;
/// Keys whose owners are drawn.
const CHOSEN: usize = 7;

/// What happened in a step of time.
#[derive(Debug, Default, Clone)]
struct Step {
    admitted: u32,
    denied: u32,
    hot_admitted: u32,
    hot_denied: u32,
    by_owner: u32,
    by_loss: u32,
    failed: u32,
    latencies: Vec<u64>,
}

struct Steps {
    all: Vec<Step>,
    /// Seconds of each.
    length: f64,
}

impl Steps {
    fn of(record: &Record, whole: f64) -> Self {
        let length = (whole / MOST_STEPS).ceil().max(1.0) * if whole <= 120.0 { 0.5 } else { 1.0 };
        let mut all = vec![Step::default(); (whole / length).ceil() as usize + 1];
        for one in &record.history.operations {
            let place = (record.seconds(one.completed).max(0.0) / length) as usize;
            let Some(step) = all.get_mut(place) else { continue };
            let admitted = u32::from(one.outcome == Outcome::Admitted);
            let denied = u32::from(one.outcome == Outcome::Denied);
            step.admitted += admitted;
            step.denied += denied;
            if one.key == 0 {
                step.hot_admitted += admitted;
                step.hot_denied += denied;
            }
            match one.decided_by.as_ref().map(|(how, _)| &**how) {
                _ if admitted + denied == 0 => step.failed += 1,
                Some("share" | "fallback") => step.by_loss += 1,
                _ => step.by_owner += 1,
            }
            if admitted + denied > 0 {
                step.latencies.push(one.completed - one.invoked);
            }
        }
        all.iter_mut().for_each(|step| step.latencies.sort_unstable());
        Self { all, length }
    }

    /// The middles of the steps.
    fn seconds(&self) -> Vec<f64> {
        (0..self.all.len()).map(|place| (place as f64 + 0.5) * self.length).collect()
    }

    /// A number of each step, a second.
    fn rates(&self, of: impl Fn(&Step) -> u32) -> Vec<f64> {
        self.all.iter().map(|step| f64::from(of(step)) / self.length).collect()
    }
}

/// Draws it.
pub fn svg(record: &Record, judgement: &Judgement) -> String {
    let whole = record.seconds(record.times.ended);
    let mut sheet = Sheet::new(whole);
    head(&mut sheet, record, judgement);
    let top = sheet.y;
    faults(&mut sheet, record);
    let steps = Steps::of(record, whole);
    hot_key(&mut sheet, record, &steps);
    decided(&mut sheet, &steps);
    latency(&mut sheet, &steps);
    owners(&mut sheet, record);
    leaders(&mut sheet, record);
    let bottom = sheet.y;
    sheet.seconds();
    let behind = behind(&sheet, record, top, bottom);
    sheet.finish(&behind)
}

fn head(sheet: &mut Sheet, record: &Record, judgement: &Judgement) {
    let colour = match judgement.verdict {
        Verdict::Valid => GOOD,
        Verdict::Violated => BAD,
        Verdict::Unknown => svg::DOUBT,
    };
    let style = format!(r#"font-size="17" font-weight="bold" fill="{colour}""#);
    let text = format!("{}: seed {}", word(judgement.verdict), record.setup.seed);
    sheet.text(LEFT, 26.0, &style, &text);
    let text = format!(
        "{} nodes, {} checks, {} faults",
        record.setup.nodes,
        record.history.operations.len(),
        record.faults.len()
    );
    let style = format!(r#"font-size="12" text-anchor="end" fill="{FAINT}""#);
    sheet.text(svg::WIDTH - 18.0, 26.0, &style, &text);
    sheet.y = 34.0;
}

/// Bands through all panels while anything is broken, and the names of the phases.
fn behind(sheet: &Sheet, record: &Record, top: f64, bottom: f64) -> String {
    let mut text = String::new();
    let end = record.times.ended;
    for fault in &record.faults {
        let (from, to) = (record.seconds(fault.begun), record.seconds(fault.ended.unwrap_or(end)));
        let (x, width) = (sheet.x(from), (sheet.x(to) - sheet.x(from)).max(1.0));
        let colour = of_track(fault);
        let _ = writeln!(
            text,
            r#"<rect x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}" fill="{colour}" opacity="0.04"/>"#,
            bottom - top
        );
    }
    for at in
        [Some(record.times.broken), Some(record.times.mended), record.times.settled].into_iter().flatten()
    {
        let x = sheet.x(record.seconds(at));
        let _ = writeln!(
            text,
            r##"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="#9aa7b5" stroke-width="1" stroke-dasharray="3 4" fill="none"/>"##
        );
    }
    text
}

fn of_track(fault: &Fault) -> &'static str {
    match fault.kind.track() {
        Track::Process => "#c0504d",
        Track::Network => "#6a5acd",
        Track::Members => "#2a8c82",
    }
}

fn faults(sheet: &mut Sheet, record: &Record) {
    sheet.title(
        "What was broken",
        &[("processes", "#c0504d"), ("network", "#6a5acd"), ("members, disks", "#2a8c82")],
    );
    let y = sheet.y + 10.0;
    let times = &record.times;
    let marks = [(0, times.broken, "calm"), (times.mended, times.settled.unwrap_or(times.ended), "healing")];
    for (from, _, name) in marks {
        let x = sheet.x(record.seconds(from.max(times.begun)));
        sheet.text(x + 3.0, y - 2.0, &format!(r#"font-size="10" fill="{FAINT}""#), name);
    }
    if let Some(settled) = times.settled {
        let x = sheet.x(record.seconds(settled));
        sheet.text(x + 3.0, y + 8.0, &format!(r#"font-size="10" fill="{FAINT}""#), "settled");
    }
    sheet.y += 16.0;
    for (track, name) in
        [(Track::Process, "processes"), (Track::Network, "network"), (Track::Members, "members")]
    {
        const HEIGHT: f64 = 22.0;
        sheet.row(name, HEIGHT);
        let y = sheet.y;
        for fault in record.faults.iter().filter(|fault| fault.kind.track() == track) {
            let from = record.seconds(fault.begun);
            let to = record.seconds(fault.ended.unwrap_or(times.ended));
            let colour = of_track(fault);
            if let Some(recovered) = fault.recovered {
                let style = format!(r#"fill="{colour}" opacity="0.3""#);
                sheet.span(
                    to,
                    record.seconds(recovered),
                    y + 7.0,
                    HEIGHT - 14.0,
                    &style,
                    "until it is ready again",
                );
            }
            let opacity = if fault.evidence.is_some() { "0.88" } else { "0.35" };
            let title = format!(
                "{} ({}); second {from:.1} to {to:.1}; {}",
                fault.what,
                fault.aim.name(),
                fault.evidence.as_deref().unwrap_or("nothing was seen of it")
            );
            sheet.span(
                from,
                to,
                y,
                HEIGHT - 4.0,
                &format!(r#"rx="3" fill="{colour}" opacity="{opacity}""#),
                &title,
            );
            let room = sheet.x(to) - sheet.x(from);
            let long = format!("{} {}", fault.kind.name(), fault.targets.first().map_or("", |name| name));
            let texts = [long, fault.kind.name().to_owned()];
            if let Some(text) = texts.iter().find(|text| text.len() as f64 * 6.1 + 6.0 < room) {
                sheet.text(sheet.x(from) + 4.0, y + 13.0, r##"font-size="10" fill="#ffffff""##, text);
            }
        }
        sheet.y += HEIGHT;
    }
}

fn hot_key(sheet: &mut Sheet, record: &Record, steps: &Steps) {
    const HEIGHT: f64 = 84.0;
    let Some(limited) = record.setup.limits.first() else { return };
    let rate = limited.bound.count as f64 / limited.bound.period.as_secs_f64();
    // A step may hold a burst besides.
    let allowed = rate + limited.bound.burst as f64 / steps.length;
    sheet.title(
        &format!("The hottest key a second, {}", limited.text.split(';').next().unwrap_or_default()),
        &[("admitted", ADMITTED), ("denied", DENIED), ("rate", INK), ("rate and burst", BAD)],
    );
    let admitted = steps.rates(|step| step.hot_admitted);
    let both = steps.rates(|step| step.hot_admitted + step.hot_denied);
    let most = both.iter().copied().fold(allowed, f64::max) * 1.05;
    let (top, seconds) = (sheet.y, steps.seconds());
    let y = |value: f64| top + HEIGHT * (1.0 - value / most);
    sheet.scale(&[0.0, rate, 2.0 * rate].map(|value| (y(value), format!("{value:.0}"))));
    let heights = |values: &[f64]| values.iter().map(|value| y(*value)).collect::<Vec<f64>>();
    let floor = vec![y(0.0); seconds.len()];
    sheet.area(&seconds, &floor, &heights(&both), &format!(r#"fill="{DENIED}" opacity="0.8""#));
    sheet.area(&seconds, &floor, &heights(&admitted), &format!(r#"fill="{ADMITTED}" opacity="0.75""#));
    let end = seconds.last().copied().unwrap_or(0.0);
    sheet.line(&[(0.0, y(rate)), (end, y(rate))], &format!(r#"stroke="{INK}" stroke-width="1.2""#));
    let style = format!(r#"stroke="{BAD}" stroke-width="1.2" stroke-dasharray="5 3""#);
    sheet.line(&[(0.0, y(allowed)), (end, y(allowed))], &style);
    sheet.y += HEIGHT;
}

fn decided(sheet: &mut Sheet, steps: &Steps) {
    const HEIGHT: f64 = 84.0;
    sheet.title(
        "All checks a second, by who decided",
        &[("owner", ADMITTED), ("what the rule says without one", LOSS), ("no answer", BAD)],
    );
    let owner = steps.rates(|step| step.by_owner);
    let loss = steps.rates(|step| step.by_owner + step.by_loss);
    let failed = steps.rates(|step| step.by_owner + step.by_loss + step.failed);
    let most = failed.iter().copied().fold(1.0, f64::max) * 1.05;
    let (top, seconds) = (sheet.y, steps.seconds());
    let y = |value: f64| top + HEIGHT * (1.0 - value / most);
    let half = round(most / 2.0);
    sheet.scale(&[0.0, half, 2.0 * half].map(|value| (y(value).max(top), format!("{value:.0}"))));
    let heights = |values: &[f64]| values.iter().map(|value| y(*value)).collect::<Vec<f64>>();
    let (floor, owner, loss, failed) =
        (vec![y(0.0); seconds.len()], heights(&owner), heights(&loss), heights(&failed));
    sheet.area(&seconds, &floor, &owner, &format!(r#"fill="{ADMITTED}" opacity="0.55""#));
    sheet.area(&seconds, &owner, &loss, &format!(r#"fill="{LOSS}" opacity="0.9""#));
    sheet.area(&seconds, &loss, &failed, &format!(r#"fill="{BAD}" opacity="0.9""#));
    sheet.y += HEIGHT;
}

/// To one digit.
fn round(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(1.0).log10().floor());
    (value / unit).floor().max(1.0) * unit
}

fn latency(sheet: &mut Sheet, steps: &Steps) {
    const HEIGHT: f64 = 92.0;
    // From 0.1 ms to 10 s.
    const DECADES: f64 = 5.0;
    sheet.title(
        "How long an answer took",
        &[("half of them", ADMITTED), ("99 of 100", LOSS), ("the slowest", BAD)],
    );
    let (top, seconds) = (sheet.y, steps.seconds());
    let y = |nanos: u64| {
        let decades = (nanos.max(1) as f64 / 1e5).log10().clamp(0.0, DECADES);
        top + HEIGHT * (1.0 - decades / DECADES)
    };
    let lines = [(100_000, "0.1 ms"), (1_000_000, "1 ms"), (10_000_000, "10 ms"), (100_000_000, "100 ms")];
    let more = [(1_000_000_000, "1 s"), (10_000_000_000, "10 s")];
    let lines: Vec<_> = lines.into_iter().chain(more).map(|(at, name)| (y(at), name.to_owned())).collect();
    sheet.scale(&lines);
    for (part, colour) in [(1.0, BAD), (0.99, LOSS), (0.5, ADMITTED)] {
        let mut points = Vec::new();
        for (second, step) in seconds.iter().zip(&steps.all) {
            let count = step.latencies.len();
            let place = ((count as f64 * part).ceil() as usize).clamp(1, count.max(1)) - 1;
            points.extend(step.latencies.get(place).map(|nanos| (*second, y(*nanos))));
        }
        sheet.line(&points, &format!(r#"stroke="{colour}" stroke-width="1.4" stroke-linejoin="round""#));
    }
    sheet.y += HEIGHT;
}

/// Who decided about some keys that are asked about most, one of each of the first rules.
fn owners(sheet: &mut Sheet, record: &Record) {
    const HEIGHT: f64 = 17.0;
    let names: Vec<String> = (1..=record.setup.nodes + 1).map(|node| format!("n{node}")).collect();
    let mut legend: Vec<(&str, &str)> = names.iter().map(|name| (&**name, svg::of_node(name))).collect();
    legend.push(("no owner", DENIED));
    sheet.title("Who decided about chosen keys", &legend);
    for rule in 0..record.setup.limits.len().min(CHOSEN) {
        let question = record
            .setup
            .questions
            .iter()
            .position(|question| matches!(&question.buckets[..], [(of, _)] if *of == rule));
        let Some(question) = question else { continue };
        let (_, value) = &record.setup.questions[question].buckets[0];
        sheet.row(&format!("{} {value}", record.setup.limits[rule].name), HEIGHT);
        let y = sheet.y;
        for (from, to, owner) in tenures(record, question as u32) {
            let (colour, who) = match &owner {
                Some(owner) => (svg::of_node(owner), &**owner),
                None => (DENIED, "no owner"),
            };
            let (from, to) = (record.seconds(from), record.seconds(to));
            let title = format!("{who}, second {from:.1} to {to:.1}");
            sheet.span(from, to, y + 2.0, HEIGHT - 4.0, &format!(r#"fill="{colour}""#), &title);
        }
        sheet.y += HEIGHT;
    }
}

/// From when to when the answers about a key name the same owner.
fn tenures(record: &Record, key: u32) -> Vec<(u64, u64, Option<String>)> {
    let mut answered: Vec<&Operation> =
        record.history.of_key(key).filter(|one| one.decided_by.is_some()).collect();
    answered.sort_unstable_by_key(|one| one.completed);
    let mut tenures: Vec<(u64, u64, Option<String>)> = Vec::new();
    for one in answered {
        let Some((how, node)) = &one.decided_by else { continue };
        let owner = (how != "share" && how != "fallback").then(|| node.clone());
        match tenures.last_mut() {
            Some(last) if last.2 == owner => last.1 = one.completed,
            Some(last) => {
                last.1 = one.completed;
                tenures.push((one.completed, one.completed, owner));
            }
            None => tenures.push((one.completed, one.completed, owner)),
        }
    }
    tenures
}

/// Who leads and who has a session, as each node says itself.
fn leaders(sheet: &mut Sheet, record: &Record) {
    const HEIGHT: f64 = 17.0;
    sheet.title(
        "What each node says of itself",
        &[("leads", INK), ("has a session", GOOD), ("has none", LOSS), ("no answer", DENIED)],
    );
    for node in 1..=record.setup.nodes + 1 {
        let name = format!("n{node}");
        let samples: Vec<_> = record.samples.iter().filter(|sample| sample.node == name).collect();
        if samples.is_empty() {
            continue;
        }
        sheet.row(&name, HEIGHT);
        let y = sheet.y;
        let mut from = 0;
        while from < samples.len() {
            let state = |place: usize| {
                let sample = samples[place];
                let leads = sample.answered && sample.leader.as_ref() == Some(&name);
                (sample.answered, sample.session, leads)
            };
            let mut to = from + 1;
            while to < samples.len()
                && state(to) == state(from)
                && samples[to].at - samples[to - 1].at < 1_000_000_000
            {
                to += 1;
            }
            let (answered, session, leads) = state(from);
            let begin = record.seconds(samples[from].at).max(0.0);
            let end =
                record.seconds(samples[(to).min(samples.len() - 1)].at.min(samples[to - 1].at + 400_000_000));
            let colour = match (answered, session) {
                (false, _) => DENIED,
                (true, true) => GOOD,
                (true, false) => LOSS,
            };
            sheet.span(begin, end, y + 2.0, HEIGHT - 4.0, &format!(r#"fill="{colour}" opacity="0.75""#), "");
            if leads {
                sheet.span(
                    begin,
                    end,
                    y + 6.0,
                    HEIGHT - 12.0,
                    &format!(r#"fill="{INK}""#),
                    &format!("{name} leads"),
                );
            }
            from = to;
        }
        sheet.y += HEIGHT;
    }
}
