//! Is there an order of the operations on one register that explains all answers, and in which each operation happens
//! between its call and its answer?
//!
//! The search of Wing and Gong (1993) with the memory of Lowe (2017): an operation may be next in the order if no other one
//! had its answer before it was called; a set of operations that led to a value once need not be tried again. Operations
//! whose answer was lost may happen at any time after their call, or never.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// What an operation did, as its answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// It wrote this value.
    Write(u64),
    /// It wrote the second value where the first was.
    Swap(Option<u64>, u64),
    /// It would have written where this value was, which it was not.
    SwapRefused(Option<u64>),
    /// It read this.
    Read(Option<u64>),
}

/// An operation on the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub called: u64,
    /// When its answer was there; `None`: it was lost.
    pub answered: Option<u64>,
    /// What it did, or would have done.
    pub act: Act,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. The longest order that explains a beginning gets to these operations, by their places.
    Violated {
        /// Of which none can be next.
        stuck_at: Vec<usize>,
    },
    /// It was not found out within the steps that were allowed.
    Undecided,
}

/// Searches for an order, from an empty register on, in at most `steps` steps.
pub fn check(operations: &[Operation], steps: u64) -> Verdict {
    let mut search = Search::new(operations);
    search.run(steps)
}

/// What a value becomes; `None` if the operation cannot be next.
fn step(value: Option<u64>, act: &Act) -> Option<Option<u64>> {
    match act {
        Act::Write(new) => Some(Some(*new)),
        Act::Swap(from, new) => (value == *from).then_some(Some(*new)),
        Act::SwapRefused(from) => (value != *from).then_some(value),
        Act::Read(seen) => (value == *seen).then_some(value),
    }
}

/// A call or an answer; those that are not yet in the order form a list by time.
#[derive(Debug, Clone, Copy)]
struct Event {
    operation: usize,
    is_call: bool,
    next: usize,
    previous: usize,
}

const HEAD: usize = 0;

struct Search<'o> {
    operations: &'o [Operation],
    events: Vec<Event>,
    /// Where the answer of an operation stands in `events`.
    answers: Vec<usize>,
    value: Option<u64>,
    done: Vec<u64>,
    /// Operations with an answer that are not in the order yet.
    left: usize,
}

impl<'o> Search<'o> {
    fn new(operations: &'o [Operation]) -> Self {
        // At the same instant calls come first: then the two overlap, which only allows more.
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
        for (place, operation) in operations.iter().enumerate() {
            times.push((operation.called, false, place));
            times.push((operation.answered.unwrap_or(u64::MAX), true, place));
        }
        times.sort_unstable();
        let mut events = vec![Event { operation: 0, is_call: false, next: 1, previous: 0 }];
        let mut answers = vec![0; operations.len()];
        for (index, (_, is_answer, operation)) in times.iter().enumerate() {
            let place = index + 1;
            if *is_answer {
                answers[*operation] = place;
            }
            events.push(Event {
                operation: *operation,
                is_call: !is_answer,
                next: place + 1,
                previous: index,
            });
        }
        // The end of the list is the head again.
        let last = events.len() - 1;
        events[last].next = HEAD;
        events[HEAD].previous = last;
        let left = operations.iter().filter(|operation| operation.answered.is_some()).count();
        let done = vec![0; operations.len().div_ceil(64)];
        Self { operations, events, answers, value: None, done, left }
    }

    fn run(&mut self, steps: u64) -> Verdict {
        let mut tried: HashSet<(Vec<u64>, Option<u64>)> = HashSet::new();
        let mut order: Vec<(usize, Option<u64>)> = Vec::new();
        let mut longest = (0, Vec::new());
        let mut at = self.events[HEAD].next;
        for _ in 0..steps {
            if self.left == 0 {
                return Verdict::Linearizable;
            }
            let event = self.events[at];
            if at != HEAD && event.is_call {
                let next = step(self.value, &self.operations[event.operation].act);
                self.flip(event.operation);
                let fresh = next.is_some_and(|value| tried.insert((self.done.clone(), value)));
                if let (Some(value), true) = (next, fresh) {
                    order.push((at, self.value));
                    self.value = value;
                    self.take(at);
                    at = self.events[HEAD].next;
                } else {
                    self.flip(event.operation);
                    at = event.next;
                }
                continue;
            }
            // Nothing more can come before this answer: an earlier choice was wrong.
            if order.len() >= longest.0 {
                longest = (order.len(), self.open());
            }
            let Some((call, before)) = order.pop() else { return Verdict::Violated { stuck_at: longest.1 } };
            self.value = before;
            self.flip(self.events[call].operation);
            self.put_back(call);
            at = self.events[call].next;
        }
        Verdict::Undecided
    }

    /// The operations of which one would have to be next.
    fn open(&self) -> Vec<usize> {
        let mut open = Vec::new();
        let mut at = self.events[HEAD].next;
        while at != HEAD && self.events[at].is_call {
            open.push(self.events[at].operation);
            at = self.events[at].next;
        }
        open
    }

    fn flip(&mut self, operation: usize) {
        self.done[operation / 64] ^= 1 << (operation % 64);
    }

    fn take(&mut self, call: usize) {
        let operation = self.events[call].operation;
        for place in [call, self.answers[operation]] {
            let Event { next, previous, .. } = self.events[place];
            self.events[previous].next = next;
            self.events[next].previous = previous;
        }
        self.left -= usize::from(self.operations[operation].answered.is_some());
    }

    fn put_back(&mut self, call: usize) {
        let operation = self.events[call].operation;
        for place in [self.answers[operation], call] {
            let Event { next, previous, .. } = self.events[place];
            self.events[previous].next = place;
            self.events[next].previous = place;
        }
        self.left += usize::from(self.operations[operation].answered.is_some());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op(called: u64, answered: u64, act: Act) -> Operation {
        Operation { called, answered: Some(answered), act }
    }

    fn lost(called: u64, act: Act) -> Operation {
        Operation { called, answered: None, act }
    }

    fn holds(operations: &[Operation]) -> bool {
        match check(operations, 1_000_000) {
            Verdict::Linearizable => true,
            Verdict::Violated { .. } => false,
            Verdict::Undecided => panic!("too many steps"),
        }
    }

    #[test]
    fn what_happens_one_after_the_other_is_read_as_it_was_written() {
        assert!(holds(&[op(0, 1, Act::Read(None)), op(2, 3, Act::Write(1)), op(4, 5, Act::Read(Some(1)))]));
        assert!(holds(&[]));
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(!holds(&[op(0, 1, Act::Write(1)), op(2, 3, Act::Write(2)), op(4, 5, Act::Read(Some(1)))]));
        assert!(holds(&[op(0, 1, Act::Write(1)), op(2, 5, Act::Write(2)), op(3, 4, Act::Read(Some(1)))]));
    }

    #[test]
    fn reads_that_go_back_in_time_are_found() {
        let concurrent = [op(0, 9, Act::Write(1)), op(1, 9, Act::Write(2))];
        let reads =
            [op(2, 3, Act::Read(Some(1))), op(4, 5, Act::Read(Some(2))), op(6, 7, Act::Read(Some(1)))];
        assert!(!holds(&[&concurrent[..], &reads].concat()));
        assert!(holds(&[&concurrent[..], &reads[..2]].concat()));
    }

    #[test]
    fn of_two_swaps_of_one_value_one_wins() {
        let first = op(0, 1, Act::Write(1));
        assert!(!holds(&[first.clone(), op(2, 5, Act::Swap(Some(1), 2)), op(3, 6, Act::Swap(Some(1), 3))]));
        assert!(holds(&[
            first.clone(),
            op(2, 5, Act::Swap(Some(1), 2)),
            op(3, 6, Act::SwapRefused(Some(1)))
        ]));
        assert!(!holds(&[first, op(2, 3, Act::SwapRefused(Some(1)))]));
    }

    #[test]
    fn a_lost_update_is_found() {
        let history =
            [op(0, 1, Act::Swap(None, 1)), op(2, 3, Act::Write(2)), op(4, 5, Act::Swap(Some(1), 3))];
        assert!(!holds(&history));
    }

    #[test]
    fn a_lost_answer_may_mean_anything_but_not_two_things() {
        let write = lost(2, Act::Write(2));
        let first = op(0, 1, Act::Write(1));
        assert!(holds(&[first.clone(), write.clone(), op(5, 6, Act::Read(Some(1)))]));
        assert!(holds(&[first.clone(), write.clone(), op(5, 6, Act::Read(Some(2)))]));
        let late = [op(5, 6, Act::Read(Some(1))), op(7, 8, Act::Read(Some(2)))];
        assert!(holds(&[&[first.clone(), write.clone()][..], &late].concat()));
        let both = [op(5, 6, Act::Read(Some(2))), op(7, 8, Act::Read(Some(1)))];
        assert!(!holds(&[&[first.clone(), write][..], &both].concat()));
        // Nothing is read before it was called.
        assert!(!holds(&[first, op(2, 3, Act::Read(Some(2))), lost(4, Act::Write(2))]));
    }

    #[test]
    fn too_few_steps_are_no_verdict() {
        assert_eq!(check(&[op(0, 1, Act::Write(1))], 0), Verdict::Undecided);
    }

    /// Tries all orders.
    fn brute_force(operations: &[Operation], value: Option<u64>, left: u32) -> bool {
        let answered =
            (0..operations.len()).filter(|i| left & 1 << i != 0 && operations[*i].answered.is_some());
        let Some(first_answer) = answered.filter_map(|i| operations[i].answered).min() else { return true };
        (0..operations.len()).any(|i| {
            left & 1 << i != 0
                && operations[i].called <= first_answer
                && step(value, &operations[i].act)
                    .is_some_and(|value| brute_force(operations, value, left & !(1 << i)))
        })
    }

    fn any_operation() -> impl Strategy<Value = Operation> {
        let value = prop_oneof![Just(None), (0u64..3).prop_map(Some)];
        let act = prop_oneof![
            (0u64..3).prop_map(Act::Write),
            (value.clone(), 0u64..3).prop_map(|(from, to)| Act::Swap(from, to)),
            value.clone().prop_map(Act::SwapRefused),
            value.prop_map(Act::Read),
        ];
        (0u64..20, 1u64..8, act, 0u8..6).prop_map(|(called, length, act, lost)| Operation {
            called,
            answered: (lost > 0).then_some(called + length),
            act,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_says_what_trying_all_orders_says(operations in proptest::collection::vec(any_operation(), 0..7)) {
            prop_assert_eq!(holds(&operations), brute_force(&operations, None, (1 << operations.len()) - 1));
        }

        #[test]
        fn what_a_real_register_answered_is_accepted(
            plan in proptest::collection::vec((0u64..4, 0u64..6, 0u64..6, 0u64..3), 1..200)
        ) {
            // Each happens at an instant of its own; call and answer lie around it.
            let mut value = None;
            let operations: Vec<Operation> = plan.iter().enumerate().map(|(place, (kind, before, after, new))| {
                let at = 10 * place as u64 + 100;
                let act = match kind {
                    0 => { value = Some(place as u64); Act::Write(place as u64) }
                    1 => { let from = value; value = Some(place as u64); Act::Swap(from, place as u64) }
                    2 => if value == Some(*new) { Act::Read(value) } else { Act::SwapRefused(Some(*new)) },
                    _ => Act::Read(value),
                };
                op(at - 7 * before, at + 7 * after + 1, act)
            }).collect();
            prop_assert!(holds(&operations));
        }
    }
}
