//! Tells systemd how it goes (`sd_notify(3)`); without `NOTIFY_SOCKET` each of these does nothing.

use sd_notify::NotifyState;

/// Serving: the end of the start, and of each reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] must follow, also when the file was bad. `Type=notify-reload` wants
/// the moment with it (systemd 253).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("systemd is not told of the reload: no clock: {error}"),
    }
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(&one_line(line))]);
}

/// A line break would begin another message of the protocol.
fn one_line(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A supervisor that does not listen is no reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd is not told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_another_message() {
        assert_eq!(one_line("2 up\nMAINPID=1"), "2 up MAINPID=1");
    }
}
