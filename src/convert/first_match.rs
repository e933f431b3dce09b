//! Rules that accept and refuse clients, first match first, as the two lists of evenkeel.

use super::networks::{self, Clients, Network};

/// The result of the rules so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lists {
    /// None: everybody.
    pub(super) allow: Option<Vec<Clients>>,
    /// Checked before `allow`.
    pub(super) deny: Vec<Clients>,
    /// Accepted by an earlier rule.
    pub(super) passed: Vec<Clients>,
    /// An earlier rule accepts clients that nobody can list.
    pub(super) has_unknown: bool,
    /// Every client that is left is accepted or refused: later rules have no effect.
    pub(super) is_settled: bool,
}

/// A set of clients, or everybody else.
pub(super) type Set = (bool, Vec<Clients>);

impl Lists {
    /// Begins rules that are evaluated after these, whomever these accept.
    pub(super) fn begin_phase(&mut self) {
        self.passed.clear();
        (self.has_unknown, self.is_settled) = (false, false);
    }

    /// Accepts these clients.
    pub(super) fn accept(&mut self, clients: &[Clients]) {
        networks::extend(&mut self.passed, clients);
    }

    /// Refuses the clients that are in every set; a set that is negated (`true`) is everybody else.
    ///
    /// # Errors
    /// Why the two lists cannot say it.
    pub(super) fn refuse(&mut self, sets: &[Set]) -> Result<(), &'static str> {
        const FILES: &str = "a list in a file cannot be compared with another rule";
        let kept = sets.iter().filter(|(is_negated, _)| *is_negated);
        let kept: Vec<Clients> = kept.flat_map(|(_, clients)| clients.clone()).collect();
        let mut positive = sets.iter().filter(|(is_negated, _)| !is_negated);
        let Some((_, first)) = positive.next() else {
            return self.refuse_others(kept, sets.is_empty());
        };
        let mut denied = first.clone();
        for (_, more) in positive {
            denied = networks::intersection(&denied, more).ok_or(FILES)?;
        }
        if !kept.is_empty() && networks::disjoint(&denied, &kept) != Some(true) {
            return Err("a network with exceptions: evenkeel checks deny before allow");
        }
        if networks::covers(&self.passed, &denied) {
            return Ok(());
        }
        if !self.passed.is_empty() && networks::disjoint(&denied, &self.passed) != Some(true) {
            return Err("an earlier rule accepts some of these: evenkeel checks deny first");
        }
        networks::extend(&mut self.deny, &denied);
        Ok(())
    }

    /// Refuses everybody but `kept` and those that passed.
    fn refuse_others(
        &mut self,
        kept: Vec<Clients>,
        is_everybody: bool,
    ) -> Result<(), &'static str> {
        const FILES: &str = "a list in a file cannot be compared with another rule";
        if self.has_unknown {
            return Err("an earlier rule accepts clients by something else than their address");
        }
        let mut allowed = kept;
        networks::extend(&mut allowed, &self.passed);
        self.is_settled = is_everybody;
        if let Some(before) = &self.allow {
            allowed = networks::intersection(before, &allowed).ok_or(FILES)?;
        }
        if allowed.is_empty() {
            self.deny = Network::everybody().map(Clients::Network).to_vec();
        } else {
            self.allow = Some(allowed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> Vec<Clients> {
        texts.iter().map(|it| Clients::Network(Network::parse(it).unwrap())).collect()
    }

    #[test]
    fn first_match_becomes_deny_and_allow() {
        let (lan, host) = (set(&["10.0.0.0/8"]), set(&["10.0.0.1"]));
        // deny host; allow lan; deny all
        let mut lists = Lists::default();
        lists.refuse(&[(false, host.clone())]).unwrap();
        lists.accept(&lan);
        lists.refuse(&[]).unwrap();
        assert_eq!((lists.allow.as_ref(), &lists.deny), (Some(&lan), &host));
        // reject unless lan
        let mut lists = Lists::default();
        lists.refuse(&[(true, lan.clone())]).unwrap();
        assert_eq!((lists.allow.as_ref(), lists.deny.len()), (Some(&lan), 0));
        // allow host; deny lan
        let mut lists = Lists::default();
        lists.accept(&host);
        assert!(lists.refuse(&[(false, lan.clone())]).is_err());
        // deny all
        let mut lists = Lists::default();
        lists.refuse(&[]).unwrap();
        assert_eq!((lists.allow, lists.deny.len()), (None, 2));
        // two rules that both hold
        let mut lists = Lists::default();
        lists.refuse(&[(true, lan)]).unwrap();
        lists.refuse(&[(true, host.clone())]).unwrap();
        assert_eq!(lists.allow, Some(host));
    }
}
