//! Where the windows of a rule's limits lie: what a rule file says by `timezone` and `starts`.
//!
//! The file says a time zone for all limits that it changes. A rule says it for those of its own, and an override for itself. What
//! a rule or an override says must change something: who writes it means something by it.

use super::{
    compile::{Compiler, Written},
    error::Place,
    shape::RawPlacing,
};
use crate::{
    Limit,
    calendar::{starts::Starts, zone::Zone},
    limit::{LimitError, Placing},
};

/// What holds for a limit, and where the rule or the override says it itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    zone: Option<Zone>,
    starts: Option<Starts>,
    zone_at: Option<Place>,
    starts_at: Option<Place>,
    is_of_override: bool,
}

impl Places {
    /// What was written here.
    pub(super) fn own(&self) -> Placing {
        Placing {
            zone: self.zone.filter(|_| self.zone_at.is_some()),
            starts: self.starts.filter(|_| self.starts_at.is_some()),
        }
    }
}

impl Compiler<'_> {
    /// The time zone; `None`: none is said, or there is none of that name, which is reported.
    pub(super) fn zone(&mut self, written: Option<&Written>) -> Option<Zone> {
        let written = written?;
        let zone = Zone::named(&written.text);
        zone.map_err(|error| self.error(written.place, error.to_string(), "")).ok()
    }

    /// Of a rule, in a file with that time zone.
    pub(super) fn places(&mut self, raw: &RawPlacing, zone: Option<Zone>) -> Places {
        let file = Places { zone, starts: None, zone_at: None, starts_at: None, is_of_override: false };
        self.written_places(raw, &file)
    }

    /// Of an override, in a rule with these.
    pub(super) fn places_in(&mut self, raw: &RawPlacing, rule: &Places) -> Places {
        Places { is_of_override: true, ..self.written_places(raw, rule) }
    }

    fn written_places(&mut self, raw: &RawPlacing, outer: &Places) -> Places {
        let place = |written: &Option<Written>| written.as_ref().map(|written| written.place);
        let zone = self.zone(raw.timezone.as_ref());
        let starts = raw.starts.as_ref().and_then(|written| {
            let starts = written.text.parse::<Starts>();
            starts.map_err(|error| self.error(written.place, error.to_string(), "")).ok()
        });
        Places {
            zone_at: place(&raw.timezone).filter(|_| zone.is_some()),
            starts_at: place(&raw.starts).filter(|_| starts.is_some()),
            zone: zone.or(outer.zone),
            starts: starts.or(outer.starts),
            ..*outer
        }
    }

    /// The limit with its windows where they lie. What an override says of itself must change them.
    pub(super) fn place(&mut self, limit: Option<Limit>, places: &Places) -> Option<Limit> {
        let Some(own) = limit else {
            if places.is_of_override {
                self.must_be_used(places, [].iter());
            }
            return None;
        };
        let starts = places.starts.filter(|_| own.takes_starts());
        let zone = places.zone.filter(|_| own.takes_zone(starts));
        if places.is_of_override {
            self.must_be_used(places, [own].iter());
        }
        match own.placed(zone, starts) {
            Ok(placed) => Some(placed),
            Err(error) => {
                let at = places.starts_at.or(places.zone_at).unwrap_or(Place::NOWHERE);
                self.error(at, error.to_string(), "");
                Some(own)
            }
        }
    }

    /// What of a rule's places any of its limits has, of which at least one must have what the rule says itself, if they are known.
    pub(super) fn used_places<'l>(
        &mut self,
        places: &Places,
        limits: impl Iterator<Item = &'l Limit> + Clone,
        has_errors: bool,
    ) -> Placing {
        if !has_errors {
            self.must_be_used(places, limits.clone());
        }
        Placing {
            zone: places.zone.filter(|_| limits.clone().any(|limit| limit.takes_zone(places.starts))),
            starts: places.starts.filter(|_| limits.clone().any(Limit::takes_starts)),
        }
    }

    fn must_be_used<'l>(&mut self, places: &Places, limits: impl Iterator<Item = &'l Limit> + Clone) {
        let why = |zone, starts| {
            let counts = limits.clone().find(|limit| !limit.denies());
            counts.and_then(|limit| limit.placed(zone, starts).err()).map_or_else(
                || "it says where windows lie, and there is no limit that has any: leave it out".to_owned(),
                |error: LimitError| error.to_string(),
            )
        };
        if let Some(at) = places.starts_at
            && !limits.clone().any(Limit::takes_starts)
        {
            let why = why(None, places.starts);
            self.error(at, why, "");
        } else if let Some(at) = places.zone_at
            && !limits.clone().any(|limit| limit.takes_zone(places.starts))
        {
            let why = why(places.zone, None);
            self.error(at, why, "");
        }
    }
}

#[cfg(test)]
mod tests;
