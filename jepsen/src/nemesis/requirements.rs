//! Which kinds of faults can be done here.

use super::Kind;
use crate::{disk, names, network::Form};

/// What a run has to do faults with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// What lies between the nodes.
    pub network: Form,
    /// Whether the node's program does to its clock and disk what it is told ([`crate::machine::follows_orders`]).
    pub follows_orders: bool,
    /// Whether there is another build to upgrade to.
    pub other_build: bool,
}

impl Kind {
    /// Why this kind cannot be done with these means on this machine; `None`: it can.
    fn hindrance(self, means: &Means) -> Option<String> {
        match self {
            Self::Delay | Self::Reorder | Self::LostAnswers | Self::FarApart
                if means.network == Form::Namespaces =>
            {
                Some("only proxies can do it (--network proxies)".to_owned())
            }
            Self::FullDisk => disk::hindrance().map(|why| format!("no small disk can be mounted: {why}")),
            // A node with a loopback address refuses to be told of others by names, which it takes for those of other machines.
            Self::LateDns if means.network == Form::Proxies => Some(
                "nodes on loopback addresses are told of each other by addresses (--network namespaces)"
                    .to_owned(),
            ),
            Self::LateDns => names::hindrance()
                .map(|why| format!("names of a node cannot be replaced, which needs leave to mount: {why}")),
            Self::Upgrade if !means.other_build => Some("there is no --other-binary".to_owned()),
            kind if kind.needs_orders() && !means.follows_orders => Some(
                "the node's program has no fault injection (without --binary one is built that has)"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The kinds of a list (see [`Kind::parse_list`]) that can be done with these means on this machine, and of those that it
    /// names only together with others, as `all` does, why they are left out.
    ///
    /// # Errors
    /// With the part that names none, or the one that cannot be done.
    pub fn parse_possible(text: &str, means: &Means) -> Result<(Vec<Self>, Vec<String>), String> {
        let mut kinds = Vec::new();
        // Those with the same reason together.
        let mut left_out: Vec<(String, Vec<&str>)> = Vec::new();
        for kind in Self::parse_list(text)? {
            match kind.hindrance(means) {
                None => kinds.push(kind),
                Some(why) if text.split(',').any(|part| part.trim() == kind.name()) => {
                    return Err(format!("{} is not possible here: {why}", kind.name()));
                }
                Some(why) => match left_out.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, names)) => names.push(kind.name()),
                    None => left_out.push((why, vec![kind.name()])),
                },
            }
        }
        let reasons = left_out.iter().map(|(why, names)| format!("{}: {why}", names.join(", ")));
        Ok((kinds, reasons.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Means = Means { network: Form::Namespaces, follows_orders: false, other_build: false };

    #[test]
    fn what_namespaces_cannot_do_is_left_out_of_all_with_the_reason_and_refused_by_name() {
        let (kinds, left_out) = Kind::parse_possible("all", &BARE).unwrap();
        assert!(!kinds.contains(&Kind::Delay) && kinds.contains(&Kind::Loss));
        assert!(
            left_out.iter().any(|one| one.contains("reorder, lost-answers, far-apart: only proxies")),
            "{left_out:?}"
        );
        assert!(Kind::parse_possible("kill,delay", &BARE).unwrap_err().contains("--network"));
        let proxies = Means { network: Form::Proxies, ..BARE };
        assert!(Kind::parse_possible("late-dns", &proxies).unwrap_err().contains("namespaces"));
        let (kinds, _) = Kind::parse_possible("all", &proxies).unwrap();
        assert!(kinds.contains(&Kind::ReuseAddress) && !kinds.contains(&Kind::LateDns));
        let (kinds, left_out) = Kind::parse_possible("delay,reorder", &proxies).unwrap();
        assert_eq!((kinds.len(), left_out.len()), (2, 0));
    }

    #[test]
    fn what_a_program_cannot_do_to_its_machine_is_left_out_of_all_and_refused_by_name() {
        let (kinds, left_out) = Kind::parse_possible("all", &BARE).unwrap();
        assert!(!kinds.iter().any(|kind| kind.needs_orders() || *kind == Kind::Upgrade));
        let of_machines = "clock-jump, clock-drift, failed-fsync, torn-write, vm-stop, hung-fsync: the node's program has no fault injection";
        assert!(left_out.iter().any(|one| one.starts_with(of_machines)), "{left_out:?}");
        assert!(Kind::parse_possible("torn-write", &BARE).unwrap_err().contains("without --binary"));
        assert!(Kind::parse_possible("all,upgrade", &BARE).unwrap_err().contains("--other-binary"));
        let for_tests = Means { follows_orders: true, other_build: true, ..BARE };
        let (kinds, _) = Kind::parse_possible("all,clock-runaway", &for_tests).unwrap();
        assert!(kinds.contains(&Kind::TornWrite) && kinds.contains(&Kind::Upgrade));
        assert!(kinds.contains(&Kind::ClockRunaway));
        assert!(!Kind::parse_possible("all", &for_tests).unwrap().0.contains(&Kind::ClockRunaway));
    }
}
