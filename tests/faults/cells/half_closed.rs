//! A session of which one direction has ended. Each script runs twice: with small messages, and
//! with bulk.

use super::reasons::GARBAGE_OF_NETWORK;
use crate::matrix::Cover::{Never, Run};
use crate::matrix::Fault::{Client, Network, Operator, Server};
use crate::matrix::How::{BlackHole, Burst, Fin, Garbage, Rst, Silence, Slowness};
use crate::matrix::Order::{Drain, Kill, Maint, Reload, Term};
use crate::matrix::{Row, scene};

pub(super) const ROWS: &[Row] = &[
    Row(
        Client(Fin),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.fin c.ends:fin c.send:70000 c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(Rst),
        Run(&[
            scene(
                "plain",
                "c.connect s.accept relay s.fin c.ends:fin b.half_closed c.rst s.cut:rst",
                "c CD client_reset",
            ),
            // The client has said that it sends no more: only a send to it shows that it is gone.
            scene(
                "plain",
                "c.connect s.accept relay c.fin s.ends:fin c.rst \
                 s.flood:100000 s.pause:50 s.flood:100000 s.reset",
                "c CD client_reset",
            ),
        ]),
    ),
    Row(
        Client(Silence),
        Run(&[scene(
            "half-brief",
            "c.connect s.accept relay s.fin c.ends:fin b.ended s.cut:fin",
            "c cL half_closed_timeout",
        )]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.fin c.ends:fin c.drip:40 s.read:40 c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "half-brief",
            "c.connect s.accept relay s.fin c.ends:fin n.drop:c c.send:5 s.cut:fin b.ended",
            "c cL half_closed_timeout",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.fin c.ends:fin c.send:50 c.urgent c.send:50 s.read:100 \
             c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.fin c.ends:fin c.pump:4000000 c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(Fin),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin s.send:70000 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(Rst),
        Run(&[
            scene(
                "plain",
                "c.connect s.accept relay c.fin s.ends:fin b.half_closed s.rst c.cut:rst",
                "c SD server_reset",
            ),
            scene(
                "plain",
                "c.connect s.accept relay s.fin c.ends:fin s.rst c.flood:100000 c.pause:50 \
                 c.flood:100000 b.ended",
                "c SD server_reset",
            ),
        ]),
    ),
    Row(
        Server(Silence),
        Run(&[scene(
            "half-brief",
            "c.connect s.accept relay c.fin s.ends:fin b.ended c.cut:fin",
            "c sL half_closed_timeout",
        )]),
    ),
    Row(
        Server(Slowness),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin s.drip:40 c.read:40 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(BlackHole),
        Run(&[scene(
            "half-brief",
            "c.connect s.accept relay c.fin s.ends:fin n.drop:s s.send:5 b.ended",
            "c sL half_closed_timeout",
        )]),
    ),
    Row(
        Server(Garbage),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin s.send:50 s.urgent s.send:50 c.read:100 \
             s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin s.pump:4000000 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Network(Fin),
        Run(&[scene(
            "ended",
            "c.connect s.accept c.send:500 c.fin s.ends:fin s.send:1000 c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Network(Rst),
        Run(&[
            scene(
                "plain",
                "c.connect s.accept relay c.fin s.ends:fin n.reset:c \
                 s.flood:100000 s.pause:50 s.flood:100000 s.reset",
                "c CD client_reset",
            ),
            scene(
                "half-brief",
                "c.connect s.accept relay c.fin s.ends:fin n.reset:s s.flood:100 s.reset b.ended",
                "c sL half_closed_timeout|SD server_reset",
            ),
        ]),
    ),
    Row(
        Network(Silence),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin n.stall:s s.pump:300000 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Network(Slowness),
        Run(&[
            scene(
                "plain",
                "c.connect s.accept relay n.loss:c n.loss:s c.fin s.ends:fin s.drip:40 s.fin \
                 c.ends:fin",
                "c -- done",
            ),
            scene(
                "latency",
                "c.connect s.accept c.send:5 c.fin s.ends:fin s.send:5000 s.fin c.ends:fin",
                "c -- done",
            ),
        ]),
    ),
    Row(
        Network(BlackHole),
        Run(&[scene(
            "half-brief",
            "c.connect s.accept relay c.fin s.ends:fin n.drop:c n.drop:s s.send:50 b.ended",
            "c sL half_closed_timeout",
        )]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin n.flap:c s.drip:80 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin b.half_closed o.reload s.send:70000 s.fin \
             c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin b.half_closed o.drain s.send:70000 s.fin \
             c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin b.half_closed o.maint s.send:70000 s.fin \
             c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin b.half_closed o.kill c.ends:rst s.reset",
            "c KD killed",
        )]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.fin s.ends:fin b.half_closed o.term s.send:70000 s.fin \
             c.ends:fin b.exit",
            "c -- done",
        )]),
    ),
];
