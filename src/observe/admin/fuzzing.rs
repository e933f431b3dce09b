//! What fuzzing checks of the control socket: every line gets one line of JSON.

#![expect(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what does not hold is found by a panic"
)]

use std::collections::HashMap;
use std::future::pending;

use tokio::io::{AsyncWriteExt, duplex};

use crate::observe::admin::protocol::Ask;
use crate::observe::admin::serve::{answer, read_line};
use crate::observe::sample::{World, world};
use crate::terms::WorkerIndex;

/// A line to the control socket. The first byte chooses how many bytes come at a time.
pub fn control_request(input: &[u8]) {
    let Some((step, bytes)) = input.split_first() else { return };
    let piece = usize::from(*step).max(1);
    let World { runtime, control, shared } = world();
    let line = runtime.block_on(async {
        let (mut client, mut server) = duplex(piece);
        let sending = async move {
            drop(client.write_all(bytes).await);
            drop(client);
            pending::<()>().await;
        };
        // After the longest request, nothing more is read.
        tokio::select! {
            biased;
            line = read_line(&mut server) => line,
            () = sending => unreachable!(),
        }
    });
    let end = bytes.iter().take(4096).position(|byte| *byte == b'\n');
    assert_eq!(line.as_deref().ok(), end.map(|end| &bytes[..end]));
    let Ok(line) = line else { return };
    let answered = runtime.block_on(async {
        let workers = async {
            loop {
                for worker in 0..2 {
                    // The workers of the sample have no session.
                    shared.orders_to(WorkerIndex(worker)).for_each(drop);
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answered = answer(&line, control, shared) => answered,
            () = workers => unreachable!(),
        }
    });
    let inside = answered.strip_suffix('\n');
    assert!(inside.is_some_and(|line| !line.contains(|c: char| c < ' ')), "{answered:?}");
    let parsed: HashMap<String, serde_json::Value> = match serde_json::from_str(&answered) {
        Ok(parsed) => parsed,
        Err(error) => panic!("{error}: {answered}"),
    };
    let is_one = parsed.len() == 1;
    assert!(is_one && (parsed.contains_key("ok") || parsed.contains_key("error")), "{answered}");
    let Ok(ask) = serde_json::from_slice::<Ask>(&line) else { return };
    let Ok(order) = ask.order() else { return };
    assert_eq!(Ask::from(&order).order(), Ok(order), "as the client writes it");
}
