//! A session that one peer has reset, while the other one has not read everything yet. Each script
//! runs twice: with small messages, and with bulk. Of bulk, the worker does not read behind a full
//! pipe: it learns of the reset when it sends, which is why the reader sends a byte.
//!
//! A lost reset is not sent again: the network is whole before the last bytes are read.

use super::reasons::GARBAGE_OF_NETWORK;
use crate::matrix::Cover::{Never, Run};
use crate::matrix::Fault::{Client, Network, Operator, Server};
use crate::matrix::How::{BlackHole, Burst, Fin, Garbage, Rst, Silence, Slowness};
use crate::matrix::Order::{Drain, Kill, Maint, Reload, Term};
use crate::matrix::{Row, scene};

const FIN_AFTER_RST: &str = "A connection that has been reset carries no FIN. The other one: see \
                             the cells of its peer.";

pub(super) const ROWS: &[Row] = &[
    Row(
        Client(Fin),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing c.fin c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Client(Rst),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing c.rst b.ended",
            "c SD server_reset",
        )]),
    ),
    Row(
        Client(Silence),
        Run(&[scene(
            "half-brief",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing b.ended c.cut:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing c.sip:80000 \
             c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "half-brief",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing n.drop:c c.flood:5 \
             b.ended",
            "c SD server_reset",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing c.garbage c.urgent \
             c.garbage c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Client(Burst),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing c.flood:1000000 \
             c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Server(Fin),
        Run(&[scene(
            "late",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing s.fin s.ends:rst",
            "c CD client_reset",
        )]),
    ),
    Row(
        Server(Rst),
        Run(&[scene(
            "late",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing s.rst b.ended",
            "c CD client_reset",
        )]),
    ),
    Row(
        Server(Silence),
        Run(&[scene(
            "late-brief",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing b.ended s.cut:rst",
            "c CD client_reset",
        )]),
    ),
    Row(
        Server(Slowness),
        Run(&[scene(
            "late",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing s.sip:80000 s.ends:rst",
            "c CD client_reset",
        )]),
    ),
    Row(
        Server(BlackHole),
        Run(&[scene(
            "late-brief",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing n.drop:s s.flood:5 \
             b.ended",
            "c CD client_reset",
        )]),
    ),
    Row(
        Server(Garbage),
        Run(&[scene(
            "late",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing s.garbage s.urgent \
             s.garbage s.ends:rst",
            "c CD client_reset",
        )]),
    ),
    Row(
        Server(Burst),
        Run(&[scene(
            "late",
            "c.connect s.accept relay c.ahead c.rst s.send:1 b.closing s.flood:1000000 \
             s.ends:rst",
            "c CD client_reset",
        )]),
    ),
    Row(Network(Fin), Never(FIN_AFTER_RST)),
    Row(
        Network(Rst),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing n.reset:c c.flood:5 \
             c.cut:rst n.heal:c b.ended",
            "c SD server_reset",
        )]),
    ),
    Row(
        Network(Silence),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing n.stall:c \
             c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Network(Slowness),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing n.loss:c \
             c.sip:40000 n.heal:c c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Network(BlackHole),
        Run(&[scene(
            "half-brief",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing n.drop-out:c \
             c.flood:5 b.ended",
            "c SD server_reset",
        )]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing n.flap:c \
             c.sip:40000 n.heal:c c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing o.reload c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing o.drain c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing o.maint c.ends:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing o.kill c.cut:rst",
            "c SD server_reset",
        )]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay s.ahead s.rst c.send:1 b.closing o.term c.ends:rst \
             b.exit",
            "c SD server_reset",
        )]),
    ),
];
