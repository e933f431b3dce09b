//! A client that waits while another one has the only place at the server.

use super::reasons::{FIN_OF_NETWORK, GARBAGE_OF_NETWORK};
use crate::matrix::Cover::{Never, Run};
use crate::matrix::Fault::{Client, Network, Operator, Server};
use crate::matrix::How::{BlackHole, Burst, Fin, Garbage, Rst, Silence, Slowness};
use crate::matrix::Order::{Drain, Kill, Maint, Reload, Term};
use crate::matrix::{Row, scene};

const NO_CONNECTION: &str = "The server has no connection of a client that waits in the queue.";

pub(super) const ROWS: &[Row] = &[
    Row(
        Client(Fin),
        Run(&[
            scene(
                "queue",
                "h.connect g.accept c.connect b.queued c.fin c.ends:rst",
                "c CQ client_left, h -- done",
            ),
            scene(
                "queue",
                "h.connect g.accept c.connect c.send:5 c.fin b.queued h.close g.close s.accept \
                 s.ends:fin s.send:5 s.close c.ends:fin",
                "c -- done, h -- done",
            ),
        ]),
    ),
    Row(
        Client(Rst),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect c.send:5 b.queued c.rst b.ended",
            "c CQ client_left, h -- done",
        )]),
    ),
    Row(
        Client(Silence),
        Run(&[scene(
            "queue-brief",
            "h.connect g.accept c.connect c.ends:rst",
            "c sQ queue_timeout, h -- done",
        )]),
    ),
    Row(
        Client(Slowness),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued c.drip:20 h.close g.close s.accept c.drip:20 \
             s.read:40",
            "c -- done, h -- done",
        )]),
    ),
    Row(
        Client(BlackHole),
        Run(&[scene(
            "queue-brief",
            "h.connect g.accept c.connect n.drop:c c.send:5 b.ended n.heal:c",
            "c sQ queue_timeout, h -- done",
        )]),
    ),
    Row(
        Client(Garbage),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect c.send:5 c.urgent c.send:5 b.queued h.close g.close \
             s.accept s.read:10",
            "c -- done, h -- done",
        )]),
    ),
    Row(Client(Burst), Run(&[scene("queue", "c.burst:40", "burst -- done")])),
    Row(
        Server(Fin),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued g.fin h.ends:fin h.close s.accept s.send:5 \
             c.read:5",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Server(Rst),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued g.rst h.ends:rst s.accept s.send:5 c.read:5",
            "h SD server_reset, c -- done",
        )]),
    ),
    Row(
        Server(Silence),
        Run(&[scene(
            "queue-brief",
            "h.connect g.accept h.send:5 g.read:5 c.connect c.ends:rst",
            "c sQ queue_timeout, h -- done",
        )]),
    ),
    Row(
        Server(Slowness),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued g.drip:40 h.read:40 g.fin h.ends:fin h.close \
             s.accept s.send:5 c.read:5",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Server(BlackHole),
        Run(&[scene(
            "queue-brief",
            "h.connect g.accept c.connect n.drop:s h.send:5 c.ends:rst n.heal:s g.read:5",
            "c sQ queue_timeout, h -- done",
        )]),
    ),
    Row(Server(Garbage), Never(NO_CONNECTION)),
    Row(Server(Burst), Never(NO_CONNECTION)),
    Row(Network(Fin), Never(FIN_OF_NETWORK)),
    Row(
        Network(Rst),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued n.reset:c c.send:5 c.cut:rst n.heal:c h.close \
             g.close s.accept s.send:5 s.cut:rst",
            "h -- done, c CD client_reset",
        )]),
    ),
    Row(
        Network(Silence),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued n.stall:c c.send:5 h.close g.close s.accept \
             s.read:5",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Network(Slowness),
        Run(&[scene(
            "queue",
            "n.loss:c h.connect g.accept c.connect c.drip:40 b.queued h.close g.close s.accept \
             s.read:40",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Network(BlackHole),
        Run(&[scene(
            "queue-brief",
            "h.connect g.accept c.connect n.drop:c n.drop:s c.send:5 b.ended n.heal:c",
            "c sQ queue_timeout, h -- done",
        )]),
    ),
    Row(Network(Garbage), Never(GARBAGE_OF_NETWORK)),
    Row(
        Network(Burst),
        Run(&[scene(
            "queue",
            "h.connect g.accept n.flap:c c.connect c.drip:40 b.queued h.close g.close s.accept \
             s.read:40",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Operator(Reload),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect c.send:5 b.queued o.reload h.close g.close s.accept \
             s.read:5",
            "h -- done, c -- done",
        )]),
    ),
    Row(
        Operator(Drain),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued o.drain c.ends:rst",
            "c SC no_server, h -- done",
        )]),
    ),
    Row(
        Operator(Maint),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect b.queued o.maint c.ends:rst",
            "c SC no_server, h -- done",
        )]),
    ),
    Row(
        Operator(Kill),
        Run(&[
            scene(
                "queue",
                "h.connect g.accept c.connect b.queued o.kill c.ends:rst",
                "c KD killed, h -- done",
            ),
            scene(
                "queue",
                "h.connect g.accept c.connect b.queued o.kill:h h.ends:rst g.ends:rst s.accept \
                 c.send:5 s.read:5",
                "h KD killed, c -- done",
            ),
        ]),
    ),
    Row(
        Operator(Term),
        Run(&[scene(
            "queue",
            "h.connect g.accept c.connect c.send:5 b.queued o.term h.close g.ends:fin g.close \
             s.accept s.read:5 s.send:5 c.read:5 c.close s.ends:fin s.close b.exit",
            "h -- done, c -- done",
        )]),
    ),
];
