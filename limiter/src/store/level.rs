//! Equal parts, and what some leave for others.

/// How many each may keep, so that all of them together keep at most `most`: those that have less keep all that they have, and
/// what they leave is for the others. So one that has no more than its part (`most` by the number of those that have any) keeps
/// it, however much others have.
pub fn level(counts: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut counts: Vec<usize> = counts.filter(|count| *count > 0).collect();
    counts.sort_unstable();
    let (mut left, mut others) = (most, counts.len());
    for count in counts {
        if count > left / others {
            return left / others;
        }
        left -= count;
        others -= 1;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_within_its_part_is_touched_and_all_together_fit(
            counts in prop::collection::vec(0usize..1_000, 1..20), most in 1usize..5_000,
        ) {
            let level = level(counts.iter().copied(), most);
            let kept: usize = counts.iter().map(|count| (*count).min(level)).sum();
            prop_assert!(kept <= most);
            let active = counts.iter().filter(|count| **count > 0).count().max(1);
            prop_assert!(counts.iter().all(|count| *count > most / active || *count <= level));
            if counts.iter().sum::<usize>() > most {
                prop_assert!(most - kept < active, "no room is left over");
            }
        }
    }
}
