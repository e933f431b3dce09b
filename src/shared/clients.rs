//! What is counted for each client address: its sessions, and the rate of new ones. The memory is
//! bounded: an address is forgotten once it has no session and its rate allows a whole burst again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Rate;
use crate::shared::rate;

/// Parts of the table, each with a lock of its own: workers seldom meet at one.
const PARTS: usize = 64;

/// Addresses of one part that are remembered without a session. With 64 parts these are 65,536
/// addresses, or 5 MiB for each frontend that counts clients.
const IDLE_MAX: usize = 1024;

/// A client: an IPv4 address, or an IPv6 network of 64 bits, which one customer has as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(u128);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_ipv6_mapped().to_bits()),
            IpAddr::V6(ip) => Self(ip.to_bits() >> 64 << 64),
        }
    }
}

/// What a client may do.
#[derive(Debug, Clone, Copy)]
pub struct ClientRules {
    /// Sessions at a time.
    pub sessions_max: Option<u32>,
    /// New sessions.
    pub rate: Option<Rate>,
}

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRefusal {
    /// It has as many sessions as it may have.
    Sessions,
    /// It opens sessions faster than it may.
    Rate,
}

#[derive(Debug, Clone, Copy, Default)]
struct Client {
    sessions: u32,
    /// When its rate allows a whole burst again, since the program's start.
    full_at: Duration,
}

impl Client {
    /// `full_at` after another session that begins at `now`.
    fn admit(self, rules: ClientRules, now: Duration) -> Result<Duration, ClientRefusal> {
        if rules.sessions_max.is_some_and(|max| self.sessions >= max) {
            return Err(ClientRefusal::Sessions);
        }
        let next = |rate| rate::next(rate, self.full_at, now).ok_or(ClientRefusal::Rate);
        rules.rate.map_or(Ok(self.full_at), next)
    }
}

type Part = HashMap<ClientKey, Client>;

/// The clients of a frontend.
#[derive(Debug)]
pub struct Clients {
    hasher: RandomState,
    parts: Vec<Mutex<Part>>,
}

impl Default for Clients {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), parts }
    }
}

impl Clients {
    /// Counts a session of a client that begins at `now`, in time since the program's start.
    ///
    /// # Errors
    /// It may not begin one; nothing was counted.
    pub fn begin(
        &self,
        client: ClientKey,
        rules: ClientRules,
        now: Duration,
    ) -> Result<(), ClientRefusal> {
        let mut part = self.part(client);
        let known = part.get(&client).copied().unwrap_or_default();
        let (sessions, full_at) = (known.sessions, known.admit(rules, now)?);
        if part.len() >= IDLE_MAX && !part.contains_key(&client) {
            make_room(&mut part, now);
        }
        part.insert(client, Client { sessions: sessions + 1, full_at });
        Ok(())
    }

    /// How many sessions a client has, and whether it may begin another one at `now`; nothing is
    /// counted.
    pub fn would_begin(
        &self,
        client: ClientKey,
        rules: ClientRules,
        now: Duration,
    ) -> (u32, Result<(), ClientRefusal>) {
        let known = self.part(client).get(&client).copied().unwrap_or_default();
        (known.sessions, known.admit(rules, now).map(|_| ()))
    }

    /// A session of a client has ended; only guards call it.
    pub fn end(&self, client: ClientKey, now: Duration) {
        let mut part = self.part(client);
        if let Some(one) = part.get_mut(&client) {
            one.sessions -= 1;
            if one.sessions == 0 && one.full_at <= now {
                part.remove(&client);
            }
        }
    }

    fn part(&self, client: ClientKey) -> MutexGuard<'_, Part> {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits choose")]
        let part = self.hasher.hash_one(client) as usize % PARTS;
        // Nothing panics while it is held, and a panic would end the process.
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets clients without a session: those that have their whole burst again, or else the one
/// that will have it soonest.
fn make_room(part: &mut Part, now: Duration) {
    part.retain(|_, one| one.sessions > 0 || one.full_at > now);
    if part.len() >= IDLE_MAX {
        let idle = part.iter().filter(|(_, one)| one.sessions == 0);
        let soonest = idle.min_by_key(|(_, one)| one.full_at).map(|(client, _)| *client);
        soonest.map(|client| part.remove(&client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn client(address: &str) -> ClientKey {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
    }

    #[test]
    fn a_client_has_so_many_sessions_at_a_time() {
        let clients = Clients::default();
        let rules = ClientRules { sessions_max: Some(2), rate: None };
        let one = client("192.0.2.1");
        assert_eq!([(); 3].map(|()| clients.begin(one, rules, NOW).is_ok()), [true, true, false]);
        assert_eq!(clients.begin(one, rules, NOW), Err(ClientRefusal::Sessions));
        assert!(clients.begin(client("192.0.2.2"), rules, NOW).is_ok());
        clients.end(one, NOW);
        assert!(clients.begin(one, rules, NOW).is_ok());
    }

    #[test]
    fn a_client_opens_sessions_at_its_rate() {
        let clients = Clients::default();
        let rate = Rate { count: 2, period: Duration::from_secs(1) };
        let rules = ClientRules { sessions_max: None, rate: Some(rate) };
        let one = client("192.0.2.1");
        let begin = |now| clients.begin(one, rules, now);
        assert_eq!([begin(NOW), begin(NOW)], [Ok(()), Ok(())]);
        assert_eq!(begin(NOW), Err(ClientRefusal::Rate));
        let would_begin = |now| clients.would_begin(one, rules, now);
        assert_eq!(would_begin(NOW), (2, Err(ClientRefusal::Rate)));
        assert_eq!(would_begin(NOW + Duration::from_millis(501)), (2, Ok(())));
        assert_eq!(begin(NOW + Duration::from_millis(501)), Ok(()));
        clients.end(one, NOW);
        assert_eq!(
            clients.begin(one, rules, NOW + Duration::from_millis(502)),
            Err(ClientRefusal::Rate),
            "an end gives nothing back"
        );
    }

    #[test]
    fn the_memory_is_bounded_by_sessions_and_a_fixed_number_of_addresses() {
        let clients = Clients::default();
        let rate = Rate { count: 1, period: Duration::from_secs(3600) };
        let rules = ClientRules { sessions_max: Some(9), rate: Some(rate) };
        for n in 0..300_000_u32 {
            let one = IpAddr::from(std::net::Ipv4Addr::from_bits(n)).into();
            clients.begin(one, rules, NOW).unwrap();
            clients.end(one, NOW);
        }
        let known: usize = clients.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert!(known <= PARTS * IDLE_MAX, "{known}");
        let kept = client("203.0.113.1");
        clients.begin(kept, rules, NOW).unwrap();
        for n in 0..100_000_u32 {
            let one = IpAddr::from(std::net::Ipv4Addr::from_bits(n)).into();
            if clients.begin(one, rules, NOW + Duration::from_secs(2)).is_ok() {
                clients.end(one, NOW);
            }
        }
        clients.end(kept, NOW);
    }
}
