//! The preface of a connection: bytes that are read before a server is chosen (the PROXY header,
//! the `ClientHello`). The client's bytes are received, kept and not sent on until it is complete.
//!
//! No frontend asks for a preface yet; the state, its deadline and its end are those of the design.

use crate::proxy::io::InvalidPreface;
use crate::proxy::session::Session;
use crate::proxy::state::{Next, State};
use crate::terms::{End, Reason};

impl Session {
    /// The preface is complete, or is not one.
    pub(super) const fn on_preface_read(&self, result: Result<(), InvalidPreface>) -> Next {
        match (&self.state, result) {
            (State::Preface(_), Ok(())) => Next::Route,
            (State::Preface(_), Err(InvalidPreface)) => {
                Next::abort(End::new(Reason::BadPreface, b"PR"))
            }
            _ => Next::Stay,
        }
    }
}
