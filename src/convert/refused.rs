//! Values that the configuration refuses: each is left out and reported with the reason, whatever
//! rule wrote it.

use super::draft::Draft;
use super::report::{Place, Report};
use super::write::{Owner, write};
use crate::config;

/// Problems have positions in a file with a name only.
const NAME: &str = "draft";

/// Leaves out keys until the configuration refuses none of those that can be left out.
pub(super) fn leave_out(draft: &mut Draft, report: &Report) {
    loop {
        let written = write(draft, &[], NAME);
        let Err(problems) = config::parse(&written.toml, NAME) else { return };
        let mut is_changed = false;
        for problem in problems.iter() {
            let line = problem.span.line as usize;
            let at = written.keys.binary_search_by_key(&line, |(line, ..)| *line);
            if let Ok(at) = at {
                let (_, owner, key) = written.keys[at];
                let place = remove(draft, owner, key);
                report.report(place, format!("{key} is left out: {}", problem.text));
                is_changed = true;
            }
        }
        if !is_changed {
            return;
        }
    }
}

/// Removes a key from its part of the draft. The place of that part in the input.
fn remove(draft: &mut Draft, owner: Owner, key: &'static str) -> Place {
    let (entries, place) = match owner {
        Owner::Settings(table) => {
            draft.settings.retain(|setting| setting.table != table || setting.key != key);
            return Place { file: 0, line: 1 };
        }
        Owner::Frontend(index) => {
            let frontend = &mut draft.frontends[index];
            (&mut frontend.entries, frontend.origin.first)
        }
        Owner::Backend(index) => {
            let backend = &mut draft.backends[index];
            (&mut backend.entries, backend.origin.first)
        }
        Owner::Health(index) => {
            let backend = &mut draft.backends[index];
            (&mut backend.health, backend.origin.first)
        }
        Owner::Server(index, at) => {
            let server = &mut draft.backends[index].servers[at];
            (&mut server.entries, server.place)
        }
    };
    entries.retain(|(other, _)| *other != key);
    place
}
