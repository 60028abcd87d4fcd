//! Which kinds of faults can be done here.

use super::Kind;
use crate::{disk, network::Form};

impl Kind {
    /// Why this kind can not be done in such a network on this machine; `None`: it can.
    fn hindrance(self, network: Form) -> Option<String> {
        match self {
            Self::Delay | Self::Reorder if network == Form::Namespaces => {
                Some("only proxies can do it (--network proxies)".to_owned())
            }
            Self::FullDisk => disk::hindrance().map(|why| format!("no small disk can be mounted: {why}")),
            _ => None,
        }
    }

    /// The kinds of a list (see [`Kind::parse_list`]) that can be done in such a network on this machine, and of those that it
    /// names only together with others, as `all` does, why they are left out.
    ///
    /// # Errors
    /// With the part that names none, or the one that can not be done.
    pub fn parse_possible(text: &str, network: Form) -> Result<(Vec<Self>, Vec<String>), String> {
        let (mut kinds, mut left_out) = (Vec::new(), Vec::new());
        for kind in Self::parse_list(text)? {
            match kind.hindrance(network) {
                None => kinds.push(kind),
                Some(why) if text.split(',').any(|part| part.trim() == kind.name()) => {
                    return Err(format!("{} is not possible here: {why}", kind.name()));
                }
                Some(why) => left_out.push(format!("{}: {why}", kind.name())),
            }
        }
        Ok((kinds, left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_namespaces_can_not_do_is_left_out_of_all_with_the_reason_and_refused_by_name() {
        let (kinds, left_out) = Kind::parse_possible("all", Form::Namespaces).unwrap();
        assert!(!kinds.contains(&Kind::Delay) && kinds.contains(&Kind::Loss));
        assert!(left_out.iter().any(|one| one.contains("reorder: only proxies")), "{left_out:?}");
        assert!(Kind::parse_possible("kill,delay", Form::Namespaces).unwrap_err().contains("--network"));
        let (kinds, left_out) = Kind::parse_possible("delay,reorder", Form::Proxies).unwrap();
        assert_eq!((kinds.len(), left_out.len()), (2, 0));
    }
}
