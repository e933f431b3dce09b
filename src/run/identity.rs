//! The user and group that the process changes to after it has bound its sockets.
//!
//! /etc/passwd and /etc/group, where packages put the accounts of services, are read here and not
//! by libc: in a static binary, libc would load the machine's NSS modules, of whatever version they
//! are.

use std::fs;
use std::io;

use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

use crate::config::{Config, Span};
use crate::sys::capability::{Capabilities, keep_only};

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// The user and group that `config` names; none if it names none, or if evenkeel was not started as
/// root.
///
/// # Errors
/// There is no such account: one line for each, for the operator.
pub(super) fn configured(config: &Config) -> Result<Option<Identity>, Vec<String>> {
    let Some(named) = config.global.user.as_ref().or(config.global.group.as_ref()) else {
        return Ok(None);
    };
    if !geteuid().is_root() {
        let place = config.locate(named.1);
        tracing::warn!("{place}user and group are not changed: evenkeel was not started as root");
        return Ok(None);
    }
    let located = |(span, text)| format!("{}{text}", config.locate(span));
    find_here(config).map(Some).map_err(|lines| lines.into_iter().map(located).collect())
}

/// The accounts of `config` that this machine does not have: "problem; remedy".
pub(crate) fn missing(config: &Config) -> Vec<(Span, String)> {
    let is_named = config.global.user.is_some() || config.global.group.is_some();
    if is_named { find_here(config).err().unwrap_or_default() } else { Vec::new() }
}

fn find_here(config: &Config) -> Result<Identity, Vec<(Span, String)>> {
    // Entries of other accounts may not be UTF-8.
    let read = |path: &str| {
        let unread = |error| vec![(Span::default(), format!("{path} cannot be read: {error}"))];
        let bytes = fs::read(path).map_err(unread);
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    find(config, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn find(config: &Config, passwd: &str, group: &str) -> Result<Identity, Vec<(Span, String)>> {
    let mut missing = Vec::new();
    let mut look = |table: &str, named: &Option<(String, Span)>, kind: &str, make: &str| {
        let (name, span) = named.as_ref()?;
        let found = ids(table, name);
        if found.is_none() {
            let text = format!(
                "there is no {kind} {name:?} on this machine; create it (`{make} {name}`), or name \
                 one that exists"
            );
            missing.push((*span, text));
        }
        found
    };
    let user = look(passwd, &config.global.user, "user", "useradd --system");
    let group = look(group, &config.global.group, "group", "groupadd --system");
    if !missing.is_empty() {
        return Err(missing);
    }
    // The third field of a user is its number, the fourth that of its group; the third field of a
    // group is its number (passwd(5), group(5)). What the configuration does not name stays 0,
    // root.
    let own = user.map_or(0, |(_, group)| group);
    Ok(Identity { user: user.map_or(0, |(user, _)| user), group: group.map_or(own, |(id, _)| id) })
}

/// The third and the fourth field of the line that begins with `name`; 0 if the fourth is not a
/// number.
fn ids(table: &str, name: &str) -> Option<(u32, u32)> {
    let mut lines = table.lines().map(|line| line.split(':'));
    let mut fields =
        lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    let id = fields.nth(1)?.parse().ok()?;
    Some((id, fields.next().and_then(|group| group.parse().ok()).unwrap_or(0)))
}

/// Changes to `identity` for good, if there is one, and gives up every capability that is not
/// needed after the start. To be called before another thread exists: each thread has its own user,
/// group and capabilities. A `transparent` process keeps `CAP_NET_ADMIN`, which it needs to connect
/// from the addresses of its clients.
///
/// # Errors
/// Not permitted: a line for the operator.
pub(super) fn assume(identity: Option<Identity>, transparent: bool) -> Result<(), String> {
    let change = || -> io::Result<()> {
        let Some(Identity { user, group }) = identity else { return Ok(()) };
        let gid = Gid::from_raw(group);
        setgroups(&[gid])?;
        setgid(gid)?;
        Ok(setuid(Uid::from_raw(user))?)
    };
    let stays = identity.is_none_or(|identity| identity.user == 0);
    let needed = Capabilities::needed(stays, transparent);
    let changed =
        Capabilities::permitted().and_then(|permitted| keep_only(&permitted.and(&needed), change));
    match (changed, identity) {
        (Ok(()), _) => Ok(()),
        (Err(error), None) => {
            tracing::warn!("not every capability that is not needed is given up: {error}");
            Ok(())
        }
        (Err(error), Some(Identity { user, group })) => {
            let more = if transparent { ", CAP_NET_ADMIN for source = \"client\"," } else { "" };
            Err(format!(
                "evenkeel: cannot become user {user}, group {group}: {error}; allow \
                 CAP_SETUID{more} and CAP_SETGID where this runs, or leave global.user and \
                 global.group out"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nkeel:x:123:456::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nkeel:x:456:\nweb:x:789:keel\n";

    fn config(accounts: &str) -> Config {
        let text = format!(
            "[global]\n{accounts}\n[frontend.f]\nbind = [\"127.0.0.1:80\"]\nbackend = \"b\"\n\
             [[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1:81\"\n"
        );
        let mut config = config::parse(&text, "x.toml").unwrap();
        config.file = Some("x.toml".into());
        config
    }

    #[test]
    fn a_user_without_a_group_gets_its_primary_group() {
        let found = find(&config("user = \"keel\""), PASSWD, GROUP);
        assert_eq!(found, Ok(Identity { user: 123, group: 456 }));
    }

    #[test]
    fn a_named_group_replaces_the_primary_group() {
        let found = find(&config("user = \"keel\"\ngroup = \"web\""), PASSWD, GROUP);
        assert_eq!(found, Ok(Identity { user: 123, group: 789 }));
    }

    #[test]
    fn a_missing_account_is_reported_with_its_line_and_a_remedy() {
        let found = find(&config("user = \"nobody-here\"\ngroup = \"nor-here\""), PASSWD, GROUP);
        let lines = found.unwrap_err();
        assert!(lines.iter().all(|(_, text)| text.contains("; ")), "problem; remedy: {lines:?}");
        assert!(lines[0].0.line == 2 && lines[0].1.contains("useradd"), "{lines:?}");
        assert!(lines[1].0.line == 3 && lines[1].1.contains("groupadd"), "{lines:?}");
    }
}
