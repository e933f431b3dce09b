//! The words of a script. It is a list of words, as in HAProxy's tcploop: who, a dot, what, and
//! often a colon and a number. `c` is the client of the session, `s` its server; `h` and `g` are
//! those of a second session.
//!
//! | word | what happens |
//! |---|---|
//! | `c.connect` `c.knock` | connects; connects in vain |
//! | `c.refused` | connects, and is reset |
//! | `c.connect:small` | connects, with a small receive buffer |
//! | `s.accept` `s.maybe` | accepts; accepts if it comes to that |
//! | `s.open` | the black hole becomes a server |
//! | `c.send:N` `c.drip:N` | sends N bytes; one by one with pauses |
//! | `c.ahead` | sends much that nobody reads yet |
//! | `c.read:N` `c.sip:N` | reads N bytes, and checks them; slowly |
//! | `c.pump:N` | sends N bytes while the other one reads them |
//! | `c.header` | a PROXY header; also `-half`, `-rest`, `-drip` |
//! | `c.garbage` `c.urgent` | what is no PROXY header; an urgent byte |
//! | `c.flood:N` | sends N bytes that nobody will get |
//! | `c.fin` `c.rst` `c.close` | shuts down; aborts; closes |
//! | `c.pause:N` | waits N ms, as a step of a peer |
//! | `c.ends:fin` `c.cut:rst` | reads to the end, and has all bytes; or the first ones |
//! | `c.reset` `c.quiet` | is reset after the end (FIN); hears nothing for a while |
//! | `c.burst:N` | N clients at once, each is served; also `burst-header` |
//! | `relay` | bytes go both ways, small messages or bulk |
//! | `b.queued` | waits until the balancer shows this state of the session |
//! | `b.ended` `b.exit` | waits until the session is logged; until the balancer has ended |
//! | `n.drop:c` `n.stall:s` | `network`, on the connection of the client or the server |
//! | `o.reload` `o.kill` `o.kill:h` | an order; also `drain`, `maint`, `term` |

use std::net::SocketAddr;

use crate::common::client::Ending;
use crate::peer::Peer;

/// The PROXY header (version 1) that names the client itself.
pub(crate) fn header(client: SocketAddr, frontend: SocketAddr) -> String {
    let (from, to) = (client.ip(), frontend.ip());
    format!("PROXY TCP4 {from} {to} {} {}\r\n", client.port(), frontend.port())
}

/// Reads to the end, which must be orderly or a reset. `whole`: and so many bytes must have come.
pub(crate) fn read_to_end(
    peer: &mut Peer,
    from: char,
    orderly: bool,
    whole: Option<u64>,
) -> Result<(), String> {
    let ending = peer.read_to_end(from)?;
    let received = peer.received;
    let all = whole.is_none_or(|whole| whole == received);
    if orderly == (ending == Ending::Orderly) && all {
        return Ok(());
    }
    Err(format!("{ending:?} after {received} bytes; sent: {whole:?}"))
}

/// The peer at the other end of the session.
pub(crate) fn partner(who: char) -> Result<char, String> {
    let pairs = [('c', 's'), ('h', 'g')];
    let found = pairs.iter().find_map(|(client, server)| match who {
        _ if who == *client => Some(*server),
        _ if who == *server => Some(*client),
        _ => None,
    });
    found.ok_or_else(|| format!("there is no {who}"))
}

pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a number: {text:?}"))
}
