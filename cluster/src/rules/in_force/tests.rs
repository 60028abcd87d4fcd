use arc_swap::ArcSwap;
use tidegate_limiter::{
    Nanos,
    cluster::{Match, StoreConfig},
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
        self.apply(Command::Write(RuleWrite {
            domain: domain.into(),
            text: text.into(),
            origin: Origin::Apply,
            expected: Expected::Any,
            key: format!("{}", self.index),
            author: "test".into(),
            message: String::new(),
            node: "n1".into(),
            at_ms: 0,
            extent: Extent::default(),
        }));
    }

    async fn compile(&mut self) -> Vec<String> {
        self.compiler.compile(&Applied { index: self.index, state: self.state.clone() }).await
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
