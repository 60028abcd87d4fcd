//! Bugs that are there on purpose, each a rule of the protocol that is left out: to see that the tests find them. They are
//! compiled in with the feature `planted-bugs` only, and one at a time is switched on by the environment variable
//! `TIDEGATE_PLANTED_BUG`, with its name as in [`PlantedBug::ALL`].

/// A bug on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlantedBug {
    /// The leader gives a node's slots to others without waiting until its session must have ended.
    NoSessionWait,
    /// A new leader does not wait for the sessions that an earlier one has granted.
    NewLeaderDoesNotWait,
    /// Sessions have no margin for clocks that do not run alike.
    NoClockMargin,
    /// A session counts before the log is applied up to where it was granted.
    RenewalNotBound,
    /// Who takes slots over after a crash begins with full buckets.
    FullStart,
    /// The owner of a slot goes on deciding while its last buckets are on the way.
    MoveWithoutFreeze,
    /// Buckets of an earlier epoch of a slot are taken for its last.
    NoEpochFence,
    /// A vote is not synced to the disk before it is given.
    VoteNotSynced,
    /// Linearizable reads do not ask the leader.
    StaleReads,
    /// What a carved rule lends to nodes that know no owner was not carved out of what its owner may admit.
    ShareNotCarved,
    /// What was charged for a check that another owner denies is given back twice.
    ReturnedTwice,
    /// The frame of a refund comes twice, and counts twice.
    RefundRepeated,
    /// What comes from a peer is believed whether or not its seal fits.
    SealsNotChecked,
    /// A call is believed in whose name ever it is.
    SenderNotChecked,
    /// Terms and indices that no cluster comes to are believed.
    AbsurdBelieved,
    /// Shares of lost buckets divide by the nodes that own slots, not by those that give shares.
    SharesByOwners,
    /// A leader that nobody can open a connection to stays leader, and expires the others.
    UnreachableLeaderStays,
    /// A session is renewed for a node that does not apply the log.
    RenewalWithoutProgress,
    /// A leader that was stopped forgets whom it is expiring.
    StopForgetsExpiry,
    /// What has denied lately is forgotten, so that what others share is charged before it denies.
    DenialsForgotten,
    /// An owner decides by the limit that the asking node has found, though its own rules are newer.
    AskersLimit,
    /// A node without a cluster follows whoever sends it entries, until Raft says that it has some.
    AdoptionUndecided,
    /// Nobody asks the nodes of `--join` before a cluster is founded.
    FoundsUnasked,
    /// Nodes that only join are waited for when a cluster is founded.
    JoinersCount,
    /// All rules share one part of the memory, as if they were one.
    FloodSpills,
    /// A strict rule forgets the buckets for which there is no room.
    StrictForgets,
    /// What a strict rule has let go of does not go along when slots move.
    LetGoNotSent,
    /// A sliding log that is handed over again replaces what its new owner has admitted since.
    LogReplaced,
    /// A successor takes floors for its own although no rule had floors for a while since.
    OldFloorsCount,
    /// What is answered on a stream of the Raft group may take for ever.
    AnswersWithoutDeadline,
    /// Who begins from floors does not count what shares may have admitted meanwhile.
    SharesForgotten,
}

impl PlantedBug {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 31] = [
        ("no-session-wait", Self::NoSessionWait),
        ("new-leader-does-not-wait", Self::NewLeaderDoesNotWait),
        ("no-clock-margin", Self::NoClockMargin),
        ("renewal-not-bound", Self::RenewalNotBound),
        ("full-start", Self::FullStart),
        ("move-without-freeze", Self::MoveWithoutFreeze),
        ("no-epoch-fence", Self::NoEpochFence),
        ("vote-not-synced", Self::VoteNotSynced),
        ("stale-reads", Self::StaleReads),
        ("share-not-carved", Self::ShareNotCarved),
        ("returned-twice", Self::ReturnedTwice),
        ("refund-repeated", Self::RefundRepeated),
        ("seals-not-checked", Self::SealsNotChecked),
        ("sender-not-checked", Self::SenderNotChecked),
        ("absurd-believed", Self::AbsurdBelieved),
        ("shares-by-owners", Self::SharesByOwners),
        ("unreachable-leader-stays", Self::UnreachableLeaderStays),
        ("renewal-without-progress", Self::RenewalWithoutProgress),
        ("stop-forgets-expiry", Self::StopForgetsExpiry),
        ("denials-forgotten", Self::DenialsForgotten),
        ("askers-limit", Self::AskersLimit),
        ("adoption-undecided", Self::AdoptionUndecided),
        ("founds-unasked", Self::FoundsUnasked),
        ("joiners-count", Self::JoinersCount),
        ("flood-spills", Self::FloodSpills),
        ("strict-forgets", Self::StrictForgets),
        ("let-go-not-sent", Self::LetGoNotSent),
        ("log-replaced", Self::LogReplaced),
        ("old-floors-count", Self::OldFloorsCount),
        ("answers-without-deadline", Self::AnswersWithoutDeadline),
        ("shares-forgotten", Self::SharesForgotten),
    ];

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, bug)| bug)
    }

    /// Whether it is there. Without the feature: never, and nothing is asked.
    #[cfg(not(feature = "planted-bugs"))]
    #[inline(always)]
    pub(crate) const fn is_on(self) -> bool {
        false
    }

    /// Whether it is there.
    #[cfg(feature = "planted-bugs")]
    #[inline]
    pub(crate) fn is_on(self) -> bool {
        on() == Some(self)
    }
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    /// That of a simulation on this thread, which the environment does not change.
    static HERE: std::cell::Cell<Option<PlantedBug>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on for what is simulated on this thread, which simulates once and ends.
#[cfg(feature = "planted-bugs")]
pub fn plant_here(bug: Option<PlantedBug>) {
    HERE.set(bug);
}

/// The one that is there.
///
/// # Panics
/// If the environment names one that there is not: a test would pass without it.
#[cfg(feature = "planted-bugs")]
pub fn on() -> Option<PlantedBug> {
    static OF_THE_PROCESS: std::sync::LazyLock<Option<PlantedBug>> = std::sync::LazyLock::new(|| {
        let name = std::env::var("TIDEGATE_PLANTED_BUG").ok().filter(|name| !name.is_empty())?;
        let names = PlantedBug::ALL.map(|(name, _)| name).join(", ");
        Some(PlantedBug::named(&name).unwrap_or_else(|| {
            panic!("TIDEGATE_PLANTED_BUG={name}: there is no such bug; there are {names}")
        }))
    });
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return HERE.get();
    }
    HERE.get().or(*OF_THE_PROCESS)
}
