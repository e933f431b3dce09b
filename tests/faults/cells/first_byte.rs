//! A session whose server is connected: neither side has sent a byte.

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
            "c.connect s.accept c.fin s.ends:fin s.send:5 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(Rst),
        Run(&[scene("plain", "c.connect s.accept c.rst s.ends:rst", "c CD client_reset")]),
    ),
    Row(
        Client(Silence),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept c.ends:fin s.ends:fin",
            "c cD idle_timeout",
        )]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene("plain", "c.connect s.accept c.drip:40 s.read:40", "c -- done")]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept n.drop:c s.send:5 s.ends:fin b.ended",
            "c cD idle_timeout",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene("plain", "c.connect s.accept c.urgent c.send:5 s.read:5", "c -- done")]),
    ),
    Row(
        Client(Burst),
        Run(&[
            scene("plain", "c.burst:100", "burst -- done"),
            scene(
                "plain",
                "c.connect s.accept c.pump:4000000 c.fin s.ends:fin s.fin c.ends:fin",
                "c -- done",
            ),
        ]),
    ),
    Row(
        Server(Fin),
        Run(&[scene(
            "plain",
            "c.connect s.accept s.fin c.ends:fin c.send:5 c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Server(Rst),
        Run(&[scene("plain", "c.connect s.accept s.rst c.ends:rst", "c SD server_reset")]),
    ),
    Row(
        Server(Silence),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept c.send:5 s.read:5 c.ends:fin s.ends:fin",
            "c sD idle_timeout",
        )]),
    ),
    Row(
        Server(Slowness),
        Run(&[scene("plain", "c.connect s.accept s.drip:40 c.read:40", "c -- done")]),
    ),
    Row(
        Server(BlackHole),
        Run(&[scene(
            "plain-brief",
            "c.connect s.accept n.drop:s c.send:5 c.ends:fin b.ended",
            "c sD idle_timeout",
        )]),
    ),
    Row(
        Server(Garbage),
        Run(&[scene("plain", "c.connect s.accept s.urgent s.send:5 c.read:5", "c -- done")]),
    ),
    Row(
        Server(Burst),
        Run(&[scene(
            "plain",
            "c.connect s.accept s.pump:4000000 s.fin c.ends:fin c.fin s.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Network(Fin),
        Run(&[scene("ended-at-once", "c.connect s.accept c.ends:fin s.ends:fin", "c -- done")]),
    ),
    Row(
        Network(Rst),
        Run(&[
            scene("plain", "c.connect s.accept n.reset:s c.send:5 c.cut:rst", "c SD server_reset"),
            scene("plain", "c.connect s.accept n.reset:c s.send:5 s.cut:rst", "c CD client_reset"),
        ]),
    ),
    Row(
        Network(Silence),
        Run(&[
            scene("plain", "c.connect s.accept n.stall:c c.send:5 s.read:5", "c -- done"),
            scene("plain", "c.connect s.accept n.stall:s c.send:5 s.read:5", "c -- done"),
        ]),
    ),
    Row(
        Network(Slowness),
        Run(&[
            scene("latency", "c.connect s.accept c.send:5 s.read:5 s.send:5 c.read:5", "c -- done"),
            scene("plain", "c.connect s.accept n.loss:s n.loss:c c.drip:40 s.read:40", "c -- done"),
        ]),
    ),
    Row(
        Network(BlackHole),
        Run(&[
            scene(
                "plain-brief",
                "c.connect s.accept n.drop:c n.drop:s c.send:5 b.ended",
                "c cD idle_timeout",
            ),
            scene(
                "plain-brief",
                "c.connect s.accept n.drop-out:c c.send:5 s.read:5 s.send:5 s.ends:fin",
                "c cD idle_timeout",
            ),
        ]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene("plain", "c.connect s.accept n.flap:s c.drip:40 s.read:40", "c -- done")]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "plain",
            "c.connect s.accept o.reload c.send:5 s.read:5 s.send:5 c.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "plain",
            "c.connect s.accept o.drain c.send:5 s.read:5 s.send:5 c.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "plain",
            "c.connect s.accept o.maint c.send:5 s.read:5 s.send:5 c.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[scene("plain", "c.connect s.accept o.kill c.ends:rst s.ends:rst", "c KD killed")]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "plain",
            "c.connect s.accept o.term c.send:5 s.read:5 s.send:5 c.read:5 c.close s.ends:fin \
             s.close b.exit",
            "c -- done",
        )]),
    ),
];
