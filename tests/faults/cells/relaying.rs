//! A session that relays. Each script runs twice: with small messages, and with bulk.

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
            "c.connect s.accept relay c.send:70000 c.fin s.ends:fin s.pump:300000 s.fin \
             c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(Rst),
        Run(&[
            scene("plain", "c.connect s.accept relay c.rst s.cut:rst", "c CD client_reset"),
            // Bytes wait in the balancer for the client.
            scene(
                "plain",
                "c.connect:small s.accept relay s.ahead c.rst s.cut:rst",
                "c CD client_reset",
            ),
        ]),
    ),
    Row(
        Client(Silence),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept relay c.ends:fin s.ends:fin",
            "c cD idle_timeout",
        )]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "plain",
            "c.connect:small s.accept relay c.drip:20 s.read:20 s.ahead s.fin c.sip:80000 \
             c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept relay n.drop:c s.send:50 s.ends:fin b.ended",
            "c cD idle_timeout",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.send:50 c.urgent c.send:50 s.read:100 c.urgent c.send:5 \
             s.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Client(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.pump:8000000 c.fin s.ends:fin s.send:5 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(Fin),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.send:70000 s.fin c.ends:fin c.pump:300000 c.fin \
             s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(Rst),
        Run(&[
            scene("plain", "c.connect s.accept relay s.rst c.ends:rst", "c SD server_reset"),
            scene(
                "plain",
                "c.connect:small s.accept relay s.ahead s.rst c.ends:rst",
                "c SD server_reset",
            ),
        ]),
    ),
    Row(
        Server(Silence),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept relay c.send:5 s.read:5 c.ends:fin s.ends:fin",
            "c sD idle_timeout",
        )]),
    ),
    Row(
        Server(Slowness),
        Run(&[scene(
            "late",
            "c.connect s.accept relay s.drip:20 c.read:20 c.ahead c.fin s.sip:80000 s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(BlackHole),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept relay n.drop:s c.send:50 c.ends:fin b.ended",
            "c sD idle_timeout",
        )]),
    ),
    Row(
        Server(Garbage),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.send:50 s.urgent s.send:50 c.read:100 s.urgent s.send:5 \
             c.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Server(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay s.pump:8000000 s.fin c.ends:fin c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Network(Fin),
        Run(&[scene(
            "ended",
            "c.connect s.accept c.send:1000 s.read:1000 c.ends:fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Network(Rst),
        Run(&[
            scene(
                "plain",
                "c.connect s.accept relay n.reset:s c.send:50 c.cut:rst",
                "c SD server_reset",
            ),
            scene(
                "plain",
                "c.connect s.accept relay n.reset:c s.send:50 s.cut:rst",
                "c CD client_reset",
            ),
            scene(
                "reset",
                "c.connect s.accept s.send:1000 c.ends:rst s.cut:rst",
                "c SD server_reset",
            ),
        ]),
    ),
    Row(
        Network(Silence),
        Run(&[
            scene(
                "plain",
                "c.connect s.accept relay n.stall:c c.send:5000 s.read:5000 s.send:50 c.read:50",
                "c -- done",
            ),
            scene(
                "plain",
                "c.connect s.accept relay n.stall:s c.pump:500000 s.pump:500000",
                "c -- done",
            ),
        ]),
    ),
    Row(
        Network(Slowness),
        Run(&[
            scene(
                "plain",
                "n.loss:c n.loss:s c.connect s.accept relay c.drip:40 s.read:40 s.drip:40 \
                 c.read:40",
                "c -- done",
            ),
            scene(
                "latency",
                "c.connect s.accept c.send:5000 s.read:5000 s.send:5000 c.read:5000 \
                 s.pump:200000",
                "c -- done",
            ),
            scene(
                "slices",
                "c.connect s.accept c.pump:20000 s.pump:20000 c.fin s.ends:fin s.fin c.ends:fin",
                "c -- done",
            ),
        ]),
    ),
    Row(
        Network(BlackHole),
        Run(&[
            scene(
                "plain-brief",
                "c.connect s.accept relay n.drop:c n.drop:s c.send:50 s.send:50 b.ended",
                "c cD idle_timeout",
            ),
            // One way only.
            scene(
                "plain-brief",
                "c.connect s.accept relay n.drop-out:c s.send:50 s.ends:fin b.ended",
                "c cD idle_timeout",
            ),
            scene(
                "plain-brief",
                "c.connect s.accept relay n.drop-out:s c.send:50 c.ends:fin b.ended",
                "c sD idle_timeout",
            ),
        ]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay n.flap:s c.drip:40 s.read:40 s.drip:40 c.read:40 \
             s.pump:100000",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.send:50 o.reload s.read:50 relay",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.send:50 o.drain s.read:50 relay",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.send:50 o.maint s.read:50 relay",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[
            scene("plain", "c.connect s.accept relay o.kill c.ends:rst s.ends:rst", "c KD killed"),
            scene(
                "plain",
                "c.connect:small s.accept relay s.ahead o.kill c.cut:rst s.ends:rst",
                "c KD killed",
            ),
        ]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "plain",
            "c.connect s.accept relay c.send:50 o.term s.read:50 relay c.close s.ends:fin \
             s.close b.exit",
            "c -- done",
        )]),
    ),
];
