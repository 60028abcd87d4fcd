use arc_swap::ArcSwap;
use tidegate_limiter::{
    Cost,
    cluster::{Charge, Match, StoreConfig},
    rules::Mode,
};

use super::*;
use crate::{
    clock::Clock,
    ids::{ClusterId, Leadership, NodeStart},
    owner::session::SessionTiming,
    state::{
        command::{Command, Extent, Founding, Origin, RuleWrite},
        machine::Replicated,
    },
};

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

struct World {
    compiler: Compiler,
    state: Replicated,
    index: u64,
}

impl World {
    fn new() -> Self {
        let (now, start) = (Nanos::new(1), NodeStart { node: 1, incarnation: 1 });
        let timing = SessionTiming::of(Duration::from_secs(2));
        let store = || Arc::new(Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, now));
        let compiler = Compiler {
            clock: Clock::start(),
            rules: Arc::new(RulesInForce::new(Arc::new(ArcSwap::from_pointee(Rules::empty(
                &HashSecret::new([0; 16]),
            ))))),
            ownership: Arc::new(SlotOwnership::new(start, timing, now)),
            stores: [store(), store(), store()],
            compiled: BTreeMap::new(),
            secret: None,
        };
        let mut world = Self { compiler, state: Replicated::default(), index: 0 };
        world.apply(Command::Found(Founding {
            cluster: ClusterId::from_bytes([1; 16]),
            hash_secret: [1; 16],
        }));
        world
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let _ = self.state.apply(self.index, LEADERSHIP, command);
    }

    fn write(&mut self, domain: &str, text: &str) {
        self.write_at(domain, text, 0);
    }

    fn write_at(&mut self, domain: &str, text: &str, at_ms: u64) {
        self.apply(Command::Write(RuleWrite {
            domain: domain.into(),
            text: text.into(),
            origin: Origin::Apply,
            expected: Expected::Any,
            key: format!("{}", self.index),
            author: "test".into(),
            message: String::new(),
            node: "n1".into(),
            at_ms,
            extent: Extent::default(),
        }));
    }

    async fn compile(&mut self) -> Vec<String> {
        self.compiler.compile(&Applied { index: self.index, state: self.state.clone() }).await
    }

    /// Units left to a user by the first rule, after a charge of this cost.
    fn left(&self, cost: u64) -> u64 {
        let rules = self.compiler.rules.load();
        let mut found = Default::default();
        rules.matching("api", &[("user", "a"), ("path", "/x")][..], &mut found);
        let charge = Charge {
            key: found[0].key,
            rule: found[0].rule.id(),
            limit: *found[0].limit.unwrap(),
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        self.compiler.stores[0].check(&charge, self.compiler.clock.now()).remaining
    }

    /// Another process on the same data directory: what was consumed, and the log.
    fn restarted(self) -> Self {
        let World { state, index, compiler } = self;
        let mut again = World { state, index, ..World::new() };
        again.compiler.clock = compiler.clock;
        let now = compiler.clock.now();
        compiler.stores[0].buckets(
            now,
            |_| true,
            |bucket| {
                again.compiler.stores[0].take_over(&bucket, now);
            },
        );
        again
    }

    fn matched(&self, domain: &str) -> Match {
        self.compiler.rules.load().matching(domain, &[("user", "a")][..], &mut Default::default())
    }
}

const RULES: &str = "rules:\n  - { name: per-user, key: [user], limit: 5/1h }\n";
/// Of a version that this one knows nothing of.
const LATER: &str = "rules:\n  - { name: per-user, key: [user], limit: 5/1h, algorithm: later }\n";

/// Found by review: a node that began with such rules admitted everything in their domain.
#[tokio::test]
async fn a_domain_whose_rules_cannot_be_used_denies_until_there_are_some() {
    let mut world = World::new();
    world.write("api", LATER);
    world.write("web", RULES);
    let broken = world.compile().await;
    assert!(broken.len() == 1 && broken[0].contains("the rules of api"), "{broken:?}");
    assert_eq!(world.matched("api"), Match::Unmatched { allow: false });
    assert_eq!(world.matched("web"), Match::Rules);
    // It stays so, and says so, whatever else changes.
    world.write("web", RULES);
    assert_eq!(world.compile().await.len(), 1);
    assert_eq!(world.matched("api"), Match::Unmatched { allow: false });
    world.write("api", RULES);
    assert_eq!(world.compile().await, Vec::<String>::new());
    assert_eq!(world.matched("api"), Match::Rules);
}

#[tokio::test]
async fn rules_that_cannot_be_used_leave_those_before_in_force() {
    let mut world = World::new();
    world.write("api", RULES);
    assert_eq!(world.compile().await, Vec::<String>::new());
    world.write("api", LATER);
    assert_eq!(world.compile().await.len(), 1);
    assert_eq!(world.matched("api"), Match::Rules);
}

/// Found by a review: nine writes in other domains, and a node that started again did not know the rules of before.
#[tokio::test]
async fn a_domain_that_is_written_often_leaves_what_is_known_of_the_others() {
    let mut world = World::new();
    let rules = |count: usize| format!("rules: [{{ name: r, key: [user], limit: {count}/1d }}]");
    world.write("api", &rules(100));
    world.write("web", &rules(200));
    assert_eq!(world.compile().await, Vec::<String>::new());
    let then = Arc::clone(world.compiler.rules.load().reserves());
    world.write("api", &rules(110));
    for count in 0..6 {
        ["web", "one", "two", "three"].iter().for_each(|domain| world.write(domain, &rules(300 + count)));
    }
    let World { state, index, .. } = world;
    let mut again = World { state, index, ..World::new() };
    assert_eq!(again.compile().await, Vec::<String>::new());
    let known = again.compiler.ownership.reserves_of(then.number());
    assert_eq!(known.as_deref().map(Reserves::number), Some(then.number()));
}

const ALGORITHMS: [&str; 5] =
    ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window", "sliding_log"];

/// Found with a real node: eight edits of another rule, and a planned restart gave back what was consumed.
#[tokio::test]
async fn edits_that_leave_a_limit_as_it_is_do_not_make_a_node_forget_the_one_before() {
    for algorithm in ALGORITHMS {
        let rules = |limit: &str, other: u64| {
            format!(
                "rules: [{{ name: r, key: [user], limit: {limit}, algorithm: {algorithm} }}, {{ name: other, key: [tenant], limit: {other}/1m }}]"
            )
        };
        let mut world = World::new();
        let now = world.compiler.clock.unix_millis();
        world.write_at("api", &rules("10/10h", 1), now);
        assert_eq!(world.compile().await, Vec::<String>::new());
        assert_eq!(world.left(7), 3);
        world.write_at("api", &rules("30/20h", 1), now);
        for other in 2..=60 {
            world.write_at("api", &rules("30/20h", other), now);
        }
        assert_eq!(world.compile().await, Vec::<String>::new());
        let mut again = world.restarted();
        assert_eq!(again.compile().await, Vec::<String>::new());
        assert_eq!(again.left(0), 23, "{algorithm}");
    }
}

/// The same where the rule itself was changed often, and where it, or its override, was not there for a while.
#[tokio::test]
async fn a_node_that_starts_again_knows_what_one_that_did_not_stop_knows() {
    let special = |limit: &str, special: &str| {
        format!("rules: [{{ name: r, key: [user], limit: {limit}, overrides: [{special}] }}]")
    };
    let of_x = |limit: &str| special("1000/1h", &format!("{{ when: {{ path: /x }}, limit: {limit} }}"));
    let often = |count: u64| special(&format!("{}/{}h", 20 + count, 10 + count), "");
    let cases: [(String, Vec<String>, u64); 4] = [
        (special("10/10h", ""), (0..40).map(often).collect(), 59 - 7),
        (special("10/10h", ""), vec!["rules: []".to_owned(), special("30/20h", "")], 23),
        (of_x("10/10h"), vec![of_x("unlimited"), of_x("30/20h")], 23),
        (of_x("10/10h"), vec![special("1000/1h", ""), of_x("30/20h")], 23),
    ];
    for (before, changes, left) in cases {
        for stops in [false, true] {
            let mut world = World::new();
            let now = world.compiler.clock.unix_millis();
            world.write_at("api", &before, now);
            assert_eq!(world.compile().await, Vec::<String>::new());
            assert_eq!(world.left(7), 3);
            for change in &changes {
                world.write_at("api", change, now);
                assert_eq!(world.compile().await, Vec::<String>::new());
            }
            if stops {
                world = world.restarted();
                assert_eq!(world.compile().await, Vec::<String>::new());
            }
            assert_eq!(world.left(0), left, "{before}, {stops}");
        }
    }
}

#[test]
fn of_texts_that_were_in_force_the_newest_are_known_and_until_when() {
    let mut world = World::new();
    let times = [5_000, 1_000, 9_000, 2_000];
    for (count, at_ms) in times.into_iter().enumerate() {
        world.write_at("api", &RULES.replace('5', &(count + 1).to_string()), at_ms);
    }
    let texts = texts_before(&world.state.domains["api"], None);
    let known: Vec<(u64, Nanos)> = texts.iter().map(|text| (text.revision.get(), text.ended)).collect();
    let after = |millis: u64| Nanos::new(millis * 1_000_000).saturating_add(IN_FORCE_AFTER);
    // By clocks that were set back, none ended sooner than the one before.
    assert_eq!(known, [(2, after(5_000)), (3, after(9_000)), (4, after(9_000))]);
    let newer = texts_before(&world.state.domains["api"], Some(Revision::new(3)));
    assert_eq!(newer.iter().map(|text| text.revision.get()).collect::<Vec<_>>(), [4]);
    for count in 0..6 {
        let large = format!("# {}{count}\n{RULES}", "x".repeat(MAX_BYTES_BEFORE / 4 - 100));
        world.write_at("api", &large, 9_000);
    }
    assert_eq!(
        texts_before(&world.state.domains["api"], None).len(),
        4,
        "five do not fit with the first ones"
    );
}
