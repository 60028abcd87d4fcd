//! The values of one attribute, divided by patterns: in each cell all values fit the same patterns, so nginx decides the same
//! about them. Cells about which it decides the same become tests of a rule.

use ipnet::IpNet;

use super::pattern::{Pattern, Test};

/// Patterns of one attribute.
pub(super) const MAX_PATTERNS: usize = 20_000;

/// Exact values, prefixes and networks are nested in each other or have nothing in common: a tree. Endings divide the values
/// once more.
#[derive(Debug)]
pub(super) struct Space {
    /// Each after those that contain it.
    nodes: Vec<Pattern>,
    /// The empty one first, then shorter before longer ones.
    ends: Vec<String>,
}

/// Values that fit a node, none of its children, and an ending, but no longer one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'s> {
    node: &'s Pattern,
    end: &'s str,
    place: usize,
}

impl Cell<'_> {
    /// The exact value, prefix or network that the cell is what is left of.
    pub(super) fn node(&self) -> &Pattern {
        self.node
    }

    /// Its place among the [cells](Space::places) of its space.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Whether the values of the cell fit a pattern of its space.
    pub(super) fn fits(&self, pattern: &Pattern) -> bool {
        match (pattern, self.node) {
            (Pattern::Like { start, end }, Pattern::Like { start: own, .. }) => {
                own.starts_with(start) && self.end.ends_with(end)
            }
            (pattern, node) => pattern.contains(node),
        }
    }
}

impl Space {
    /// `None`: too many patterns. Those that begin and end somehow are not for this.
    pub(super) fn new<'p>(patterns: impl IntoIterator<Item = &'p Pattern>) -> Option<Self> {
        let (mut tree, mut ends) = (Vec::new(), vec![String::new()]);
        for pattern in patterns {
            match pattern {
                Pattern::Like { start, end } if !end.is_empty() => {
                    ends.push(end.clone());
                    tree.push(Pattern::prefix(start.clone()));
                }
                other => tree.push(other.clone()),
            }
        }
        if tree.len() > MAX_PATTERNS {
            return None;
        }
        // Each after those that contain it.
        let order = |pattern: &Pattern| match pattern {
            Pattern::Like { start, .. } => (0, start.clone().into_bytes(), 0),
            Pattern::Exact(text) => (0, text.clone().into_bytes(), 1),
            Pattern::Network(IpNet::V4(net)) => (1, net.network().octets().to_vec(), net.prefix_len()),
            Pattern::Network(IpNet::V6(net)) => (2, net.network().octets().to_vec(), net.prefix_len()),
        };
        tree.push(Pattern::any());
        tree.extend(overlaps(&tree, &ends));
        tree.sort_by_cached_key(order);
        tree.dedup();
        ends.sort_by_key(|end| (end.len(), end.clone()));
        ends.dedup();
        Some(Self { nodes: tree, ends })
    }

    /// `None`: no value is there.
    fn cell(&self, node: usize, end: usize) -> Option<Cell<'_>> {
        let pattern = &self.nodes[node];
        let is_there = match pattern {
            Pattern::Exact(text) => {
                self.ends.iter().rposition(|end| text.ends_with(end)).is_some_and(|own| own == end)
            }
            Pattern::Network(_) => end == 0,
            Pattern::Like { .. } => true,
        };
        let place = end * self.nodes.len() + node;
        is_there.then(|| Cell { node: pattern, end: &self.ends[end], place })
    }

    /// All cells, by their places; `None`: no value is there.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<Cell<'_>>> {
        let nodes = self.nodes.len();
        (0..self.ends.len() * nodes).map(move |place| self.cell(place % nodes, place / nodes))
    }

    /// The classes that cells are of, each with the tests that its values fit: each value fits one of them once.
    pub(super) fn split<C: PartialEq>(&self, class: impl Fn(&Cell<'_>) -> C) -> Vec<(C, Vec<Test>)> {
        let mut classes: Vec<C> = Vec::new();
        let mut number = |cell: &Cell<'_>| {
            let class = class(cell);
            classes.iter().position(|known| *known == class).unwrap_or_else(|| {
                classes.push(class);
                classes.len() - 1
            })
        };
        // By ending and node; `None`: there is no such cell.
        let table: Vec<Option<usize>> = self.places().map(|cell| cell.map(|cell| number(&cell))).collect();
        let tests = |wanted: usize| {
            let nodes = self.nodes.len();
            self.tests_of(&|end, node| table[end * nodes + node].map(|class| class == wanted))
        };
        classes.into_iter().enumerate().map(|(number, class)| (class, tests(number))).collect()
    }

    /// The tests of one class.
    fn tests_of(&self, is_in: &impl Fn(usize, usize) -> Option<bool>) -> Vec<Test> {
        let is_exact = |node: usize| matches!(self.nodes[node], Pattern::Exact(_));
        let differs = |end: usize| {
            (0..self.nodes.len()).any(|node| {
                !is_exact(node) && is_in(end, node).is_some_and(|own| is_in(0, node) != Some(own))
            })
        };
        let mut apart: Vec<bool> = (0..self.ends.len()).map(differs).collect();
        for end in 1..self.ends.len() {
            // Within what is told apart, nothing is as it is around that.
            let within = |other: usize| apart[other] && self.ends[end].ends_with(&self.ends[other]);
            apart[end] |= (1..end).any(within);
        }
        let mut tests = Vec::new();
        for group in (0..self.ends.len()).filter(|end| *end == 0 || apart[*end]) {
            let group_of = |end: usize| if apart[end] { end } else { 0 };
            let in_group = |node: usize| {
                if is_exact(node) {
                    let own = (0..self.ends.len()).find(|end| is_in(*end, node).is_some())?;
                    return if group_of(own) == group { is_in(own, node) } else { None };
                }
                is_in(group, node)
            };
            for mut test in self.tests(group, &in_group) {
                for (end, text) in self.ends.iter().enumerate() {
                    let inner = Pattern::suffix(text.clone());
                    let is_met = test.any_of.is_empty() || test.any_of.iter().any(|one| one.meets(&inner));
                    if apart[end] && end != group && text.ends_with(&self.ends[group]) && is_met {
                        test.none_of.push(inner);
                    }
                }
                tests.push(test);
            }
        }
        // As few as can say it.
        let mut joined: Vec<Test> = Vec::new();
        for test in tests {
            match joined.iter_mut().find_map(|known| known.or(&test).map(|both| (known, both))) {
                Some((known, both)) => *known = both,
                None => joined.push(test),
            }
        }
        joined
    }

    /// Of one ending: from the root down, where the class begins and where it ends.
    fn tests(&self, end: usize, is_in: &impl Fn(usize) -> Option<bool>) -> Vec<Test> {
        let pattern = |node: usize| match &self.nodes[node] {
            Pattern::Like { start, .. } => {
                Pattern::Like { start: start.clone(), end: self.ends[end].clone() }
            }
            other => other.clone(),
        };
        // By how often the class has begun on the way: what begins again inside of what has ended is another test.
        let mut levels: Vec<Test> = Vec::new();
        // The nodes around one: how they are written, whether they are in, and how often that has begun.
        let mut around: Vec<(usize, Pattern, bool, usize)> = Vec::new();
        for node in 0..self.nodes.len() {
            while around.last().is_some_and(|(last, ..)| !self.nodes[*last].contains(&self.nodes[node])) {
                around.pop();
            }
            let written = pattern(node);
            // A value that begins and ends as it should can be too short for both.
            let outer = around.iter().rev().find(|(_, outer, ..)| outer.contains(&written));
            let (was_in, begun) = outer.map_or((false, 0), |(.., is_in, begun)| (*is_in, *begun));
            let now_in = is_in(node).unwrap_or(was_in);
            let begun = begun + usize::from(now_in && !was_in);
            if now_in && !was_in {
                if levels.len() < begun {
                    levels.resize_with(begun, Test::default);
                }
                levels[begun - 1].any_of.push(written.clone());
            } else if was_in && !now_in {
                levels[begun - 1].none_of.push(written.clone());
            }
            around.push((node, written, now_in, begun));
        }
        for level in &mut levels {
            // All values: that need not be said, and holds where there is none, too.
            if level.any_of == [Pattern::any()] {
                level.any_of.clear();
            }
        }
        levels
    }
}
/// Values that begin with a prefix and end with an ending, which have letters in common: `/a.php` of `/a.php` and `.php`. No
/// pattern for both fits them.
fn overlaps(tree: &[Pattern], ends: &[String]) -> Vec<Pattern> {
    let mut found = Vec::new();
    for pattern in tree {
        let Pattern::Like { start, .. } = pattern else { continue };
        for end in ends {
            for (place, _) in end.char_indices().skip(1).chain([(end.len(), ' ')]) {
                if !end.is_empty() && start.ends_with(&end[..place]) {
                    found.push(Pattern::Exact(format!("{start}{}", &end[place..])));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn fits(test: &Test, value: &str) -> bool {
        let value = Pattern::Exact(value.to_owned());
        let fits = |one: &Pattern| one.contains(&value);
        (test.any_of.is_empty() || test.any_of.iter().any(fits)) && !test.none_of.iter().any(fits)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            "[ab]{0,4}".prop_map(Pattern::Exact),
            "[ab]{0,3}".prop_map(Pattern::prefix),
            "[ab]{1,2}".prop_map(Pattern::suffix),
            ("[ab]{1,2}", "[ab]{1,2}").prop_map(|(start, end)| Pattern::Like { start, end }),
        ]
    }

    proptest! {
        /// The first pattern that fits decides, as among regular expressions; any other way to decide is one of these.
        #[test]
        fn each_value_fits_one_test_of_its_class(
            patterns in vec(pattern(), 0..5),
            classes in vec(0..3, 6),
            value in "[ab]{0,6}",
        ) {
            let space = Space::new(&patterns).unwrap();
            let value_pattern = Pattern::Exact(value.clone());
            let decide = |fits: &dyn Fn(&Pattern) -> bool| {
                classes[patterns.iter().position(fits).unwrap_or(patterns.len())]
            };
            let expected = decide(&|pattern| pattern.contains(&value_pattern));
            let split = space.split(|cell| decide(&|pattern| cell.fits(pattern)));
            for (class, tests) in &split {
                let count = tests.iter().filter(|test| fits(test, &value)).count();
                prop_assert_eq!(count, usize::from(*class == expected), "{} {:?}", class, tests);
            }
        }
    }

    #[test]
    fn what_begins_again_within_an_exception_is_a_test_of_its_own() {
        let patterns = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"];
        let patterns = patterns.map(|text| Pattern::Network(text.parse().unwrap()));
        let space = Space::new(&patterns).unwrap();
        let split = space.split(|cell| {
            let longest = patterns.iter().rposition(|pattern| cell.fits(pattern));
            longest.is_some_and(|place| place != 1)
        });
        let tests = &split.iter().find(|(class, _)| *class).unwrap().1;
        let of = |any_of: usize, none_of: &[usize]| Test {
            any_of: vec![patterns[any_of].clone()],
            none_of: none_of.iter().map(|place| patterns[*place].clone()).collect(),
        };
        assert_eq!(*tests, [of(0, &[1]), of(2, &[])]);
    }
}
