//! The rules: `/v1/rules`. Any node takes a change and passes it to the leader of the Raft group; reads are local unless
//! `consistent=true` is asked for.

mod asked;
mod told;

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_cluster::{
    ids::Revision,
    rules::{NewRules, WriteError},
    state::{Actor, Applied, Change, DomainHistory, Expected, Extent, Origin, Written},
};
use tidegate_limiter::{
    cluster::{DomainDescription, Rules, RulesDiff, estimate, is_valid_name},
    rules::RuleError,
};
use tokio::time::Instant;

pub(super) use self::{
    asked::{HistoryOptions, ReadOptions, WriteOptions},
    told::Answer,
};
use self::{
    asked::{Wait, deadline, expected, idempotency_key, remark},
    told::{Changed, Domains, Line, domain_view, reading_secret, rules_of, seen, text_of},
};
use super::{json::problem_of as problem_of_json, tokens};
use crate::{
    check::{Problem, ProblemKind, echo},
    desk::{DeskIsBusy, Work},
    instant,
    node::Node,
};

/// How long a dry run waits to see the latest rules before it takes those that this node has.
const DRY_RUN_PATIENCE: Duration = Duration::from_secs(2);
const DEFAULT_HISTORY: usize = 50;
/// Domains that are named to whom asks for another one.
const MAX_NAMES: usize = 10;

/// The body of a rollback.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    revision: u64,
}

/// `GET /v1/rules`
pub(super) async fn all(node: &Node, options: &ReadOptions) -> Result<Answer, Problem> {
    let applied = applied(node, options.consistent, options.timeout_ms).await?;
    let seen = seen(node, &applied, options.consistent);
    let view = move || {
        let domains = applied.state.domains.iter();
        let domains = domains.map(|(name, history)| domain_view(name, history.current())).collect();
        Answer::of(&seen.with(Domains { domains }), None)
    };
    Ok(node.desk.work(Work::Read, view).await?)
}

/// `GET /v1/rules/{domain}`
pub(super) async fn one(
    node: &Node,
    domain: &str,
    options: &ReadOptions,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    let applied = applied(node, options.consistent, options.timeout_ms).await?;
    let history = history_of(&applied, domain)?;
    let change = match options.revision {
        None => history.current(),
        Some(revision) => change_at(history, domain, revision)?,
    };
    let revision = Some(change.revision.get());
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepts.contains("yaml") {
        return Ok(Answer { json: Vec::new(), revision, yaml: Some(text_of(change)) });
    }
    let (domain, change) = (domain.to_owned(), change.clone());
    let seen = seen(node, &applied, options.consistent);
    let view = move || Answer::of(&seen.with(domain_view(&domain, &change)), revision);
    Ok(node.desk.work(Work::Read, view).await?)
}

/// `GET /v1/rules/{domain}/history`
pub(super) async fn history(node: &Node, domain: &str, options: &HistoryOptions) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Lines<'a> {
        domain: &'a str,
        revisions: Vec<Line<'a>>,
    }
    let applied = applied(node, options.consistent, options.timeout_ms).await?;
    let history = history_of(&applied, domain)?;
    let limit = options.limit.unwrap_or(DEFAULT_HISTORY);
    let revisions = history.changes().iter().rev().take(limit).map(Line::of).collect();
    Ok(Answer::of(&seen(node, &applied, options.consistent).with(Lines { domain, revisions }), None))
}

/// `PUT /v1/rules/{domain}`
pub(super) async fn put(
    node: &Node,
    domain: &str,
    options: &WriteOptions,
    headers: &HeaderMap,
    body: &[u8],
    by: Actor,
) -> Result<Answer, Problem> {
    if !is_valid_name(domain) {
        let detail = format!("{:?} cannot name a domain: letters, digits and - _ . / :", echo(domain));
        return Err(Problem::of_field(ProblemKind::InvalidValue, "domain", detail));
    }
    let text = std::str::from_utf8(body).map_err(|fault| {
        Problem::new(
            ProblemKind::InvalidUtf8,
            format!("the body is not UTF-8 from byte {} on", fault.valid_up_to()),
        )
    })?;
    write(node, domain, text.into(), Origin::Apply, options, headers, by).await
}

/// `POST /v1/rules/{domain}/rollback`
pub(super) async fn rollback(
    node: &Node,
    domain: &str,
    options: &WriteOptions,
    headers: &HeaderMap,
    body: &[u8],
    by: Actor,
) -> Result<Answer, Problem> {
    let RollbackBody { revision } = serde_json::from_slice(body).map_err(|error| problem_of_json(&error))?;
    // This node may not have heard of that revision yet.
    let latest = node.cluster.ledger().latest(deadline(options.timeout_ms)?).await;
    let applied = latest.unwrap_or_else(|_| node.cluster.ledger().applied());
    let change = change_at(history_of(&applied, domain)?, domain, revision)?;
    let origin = Origin::Rollback { to: Revision::new(revision) };
    write(node, domain, text_of(change), origin, options, headers, by).await
}

async fn write(
    node: &Node,
    domain: &str,
    text: Arc<str>,
    origin: Origin,
    options: &WriteOptions,
    headers: &HeaderMap,
    by: Actor,
) -> Result<Answer, Problem> {
    let deadline = deadline(options.timeout_ms)?;
    let asked = expected(headers)?;
    let mut new = NewRules::new(domain, &text);
    new.origin = origin;
    new.author = remark("author", &options.author)?;
    new.message = remark("message", &options.message)?;
    new.by = Some(by);
    if let Some(key) = idempotency_key(headers)? {
        new.key = key;
    }
    let kind = if options.dry_run { Work::Read } else { Work::Write };
    let after = Arc::new(compile(node, kind, domain, Arc::clone(&text), origin).await?);
    let ledger = node.cluster.ledger();
    if options.dry_run {
        let patience = deadline.min(Instant::now() + DRY_RUN_PATIENCE);
        let applied = ledger.latest(patience).await.unwrap_or_else(|_| ledger.applied());
        return dry_run(node, domain, &applied, &text, &after, asked).await;
    }
    let (written, diff) = loop {
        // Against what it is a change is only known when it is the next one: so that is what is asked for.
        let applied = ledger.applied();
        let current = applied.state.domains.get(domain);
        new.expected = match (asked, current) {
            (Expected::Any, Some(history)) => Expected::At(history.current().revision),
            (Expected::Any, None) => Expected::Absent,
            (asked, _) => asked,
        };
        let diff = diff_to(node, kind, domain, current.map(Arc::as_ref), Arc::clone(&after)).await?;
        new.extent = Extent {
            added: diff.added.len() as u32,
            removed: diff.removed.len() as u32,
            changed: diff.changed.len() as u32
                + u32::from(diff.unmatched.is_some())
                + u32::from(diff.all_or_nothing.is_some()),
        };
        match ledger.write(new.clone(), deadline).await {
            Ok(written) => break (written, diff),
            Err(WriteError::Mismatch { current }) if asked == Expected::Any && Instant::now() < deadline => {
                // Somebody else was quicker, or this node is behind.
                let mut news = ledger.watch();
                let seen = news.wait_for(|applied| applied.state.revision(domain) >= current);
                let _ = tokio::time::timeout_at(deadline, seen).await;
            }
            Err(fault) => return Err(problem_of(domain, fault)),
        }
    };
    let Written { revision, previous, changed } = written;
    let spread = if options.wait == Some(Wait::All) {
        ledger.everywhere(revision, deadline).await
    } else {
        ledger.spread(revision)
    };
    if options.wait == Some(Wait::All) && !spread.behind.is_empty() {
        let detail = format!(
            "revision {revision} is written, but not yet in force at {}; it will be as soon as they have it",
            spread.behind.join(", ")
        );
        return Err(Problem::new(ProblemKind::NotEverywhereYet, detail)
            .with("revision", revision.get())
            .with("applied_by", spread.applied_by)
            .with("behind", spread.behind));
    }
    let at = ledger.applied().state.domains.get(domain).and_then(|history| Some(history.at(revision)?.at_ms));
    let answer = Changed {
        domain: domain.to_owned(),
        revision: Some(revision.get()),
        previous: previous.map(Revision::get),
        changed,
        at: instant::text_of(at.unwrap_or_else(|| node.clock.unix_millis())),
        dry_run: false,
        diff: if changed { diff } else { RulesDiff::default() },
        live_buckets: None,
        applied_by: spread.applied_by,
    };
    Ok(Answer::of(&answer, Some(revision.get())))
}

async fn dry_run(
    node: &Node,
    domain: &str,
    applied: &Applied,
    text: &str,
    after: &Arc<DomainDescription>,
    asked: Expected,
) -> Result<Answer, Problem> {
    let current = applied.state.domains.get(domain);
    let revision = current.map(|history| history.current().revision);
    let fits = match asked {
        Expected::Any => true,
        Expected::Absent => revision.is_none(),
        Expected::At(wanted) => revision == Some(wanted),
    };
    if !fits {
        return Err(problem_of(domain, WriteError::Mismatch { current: revision }));
    }
    let diff = diff_to(node, Work::Read, domain, current.map(Arc::as_ref), Arc::clone(after)).await?;
    let touched: Vec<String> = diff
        .changed
        .iter()
        .map(|change| change.name.clone())
        .chain(diff.removed.iter().map(|rule| rule.name.clone()))
        .collect();
    let registers = node.cluster.ledger().touched(domain, &touched).await;
    let live_buckets = touched.into_iter().zip(registers.iter().map(|registers| estimate(registers)));
    let answer = Changed {
        domain: domain.to_owned(),
        revision: revision.map(Revision::get),
        previous: revision.map(Revision::get),
        changed: current.is_none_or(|history| **history.text() != *text),
        at: instant::text_of(node.clock.unix_millis()),
        dry_run: true,
        live_buckets: Some(live_buckets.collect()),
        diff,
        applied_by: Vec::new(),
    };
    Ok(Answer::of(&answer, revision.map(Revision::get)))
}

async fn applied(node: &Node, consistent: bool, timeout_ms: Option<u64>) -> Result<Arc<Applied>, Problem> {
    let ledger = node.cluster.ledger();
    if !consistent {
        return Ok(ledger.applied());
    }
    let latest = ledger.latest(deadline(timeout_ms)?).await;
    latest.map_err(|fault| problem_of("", WriteError::NoQuorum(fault)))
}

fn history_of<'a>(applied: &'a Applied, domain: &str) -> Result<&'a DomainHistory, Problem> {
    applied.state.domains.get(domain).map(Arc::as_ref).ok_or_else(|| {
        let names = applied.state.domains.keys();
        let shown: Vec<&str> = names.clone().take(MAX_NAMES).map(|name| &**name).collect();
        let there = match names.len().checked_sub(MAX_NAMES) {
            _ if shown.is_empty() => "there are none".to_owned(),
            None | Some(0) => format!("there are: {}", shown.join(", ")),
            Some(more) => format!("there are: {} and {more} more", shown.join(", ")),
        };
        Problem::new(
            ProblemKind::NoSuchDomain,
            format!("the domain {:?} has no rules; {there}", echo(domain)),
        )
    })
}

fn change_at<'a>(history: &'a DomainHistory, domain: &str, revision: u64) -> Result<&'a Change, Problem> {
    let change = history.at(Revision::new(revision)).ok_or_else(|| {
        let last: Vec<String> =
            history.changes().iter().rev().take(5).map(|change| change.revision.to_string()).collect();
        let detail = format!(
            "{domain:?} has no revision {revision}; the last are {} (see its history)",
            last.join(", ")
        );
        Problem::new(ProblemKind::NoSuchRevision, detail)
    })?;
    match change.text {
        Some(_) => Ok(change),
        None => {
            let detail = format!(
                "the rules of {domain:?} at revision {revision} are too old: they are no longer kept"
            );
            Err(Problem::new(ProblemKind::NoSuchRevision, detail))
        }
    }
}

async fn compile(
    node: &Node,
    kind: Work,
    domain: &str,
    text: Arc<str>,
    origin: Origin,
) -> Result<DomainDescription, Problem> {
    let domain = domain.to_owned();
    let compiled = node.desk.work(kind, move || {
        let secret = reading_secret();
        let nothing = Rules::empty(&secret);
        let rules = match origin {
            Origin::Apply => nothing.with_domain(&domain, &text, &secret)?,
            // It was taken before, maybe by an earlier version.
            Origin::Rollback { .. } => nothing.with_domain_at(&domain, &text, &secret, 0)?,
        };
        Ok(rules.describe(&domain))
    });
    compiled.await?.map_err(invalid_rules)
}

async fn diff_to(
    node: &Node,
    kind: Work,
    domain: &str,
    current: Option<&DomainHistory>,
    after: Arc<DomainDescription>,
) -> Result<RulesDiff, Problem> {
    let before = current.map(|history| Arc::clone(history.text()));
    let (domain, ip_prefix) = (domain.to_owned(), node.rules.load().ip_prefix());
    let diff = node.desk.work(kind, move || {
        let nothing = DomainDescription { allow_unmatched: true, ..Default::default() };
        let before = before.map_or(nothing, |text| rules_of(&domain, &text).describe(&domain));
        RulesDiff::between_with(&before, &after, ip_prefix)
    });
    Ok(diff.await?)
}

impl From<DeskIsBusy> for Problem {
    fn from(_: DeskIsBusy) -> Self {
        let detail =
            "other calls about rules are being worked on, one after the other; ask again in a moment";
        Self::new(ProblemKind::Busy, detail)
    }
}

fn invalid_rules(faults: Vec<RuleError>) -> Problem {
    let count = faults.len();
    let first = faults.first().map_or_else(String::new, ToString::to_string);
    let detail = if count == 1 { first } else { format!("{count} faults, the first: {first}") };
    let faults: Vec<Value> = faults
        .into_iter()
        .map(|RuleError { message, help, line, column, offset, length, .. }| {
            json!({ "message": message, "help": help, "line": line, "column": column, "offset": offset, "length": length })
        })
        .collect();
    Problem::new(ProblemKind::InvalidRules, detail).with("faults", faults)
}

fn problem_of(domain: &str, fault: WriteError) -> Problem {
    match fault {
        WriteError::Mismatch { current } => {
            let now = match current {
                Some(revision) => format!("the rules of {domain:?} are at revision {revision} now"),
                None => format!("the domain {domain:?} has no rules"),
            };
            let detail = format!("{now}: look at what has changed, and write on top of that");
            Problem::new(ProblemKind::RevisionMismatch, detail).with("revision", current.map(Revision::get))
        }
        WriteError::KeyReused => Problem::new(
            ProblemKind::KeyReused,
            "the Idempotency-Key came with other rules before; each write needs its own",
        ),
        WriteError::Full(reason) => Problem::new(ProblemKind::NoRoom, reason),
        WriteError::NotDone(_) => tokens::problem(&fault),
        WriteError::NoQuorum(fault) => {
            let applied = if fault.in_doubt { Value::Null } else { Value::Bool(false) };
            let detail = format!("{fault}; checks go on with the rules that this node has");
            Problem::new(ProblemKind::NoQuorum, detail)
                .with("missing", fault.missing)
                .with("voters", fault.voters)
                .with("leader", fault.leader)
                .with("applied", applied)
        }
    }
}
