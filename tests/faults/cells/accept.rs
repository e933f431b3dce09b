//! A client in the backlog: another one has the only place of the frontend.

use super::reasons::{FIN_OF_NETWORK, GARBAGE_OF_NETWORK};
use crate::matrix::Cover::{Never, Run};
use crate::matrix::Fault::{Client, Network, Operator, Server};
use crate::matrix::How::{BlackHole, Burst, Fin, Garbage, Rst, Silence, Slowness};
use crate::matrix::Order::{Drain, Kill, Maint, Reload, Term};
use crate::matrix::{Row, scene};

const NO_SERVER: &str = "No server is chosen while the client waits in the backlog.";

pub(super) const ROWS: &[Row] = &[
    Row(
        Client(Fin),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.send:10 c.fin h.close g.close s.accept s.read:10 \
             s.ends:fin s.send:20 s.close c.ends:fin",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Client(Rst),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.send:10 c.rst h.close g.close s.maybe",
            "h -- done, c CC client_left|CD client_reset",
        )]),
    ),
    Row(
        Client(Silence),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.quiet h.close g.close s.accept s.send:5 c.read:5",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.drip:20 h.close g.close s.accept c.drip:20 s.read:40",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "full-brief",
            "h.connect g.accept c.connect n.drop:c g.ends:fin s.accept s.send:5 s.ends:fin",
            "h cD idle_timeout, c cD idle_timeout",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.send:10 c.urgent c.send:10 h.close g.close s.accept \
             s.read:20",
            "h -- done, c -- done",
        )]),
    ),
    Row(Client(Burst), Run(&[scene("full", "c.burst:40", "burst -- done")])),
    Row(Server(Fin), Never(NO_SERVER)),
    Row(Server(Rst), Never(NO_SERVER)),
    Row(Server(Silence), Never(NO_SERVER)),
    Row(Server(Slowness), Never(NO_SERVER)),
    Row(Server(BlackHole), Never(NO_SERVER)),
    Row(Server(Garbage), Never(NO_SERVER)),
    Row(Server(Burst), Never(NO_SERVER)),
    Row(Network(Fin), Never(FIN_OF_NETWORK)),
    Row(
        Network(Rst),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect n.reset:c c.send:5 c.cut:rst n.heal:c h.close g.close \
             s.accept s.send:5 s.cut:rst",
            "h -- done, c CD client_reset",
        )]),
    ),
    Row(
        Network(Silence),
        Run(&[scene("full", "n.stall:c c.connect s.accept c.send:5 s.read:5", "c -- done")]),
    ),
    Row(
        Network(Slowness),
        Run(&[scene(
            "full",
            "n.loss:c h.connect g.accept c.connect h.close g.close c.drip:40 s.accept s.drip:40 \
             s.read:40 c.read:40",
            "h -- done, c -- done",
        )]),
    ),
    Row(Network(BlackHole), Run(&[scene("full", "n.drop:c c.knock", "")])),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene("full", "n.flap:c c.connect s.accept c.drip:40 s.read:40", "c -- done")]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.send:5 o.reload h.close g.close s.accept s.read:5",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect o.drain h.close g.close c.ends:rst",
            "h -- done, c SC no_server",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect o.maint h.close g.close c.ends:rst",
            "h -- done, c SC no_server",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect o.kill:h h.ends:rst g.ends:rst s.accept c.send:5 \
             s.read:5",
            "h KD killed, c -- done",
        )]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "full",
            "h.connect g.accept c.connect c.send:5 o.term h.close g.close s.accept s.read:5 \
             s.send:5 c.read:5 c.close s.ends:fin s.close b.exit",
            "h -- done, c -- done",
        )]),
    ),
];
