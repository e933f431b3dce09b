//! `evenkeel reload --dry-run`: what a reload would change. Nothing is changed or counted.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::config::{self, Change, Config, Difference, Item};
use crate::control::controller::events::{Comparison, DryRun, Read};
use crate::control::controller::reloading::DRAINING;
use crate::control::controller::state::Controller;
use crate::control::listeners;
use crate::control::reload::{self, NewConfig};
use crate::shared::orders::ServerName;
use crate::shared::plan::ReloadPlan;

impl Controller {
    /// Reads the file, and answers later.
    pub(super) fn plan_reload(&self, answer: oneshot::Sender<Result<ReloadPlan, String>>) {
        let refused = match &self.config.file {
            _ if self.is_ending() => DRAINING,
            None => "nothing to reload: evenkeel was started without a file (run -c FILE)",
            Some(path) => return self.read_for_plan(path.clone(), answer),
        };
        drop(answer.send(Err(refused.to_owned())));
    }

    fn read_for_plan(&self, path: PathBuf, answer: oneshot::Sender<Result<ReloadPlan, String>>) {
        let reading = reload::read(path, self.resolver.clone(), self.known_names());
        let (sender, in_force) = (self.senders.read.clone(), Arc::clone(&self.config.text));
        let started_with = Arc::clone(&self.started_with);
        tokio_uring::spawn(async move {
            let outcome = reading.await;
            let new = outcome.as_ref().ok().map(|fresh| fresh.config.clone());
            // Large files take longer than the control thread should wait.
            let compare = move || new.map(|new| compare(&in_force, &started_with, new));
            let comparison = spawn_blocking(compare).await.ok().flatten().unwrap_or_default();
            let dry_run = Some(DryRun { comparison, answer });
            // Fails only while the process ends.
            drop(sender.send(Read { outcome, attempts: 0, dry_run }));
        });
    }

    /// The file was read for a dry run.
    pub(super) fn answer_dry_run(&self, outcome: Result<NewConfig, Vec<String>>, dry_run: DryRun) {
        let DryRun { comparison, answer } = dry_run;
        let plan = match outcome {
            _ if self.is_ending() => Err(DRAINING.to_owned()),
            Ok(fresh) => self.plan(&fresh, &comparison).map_err(|it| rejected(&it)),
            Err(problems) => Err(rejected(&problems)),
        };
        drop(answer.send(plan));
    }

    fn plan(&self, fresh: &NewConfig, comparison: &Comparison) -> Result<ReloadPlan, Vec<String>> {
        self.check_limits(fresh)?;
        listeners::try_all(&fresh.config, &self.bound)?;
        let kept = reload::keep_until_restart(&self.config, &mut fresh.config.clone());
        let changes = comparison.differences.iter();
        let after_restart = comparison.since_start.iter().filter(|one| is_key_of(one, &kept));
        let mut plan = ReloadPlan {
            changes: changes.map(|one| self.line(one, fresh)).collect(),
            after_restart: after_restart.map(|one| self.line_of_kept(one, fresh)).collect(),
        };
        plan.changes.extend(changed_files(&self.config, &fresh.config));
        Ok(plan)
    }

    /// A difference that a reload does not apply.
    fn line_of_kept(&self, difference: &Difference, fresh: &NewConfig) -> String {
        let note = |key| reload::restart_note(key, &self.config, &fresh.config);
        self.line(difference, fresh) + difference.process_key().map_or("", note)
    }

    /// A difference as the operator reads it.
    fn line(&self, difference: &Difference, fresh: &NewConfig) -> String {
        let Difference { item, change } = difference;
        let note = match item {
            Item::Server(backend, server) => {
                let name = ServerName { backend: backend.clone(), server: server.clone() };
                self.note(&name, change, fresh)
            }
            Item::Backend(name) => self.note_of_records(name, change, fresh),
            _ => String::new(),
        };
        match (item, change) {
            (Item::Process, Change::Key { key, old, new }) => format!("{key}: {old} -> {new}"),
            (_, Change::Key { key, old, new }) => format!("{item}: {key}: {old} -> {new}{note}"),
            (_, Change::Added(keys)) if keys.is_empty() => format!("{item}: added{note}"),
            (_, Change::Added(keys)) => format!("{item}: added, {keys}{note}"),
            (_, Change::Removed) => format!("{item}: removed{note}"),
            (_, Change::Reordered) => format!("{item}: its servers are in another order"),
        }
    }

    /// What the texts do not say about a change of a backend: that DNS has no record for a new SRV
    /// name.
    fn note_of_records(&self, name: &str, change: &Change, fresh: &NewConfig) -> String {
        let is_new = match change {
            Change::Added(_) => true,
            Change::Key { key, .. } => key == "srv",
            Change::Removed | Change::Reordered => false,
        };
        let known = |name: &str| fresh.found.srv.contains_key(name) || self.cluster.knows_srv(name);
        let backend = fresh.config.backends.iter().find(|one| is_new && *one.name == *name);
        match backend.and_then(|backend| backend.srv.as_deref()).filter(|name| !known(name)) {
            Some(srv) => format!("; SRV name {srv} has no usable record: it supplies no server"),
            None => String::new(),
        }
    }

    /// What the texts do not say about a change of a server.
    fn note(&self, name: &ServerName, change: &Change, fresh: &NewConfig) -> String {
        let no_address = || {
            let host = host_of(&fresh.config, name);
            let known =
                |host: &str| fresh.found.hosts.contains_key(host) || self.cluster.knows(host);
            match host.filter(|host| !known(host)) {
                Some(host) => format!("; host name {host} has no address: the server is down"),
                None => String::new(),
            }
        };
        match change {
            Change::Added(_) => no_address(),
            Change::Removed => match self.cluster.sessions_of(name) {
                Some(1) => "; its session continues".to_owned(),
                Some(sessions @ 2..) => format!("; its {sessions} sessions continue"),
                _ => String::new(),
            },
            Change::Key { key, .. } if key == "address" => {
                "; a new server: its health is not known yet".to_owned() + &no_address()
            }
            Change::Key { key, .. } => match self.cluster.set_by_operator(name, key) {
                Some(set) => format!("; the operator set {set}, which stays in force"),
                None => String::new(),
            },
            Change::Reordered => String::new(),
        }
    }
}

fn rejected(problems: &[String]) -> String {
    format!("a reload would be rejected: {}", problems.join("; "))
}

/// Compares a new configuration with the texts of the one in force and of that of the start.
fn compare(in_force: &str, started_with: &str, mut new: Config) -> Comparison {
    let text = Arc::clone(&new.text);
    let mut differences = config::differences(in_force, &text);
    // It was valid when it came into force.
    if let Ok(before) = config::parse(in_force, "") {
        let need_restart = reload::keep_until_restart(&before, &mut new);
        differences.retain(|one| !is_key_of(one, &need_restart));
    }
    Comparison { differences, since_start: config::differences(started_with, &text) }
}

/// Whether it is a difference of one of these keys of `[global]` and `[observe]`.
fn is_key_of(difference: &Difference, keys: &[&str]) -> bool {
    difference.process_key().is_some_and(|key| keys.contains(&key))
}

/// The host name of a server in a configuration.
fn host_of<'a>(config: &'a Config, name: &ServerName) -> Option<&'a str> {
    let backend = config.backends.iter().find(|backend| *backend.name == *name.backend)?;
    let server = backend.servers.iter().find(|server| server.name == name.server)?;
    server.address.host()
}

/// Lists of networks whose files have other networks than when they were read.
fn changed_files(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for new in &new.frontends {
        let known = old.frontends.iter().find(|old| old.name == new.name);
        let Some(old) = known else { continue };
        for (key, was, is) in [
            ("allow", &old.allow, &new.allow),
            ("deny", &old.deny, &new.deny),
            ("proxy_protocol_from", &old.proxy_protocol_from, &new.proxy_protocol_from),
        ] {
            let path = |list: &config::Networks| list.file.as_ref().map(|(path, _)| path.clone());
            if let Some(file) = path(is).filter(|_| path(was) == path(is) && !was.has_same(is)) {
                let name = &new.name;
                let file = file.display();
                lines.push(format!("frontend {name}: {key}: the networks in {file} have changed"));
            }
        }
    }
    lines
}
