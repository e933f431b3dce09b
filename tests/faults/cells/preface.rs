//! A client whose PROXY header is incomplete.

use super::reasons::{FIN_OF_NETWORK, GARBAGE_OF_NETWORK};
use crate::matrix::Cover::{Never, Run};
use crate::matrix::Fault::{Client, Network, Operator, Server};
use crate::matrix::How::{BlackHole, Burst, Fin, Garbage, Rst, Silence, Slowness};
use crate::matrix::Order::{Drain, Kill, Maint, Reload, Term};
use crate::matrix::{Row, scene};

const NO_SERVER: &str = "No server is chosen before the preface is complete.";

pub(super) const ROWS: &[Row] = &[
    Row(
        Client(Fin),
        Run(&[
            scene("preface", "c.connect c.fin c.ends:rst", "c CR client_left"),
            scene("preface", "c.connect c.header-half c.fin c.ends:rst", "c CR client_left"),
        ]),
    ),
    Row(
        Client(Rst),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface c.rst b.ended",
            "c CR client_left",
        )]),
    ),
    Row(
        Client(Silence),
        Run(&[
            scene("preface-brief", "c.connect c.ends:rst", "c cR preface_timeout"),
            scene("preface-brief", "c.connect c.header-half c.ends:rst", "c cR preface_timeout"),
        ]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "preface",
            "c.connect c.header-drip c.drip:20 s.accept s.read:20 s.fin c.ends:fin",
            "c -- done",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "preface-brief",
            "c.connect c.header-half b.preface n.drop:c c.header-rest b.ended",
            "c cR preface_timeout",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[
            scene("preface", "c.connect c.garbage c.ends:rst", "c PR bad_preface"),
            scene("preface", "c.connect c.header-half c.garbage c.ends:rst", "c PR bad_preface"),
        ]),
    ),
    Row(Client(Burst), Run(&[scene("preface", "c.burst-header:40", "burst -- done")])),
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
            "preface-brief",
            "c.connect c.header-half b.preface n.reset:c c.header-rest c.ends:rst b.ended",
            "c cR preface_timeout",
        )]),
    ),
    Row(
        Network(Silence),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface n.stall:c c.header-rest c.send:5 s.accept \
             s.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Network(Slowness),
        Run(&[scene(
            "preface",
            "n.loss:c c.connect c.header-drip c.drip:20 s.accept s.read:20",
            "c -- done",
        )]),
    ),
    Row(
        Network(BlackHole),
        Run(&[scene(
            "preface-brief",
            "c.connect c.header-half n.drop-out:c c.header-rest s.accept s.send:5 s.ends:fin",
            "c cD idle_timeout",
        )]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene(
            "preface",
            "c.connect n.flap:c c.header-drip c.drip:20 s.accept s.read:20",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface o.reload c.header-rest c.send:5 s.accept s.read:5",
            "c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface o.drain c.header-rest c.ends:rst",
            "c SC no_server",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface o.maint c.header-rest c.ends:rst",
            "c SC no_server",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface o.kill c.ends:rst",
            "c KD killed",
        )]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "preface",
            "c.connect c.header-half b.preface o.term c.header-rest c.send:5 s.accept s.read:5 \
             s.send:5 c.read:5 c.close s.ends:fin s.close b.exit",
            "c -- done",
        )]),
    ),
];
