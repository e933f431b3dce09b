//! A session whose server has not answered the SYN yet. No further attempt is made, so that each
//! failure is the end of the session.

use super::reasons::{FIN_OF_NETWORK, GARBAGE_OF_NETWORK};
use crate::matrix::Cover::{Elsewhere, Never, Run};
use crate::matrix::Fault::{Client, Network, Operator, Server};
use crate::matrix::How::{BlackHole, Burst, Fin, Garbage, Rst, Silence, Slowness};
use crate::matrix::Order::{Drain, Kill, Maint, Reload, Term};
use crate::matrix::{Row, scene};

const NOT_ACCEPTED: &str = "A server that has not answered the SYN sends neither bytes nor a FIN.";

pub(super) const ROWS: &[Row] = &[
    Row(
        Client(Fin),
        Run(&[
            scene("connect", "c.connect b.connecting c.fin c.ends:rst", "c CC client_left"),
            scene(
                "connect",
                "c.connect c.send:5 c.fin b.connecting s.open s.accept s.ends:fin s.send:5 \
                 s.close c.ends:fin",
                "c -- done",
            ),
        ]),
    ),
    Row(
        Client(Rst),
        Run(&[scene("connect", "c.connect b.connecting c.rst b.ended", "c CC client_left")]),
    ),
    Row(
        Client(Silence),
        Run(&[scene("connect-brief", "c.connect c.ends:rst", "c sC connect_timeout")]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "connect",
            "c.connect b.connecting c.drip:20 s.open c.drip:20 s.accept s.read:40",
            "c -- done",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "connect-brief",
            "c.connect n.drop:c c.send:5 b.ended",
            "c sC connect_timeout",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene(
            "connect",
            "c.connect c.send:5 c.urgent c.send:5 b.connecting s.open s.accept s.read:10",
            "c -- done",
        )]),
    ),
    Row(
        Client(Burst),
        Run(&[scene(
            "connect",
            "c.connect c.send:300000 c.fin b.connecting s.open s.accept s.ends:fin s.send:5 \
             s.close c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(Server(Fin), Never(NOT_ACCEPTED)),
    Row(Server(Rst), Run(&[scene("refused", "c.refused", "any SC connect_failed")])),
    Row(
        Server(Silence),
        Run(&[scene(
            "connect-brief",
            "c.connect c.send:5 b.connecting c.ends:rst",
            "c sC connect_timeout",
        )]),
    ),
    Row(
        Server(Slowness),
        Run(&[scene(
            "connect",
            "c.connect c.send:5 b.connecting c.quiet s.open s.accept s.read:5 s.drip:20 \
             c.read:20",
            "c -- done",
        )]),
    ),
    Row(
        Server(BlackHole),
        Run(&[scene(
            "reached-brief",
            "n.drop:s c.connect c.send:5 c.ends:rst",
            "c sC connect_timeout",
        )]),
    ),
    Row(Server(Garbage), Never(NOT_ACCEPTED)),
    Row(
        Server(Burst),
        Elsewhere(
            "tests/blackbox/connects.rs",
            "with_six_silent_servers_of_seven_a_client_waits_at_most_one_connect_timeout",
        ),
    ),
    Row(Network(Fin), Never(FIN_OF_NETWORK)),
    Row(Network(Rst), Run(&[scene("plain", "n.reset:s c.refused", "any SC connect_failed")])),
    Row(
        Network(Silence),
        Run(&[scene(
            "plain",
            "n.stall:s c.connect c.send:5 s.accept s.read:5 s.send:5 c.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Network(Slowness),
        Run(&[scene(
            "plain",
            "n.loss:s c.connect s.accept c.drip:40 s.read:40 s.drip:40 c.read:40",
            "c -- done",
        )]),
    ),
    Row(
        Network(BlackHole),
        Run(&[scene(
            "reached-brief",
            "n.drop:s c.connect n.drop:c c.send:5 b.ended",
            "c sC connect_timeout",
        )]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene("plain", "n.flap:s c.connect s.accept c.drip:40 s.read:40", "c -- done")]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "connect",
            "c.connect c.send:5 b.connecting o.reload s.open s.accept s.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "connect",
            "c.connect c.send:5 b.connecting o.drain s.open s.accept s.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "connect",
            "c.connect c.send:5 b.connecting o.maint s.open s.accept s.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[scene("connect", "c.connect b.connecting o.kill c.ends:rst", "c KD killed")]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "connect",
            "c.connect c.send:5 b.connecting o.term s.open s.accept s.read:5 s.send:5 c.read:5 \
             c.close s.ends:fin s.close b.exit",
            "c -- done",
        )]),
    ),
];
