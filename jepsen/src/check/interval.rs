//! The interval that admits most, of all intervals at once.
//!
//! Each admitted check was decided between its question and its answer. What is sure of an interval is that the checks whose
//! question and answer both lie in it were decided in it. A limit admits so much in an interval of its length, and an
//! *allowance* is what it may admit beyond that in each interval that meets the allowance's own: a unit that was given back, what
//! a partition adds.
//!
//! For each interval from a question to an answer this looks at `cost inside - rate * length - allowances that meet it`, and
//! finds the largest, in O(n log n). The allowances that do *not* meet an interval are those that ended before its beginning and
//! those that began after its end; none is both. So what an interval needs is a sum of what belongs to its beginning and what
//! belongs to its end, and a tree over the beginnings tells the worst one for each end.
//!
//! It never raises a false alarm, and misses nothing that is sure of an interval.

/// An admitted check: decided in between, at this cost. Costs are in steps, of which so many refill in a nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) steps: i128,
}

/// What each interval that meets this one may admit beyond its length's due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) from: u64,
    /// `u64::MAX`: it may be at any time from then on.
    pub(crate) to: u64,
    pub(crate) steps: i128,
}

/// Allowances, so that those that meet an interval are quickly summed up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowances {
    /// When each begins, with what all of them up to it add.
    begun: Vec<(u64, i128)>,
    /// When each ends, with what all of them up to it add.
    ended: Vec<(u64, i128)>,
}

impl Allowances {
    pub(crate) fn new(all: &[Allowance]) -> Self {
        let summed = |of: fn(&Allowance) -> u64| {
            let mut times: Vec<(u64, i128)> = all.iter().map(|one| (of(one), one.steps)).collect();
            times.sort_unstable();
            let mut sum = 0;
            for (_, steps) in &mut times {
                sum += *steps;
                *steps = sum;
            }
            times
        };
        Self { begun: summed(|one| one.from), ended: summed(|one| one.to) }
    }

    /// So many times what each adds.
    pub(crate) fn times(&self, factor: i128) -> Self {
        let scaled = |times: &[(u64, i128)]| times.iter().map(|(at, sum)| (*at, sum * factor)).collect();
        Self { begun: scaled(&self.begun), ended: scaled(&self.ended) }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.begun.is_empty()
    }

    fn sum(times: &[(u64, i128)], is_before: impl Fn(u64) -> bool) -> i128 {
        let count = times.partition_point(|(at, _)| is_before(*at));
        count.checked_sub(1).map_or(0, |last| times[last].1)
    }

    fn ended_before(&self, at: u64) -> i128 {
        Self::sum(&self.ended, |end| end < at)
    }

    fn begun_until(&self, at: u64) -> i128 {
        Self::sum(&self.begun, |begin| begin <= at)
    }

    /// What those add that meet an interval.
    pub(crate) fn meeting(&self, from: u64, to: u64) -> i128 {
        self.begun_until(to) - self.ended_before(from)
    }
}

/// An interval, and what it needs that its length and its allowances do not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) steps: i128,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// The interval that needs most; of those that are shorter than something, if that is said. The jobs are sorted by `from`.
pub(crate) fn neediest(
    jobs: &[Job],
    allowances: &Allowances,
    steps_per_ns: i128,
    shorter_than: Option<u64>,
) -> Option<Needs> {
    debug_assert!(jobs.is_sorted_by_key(|job| job.from));
    let mut ends: Vec<usize> = (0..jobs.len()).collect();
    ends.sort_unstable_by_key(|place| jobs[*place].to);
    let mut beginnings = Beginnings::new(jobs.len());
    let (mut begun, mut too_long) = (0, 0);
    let mut worst: Option<Needs> = None;
    for place in ends {
        let to = jobs[place].to;
        while let Some(job) = jobs.get(begun).filter(|job| job.from <= to) {
            // Earlier ends are in no interval that begins here: they were before it.
            let own = allowances.ended_before(job.from) + i128::from(job.from) * steps_per_ns;
            beginnings.begin(begun, own);
            begun += 1;
        }
        if let Some(length) = shorter_than {
            while jobs
                .get(too_long)
                .is_some_and(|job| too_long < begun && job.from.saturating_add(length) <= to)
            {
                beginnings.end(too_long);
                too_long += 1;
            }
        }
        beginnings.add_up_to(place, jobs[place].steps);
        let Some((most, beginning)) = beginnings.most() else { continue };
        let steps = most - allowances.begun_until(to) - i128::from(to) * steps_per_ns;
        if worst.is_none_or(|known| steps > known.steps) {
            worst = Some(Needs { steps, from: jobs[beginning].from, to });
        }
    }
    worst
}

/// For each interval that has begun what it needs, but for what belongs to its end: a tree of maxima.
struct Beginnings {
    leaves: usize,
    /// The most of each subtree, without what its ancestors add, and where it is; `None`: nothing has begun there.
    most: Vec<Option<(i128, usize)>>,
    /// What counts for all of a subtree.
    adds: Vec<i128>,
}

impl Beginnings {
    fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        Self { leaves, most: vec![None; 2 * leaves], adds: vec![0; 2 * leaves] }
    }

    /// An interval begins at this place.
    fn begin(&mut self, place: usize, value: i128) {
        let node = self.leaves + place;
        // What was added before is not about it.
        let mut ancestor = node / 2;
        let mut added = 0;
        while ancestor > 0 {
            added += self.adds[ancestor];
            ancestor /= 2;
        }
        self.put(node, Some((value - added, place)));
    }

    /// None that begins there counts any more.
    fn end(&mut self, place: usize) {
        self.put(self.leaves + place, None);
    }

    fn put(&mut self, mut node: usize, value: Option<(i128, usize)>) {
        self.most[node] = value;
        while node > 1 {
            node /= 2;
            self.pull(node);
        }
    }

    /// Adds to all places up to this one, and to it.
    fn add_up_to(&mut self, place: usize, value: i128) {
        let mut node = self.leaves + place;
        self.add(node, value);
        while node > 1 {
            if node % 2 == 1 {
                self.add(node - 1, value);
            }
            node /= 2;
            self.pull(node);
        }
    }

    fn most(&self) -> Option<(i128, usize)> {
        self.most[1]
    }

    fn add(&mut self, node: usize, value: i128) {
        self.adds[node] += value;
        if let Some((most, _)) = &mut self.most[node] {
            *most += value;
        }
    }

    fn pull(&mut self, node: usize) {
        let better = self.most[2 * node].max(self.most[2 * node + 1]);
        self.most[node] = better.map(|(most, place)| (most + self.adds[node], place));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::check) fn sorted(mut jobs: Vec<Job>) -> Vec<Job> {
        jobs.sort_unstable_by_key(|job| job.from);
        jobs
    }

    /// All intervals, one after the other.
    fn slowly(
        jobs: &[Job],
        allowances: &[Allowance],
        per_ns: i128,
        shorter_than: Option<u64>,
    ) -> Option<i128> {
        let mut most = None;
        for from in jobs.iter().map(|job| job.from) {
            for to in jobs.iter().map(|job| job.to) {
                if to < from || shorter_than.is_some_and(|length| to - from >= length) {
                    continue;
                }
                let inside = jobs.iter().filter(|job| job.from >= from && job.to <= to);
                let meet = allowances.iter().filter(|one| one.from <= to && one.to >= from);
                let needs = inside.clone().map(|job| job.steps).sum::<i128>()
                    - meet.map(|one| one.steps).sum::<i128>()
                    - i128::from(to - from) * per_ns;
                if inside.count() > 0 {
                    most = most.max(Some(needs));
                }
            }
        }
        most
    }

    pub(in crate::check) fn any_jobs() -> impl Strategy<Value = Vec<Job>> {
        let job = (0u64..60, 0u64..9, 1i128..4).prop_map(|(from, took, steps)| Job {
            from,
            to: from + took,
            steps,
        });
        prop::collection::vec(job, 0..25).prop_map(sorted)
    }

    fn any_allowances() -> impl Strategy<Value = Vec<Allowance>> {
        let end = prop_oneof![(0u64..20).prop_map(Some), Just(None)];
        let one = (0u64..70, end, 0i128..4).prop_map(|(from, took, steps)| Allowance {
            from,
            to: took.map_or(u64::MAX, |took| from + took),
            steps,
        });
        prop::collection::vec(one, 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn all_intervals_at_once_are_each_interval_by_itself(
            jobs in any_jobs(),
            allowances in any_allowances(),
            per_ns in 0i128..3,
            shorter_than in prop::option::of(1u64..30),
        ) {
            let sums = Allowances::new(&allowances);
            let found = neediest(&jobs, &sums, per_ns, shorter_than);
            let slowly = slowly(&jobs, &allowances, per_ns, shorter_than);
            // An interval in which nothing lies is no matter: it needs nothing.
            prop_assert_eq!(found.map_or(0, |one| one.steps.max(0)), slowly.unwrap_or(0).max(0));
            if let Some(Needs { steps, from, to }) = found {
                let inside = jobs.iter().filter(|job| job.from >= from && job.to <= to);
                let inside: i128 = inside.map(|job| job.steps).sum();
                let length = i128::from(to - from) * per_ns;
                prop_assert_eq!(steps, inside - length - sums.meeting(from, to));
            }
        }
    }
}
