//! Rules that have changed since a node decided by them: which of the new ones are meant by a charge of the old ones.
//!
//! The owner of a bucket does not see the attributes of a request that another node forwards, so it cannot match its rules
//! anew. But where a rule tells requests apart as it did before, and the same of its overrides have buckets of their own, the
//! same request has the same override, and of its bucket's fingerprint only those bits are others that tell limits apart. Each
//! charge carries a fingerprint of what its rule told requests apart by ([`LimitRef`]).

use crate::{Consistency, KeyHash, Limit, LimitRef, Mode, Reserve, RuleId, Rules, ban::Ban};

/// What a node's rules say of a charge that another node made by its own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The other node knew all that is known of the rule here, and maybe more: the charge holds as it came.
    AsAsked,
    /// The rule has changed since, and this is what counts.
    Newer(Newer),
    /// It cannot be decided without the attributes of the request: only a node with the rules of this revision, or a later one, can.
    Unknown {
        /// The first revision that says.
        revision: u64,
    },
}

/// A charge by newer rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newer {
    /// The bucket of the limit in force.
    pub key: KeyHash,
    /// The limit in force.
    pub limit: Limit,
    /// Whether a denial counts.
    pub mode: Mode,
    /// For how long a key is denied that exceeds it.
    pub ban: Option<Ban>,
    /// What the rule demands in a partition.
    pub consistency: Consistency,
    /// How floors of the bucket are replicated.
    pub reserve: Option<Reserve>,
}

impl Rules {
    /// What is to be charged here where a node whose rules are those of `revision` has found this limit of this rule, and its
    /// bucket `key`. A map is asked once.
    pub fn standing(
        &self,
        rule: RuleId,
        found: LimitRef,
        key: KeyHash,
        limit: &Limit,
        revision: u64,
    ) -> Standing {
        let Some((known, since)) = self.rule_of(rule) else {
            // One that is new there, or one that is gone here.
            let newest = self.newest();
            return match revision >= newest {
                true => Standing::AsAsked,
                false => Standing::Unknown { revision: newest },
            };
        };
        if revision >= since {
            return Standing::AsAsked;
        }
        if known.shape != found.shape() {
            return Standing::Unknown { revision: since };
        }
        let special = (found.place() as usize).checked_sub(1);
        if special.is_some_and(|special| special >= known.overrides.len()) {
            // The shape says otherwise, so this was made up.
            return Standing::Unknown { revision: since };
        }
        let (key, limit, mode) = match known.limit_at(special) {
            Some(own) => (key.under(limit, own), *own, known.mode),
            // Unlimited: whatever the bucket says, it does not deny.
            None => (key, *limit, Mode::Shadow),
        };
        let ban = known.ban().filter(|_| mode == Mode::Enforce);
        let (consistency, reserve) = (known.consistency, known.reserve);
        Standing::Newer(Newer { key, limit, mode, ban, consistency, reserve })
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::{HashSecret, Matched};

    const DOMAIN: &str = "d";
    const KEY: KeyHash = KeyHash::from_raw(5);

    fn secret() -> HashSecret {
        HashSecret::new([7; 16])
    }

    fn rules(text: &str, revision: u64) -> Rules {
        let text = format!("rules:\n  - {text}\n");
        let before = Rules::empty(&secret()).with_domain_at("other", "rules: []", &secret(), 1).unwrap();
        before.with_domain_at(DOMAIN, &text, &secret(), revision).unwrap().at_revision(revision)
    }

    /// What newer rules say of the charge of a request by older ones, and whether the newer ones find the same bucket for the
    /// request themselves.
    fn standing(older: &str, newer: &str, request: &[(&str, &str)]) -> (Standing, bool) {
        let (older, newer) = (rules(older, 5), rules(newer, 9));
        let find = |rules: &Rules| {
            let mut found: SmallVec<[Matched<'_>; 4]> = SmallVec::new();
            rules.matching(DOMAIN, request, &mut found);
            let one = found.first()?;
            Some((one.rule.id(), one.limit_ref, *one.limit?, one.key))
        };
        let (rule, found, limit, key) = find(&older).unwrap();
        let own = find(&newer);
        let standing = newer.standing(rule, found, key, &limit, older.revision());
        let same_bucket = match (&standing, own) {
            (Standing::Newer(newer), Some((_, _, limit, key))) => {
                assert_eq!(newer.limit, limit, "what the newer rules find for the request themselves");
                newer.key == key
            }
            (_, own) => own.is_some_and(|(.., own)| own == key),
        };
        (standing, same_bucket)
    }

    #[test]
    fn numbers_of_newer_rules_count_where_they_tell_requests_apart_as_before() {
        let request = [("user", "ada"), ("plan", "gold"), ("path", "/a")];
        let gold = |limit: &str| format!("overrides: [{{ when: {{ plan: gold }}, limit: {limit} }}]");
        let rule = |rest: &str| format!("{{ name: r, key: [user], {rest} }}");
        for (older, newer) in [
            ("limit: 100/1h".to_owned(), "limit: 5/1h".to_owned()),
            ("limit: 5/1h".to_owned(), "limit: 100/1d, burst: 7, mode: shadow".to_owned()),
            ("limit: 9/1h".to_owned(), "limit: 9/1h, carved: true, consistency: strict".to_owned()),
            (format!("limit: 9/1h, {}", gold("20/1h")), format!("limit: 8/1h, {}", gold("10/1m"))),
            (format!("limit: unlimited, {}", gold("20/1h")), format!("limit: 8/1h, {}", gold("10/1m"))),
            (format!("limit: 9/1h, {}", gold("9/1h")), format!("limit: 8/1h, {}", gold("8/1h"))),
            (
                format!("limit: 9/1h, {}", gold("20/1h")),
                format!("limit: 8/1h, algorithm: sliding_log, {}", gold("10/1m")),
            ),
            (
                "limit: 9/1h, algorithm: fixed_window".to_owned(),
                "limit: 9/1d, algorithm: sliding_window".to_owned(),
            ),
            ("limit: 9/1h".to_owned(), "limit: 8/1h, carved: true".to_owned()),
        ] {
            let (found, same_bucket) = standing(&rule(&older), &rule(&newer), &request);
            assert!(matches!(found, Standing::Newer(_)) && same_bucket, "{older} -> {newer}: {found:?}");
        }
        let reserved = standing(&rule("limit: 9/1d, takeover: zero"), &rule("limit: 9/1d"), &request);
        assert!(matches!(reserved.0, Standing::Newer(Newer { reserve: Some(_), .. })), "{reserved:?}");
        let (banning, _) = standing(&rule("limit: 9/1h"), &rule("limit: 9/1h, ban: 15m"), &request);
        assert!(matches!(banning, Standing::Newer(Newer { ban: Some(_), .. })), "{banning:?}");
        let (watching, _) =
            standing(&rule("limit: 9/1h"), &rule("limit: 9/1h, ban: 15m, mode: shadow"), &request);
        assert!(matches!(watching, Standing::Newer(Newer { ban: None, .. })), "{watching:?}");
        let free = format!("limit: 9/1h, {}", gold("unlimited"));
        let (free, _) = standing(&rule(&format!("limit: 9/1h, {}", gold("20/1h"))), &rule(&free), &request);
        assert!(matches!(free, Standing::Newer(Newer { mode: Mode::Shadow, .. })), "{free:?}");
    }

    #[test]
    fn what_only_the_request_could_tell_is_unknown() {
        let request = [("user", "ada"), ("plan", "gold"), ("path", "/a")];
        let older =
            "{ name: r, key: [user], limit: 9/1h, overrides: [{ when: { plan: gold }, limit: 20/1h }] }";
        for newer in [
            "{ name: other, key: [user], limit: 5/1h }",
            "{ name: r, key: [plan], limit: 5/1h, overrides: [{ when: { plan: gold }, limit: 20/1h }] }",
            "{ name: r, key: [user], limit: 5/1h }",
            "{ name: r, key: [user], limit: 5/1h, overrides: [{ when: { plan: '!gold' }, limit: 20/1h }] }",
            "{ name: r, key: [user], limit: 20/1h, overrides: [{ when: { plan: gold }, limit: 20/1h }] }",
            "{ name: r, key: [user], limit: 5/1h, overrides: [{ when: { path: /a }, limit: 1/1h }, { when: { plan: gold }, limit: 20/1h }] }",
            "{ name: r, key: [user], limit: 9/1h, overrides: [{ when: { plan: gold }, limit: 20/1h, until: 2026-12-24T00:00:00Z }] }",
            "{ name: r, key: [user], limit: 9/1h, until: 2026-12-24T00:00:00Z, overrides: [{ when: { plan: gold }, limit: 20/1h }] }",
            "{ name: r, key: [user], when: { path: /a }, limit: 5/1h, overrides: [{ when: { plan: gold }, limit: 20/1h }] }",
        ] {
            let (found, _) = standing(older, newer, &request);
            assert_eq!(found, Standing::Unknown { revision: 9 }, "{newer}");
        }
    }

    #[test]
    fn whoever_has_the_same_or_newer_rules_is_believed() {
        let here = rules("{ name: r, key: [user], limit: 5/1h }", 9);
        let limit = Limit::parse("100/1h", None, crate::Algorithm::TokenBucket).unwrap();
        let known = here.rules(DOMAIN)[0].id();
        let other = RuleId::from_raw(known.get() + 2);
        let found = LimitRef::new(here.rules(DOMAIN)[0].shape, 0);
        for (rule, revision) in [(known, 9), (known, 12), (other, 9), (other, 12)] {
            assert_eq!(
                here.standing(rule, found, KEY, &limit, revision),
                Standing::AsAsked,
                "{rule:?} {revision}"
            );
        }
        // A later change of another domain does not make these rules newer.
        let later = here.with_domain_at("other", "rules: []", &secret(), 30).unwrap().at_revision(30);
        assert_eq!(later.standing(known, found, KEY, &limit, 9), Standing::AsAsked);
        assert_eq!(later.standing(other, found, KEY, &limit, 9), Standing::Unknown { revision: 30 });
        let made_up = LimitRef::new(found.shape(), u32::MAX);
        assert_eq!(later.standing(known, made_up, KEY, &limit, 8), Standing::Unknown { revision: 9 });
    }

    #[test]
    fn the_order_in_which_rules_and_attributes_are_written_does_not_matter() {
        let one = rules("{ name: r, key: [a], when: { x: '1', y: '2' }, limit: 5/1h }", 1);
        let other = Rules::from_yaml(
            "domain: d\nrules:\n  - { name: q, key: [a], when: { x: '1' }, limit: 1/1s }\n  - { name: r, key: [a], when: { y: '2', x: '1' }, limit: 5/1h }\n",
            &secret(),
        )
        .unwrap();
        assert_eq!(one.rules(DOMAIN)[0].shape, other.rules(DOMAIN)[1].shape);
        let patterns = |list: &str| {
            let text = format!("{{ name: r, key: [a], when: {{ x: {list} }}, limit: 5/1h }}");
            rules(&text, 1).rules(DOMAIN)[0].shape
        };
        assert_eq!(patterns("['1', 2*, '!2']"), patterns("[2*, '!2', '1']"));
        assert_ne!(patterns("['1', 2*, '!2']"), patterns("['1', '!2']"));
    }
}
