//! The ring, tried with real sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(20));

/// A ring that has received one byte as the only completion of its turn; the socket, the buffer,
/// and the peer.
fn received() -> (Ring, Socket, BufferId, TcpStream) {
    let mut ring = Ring::new(64, 8).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = Socket::from(listener.accept().unwrap().0);
    peer.write_all(b"x").unwrap();
    ring.receive(&socket, 1, false);
    ring.wait(Duration::ZERO, TIMEOUT).unwrap();
    let received = ring.completion().unwrap();
    assert_eq!((received.user_data, received.result), (1, Ok(1)));
    (ring, socket, received.buffer.unwrap(), peer)
}

#[test]
fn a_send_after_the_only_completion_completes_in_the_same_turn() {
    let (mut ring, socket, buffer, mut peer) = received();
    ring.send(&socket, 2, buffer, (0, 1), false);
    let sent = ring.completion().unwrap();
    assert_eq!((sent.user_data, sent.result, sent.more), (2, Ok(1), false));
    assert!(ring.completion().is_none());
    peer.read_exact(&mut [0]).unwrap();

    ring.send(&socket, 3, sent.buffer.unwrap(), (0, 1), false);
    assert!(ring.completion().is_none(), "after the last completion it goes to the ring");
    ring.wait(Duration::ZERO, TIMEOUT).unwrap();
    let sent = ring.completion().unwrap();
    assert_eq!((sent.user_data, sent.result), (3, Ok(1)));
    assert!(sent.buffer.is_some(), "it comes back");
    peer.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_connect_to_a_unix_socket_completes_without_a_wait() {
    let mut ring = Ring::new(64, 8).unwrap();
    let path = std::env::temp_dir().join(format!("evenkeel-ring-{}", std::process::id()));
    let address = SockAddr::unix(&path).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut connect = || {
        let socket = Socket::to(&address).unwrap();
        ring.connect(&socket, address.clone(), 7);
        ring.wait(Duration::ZERO, None).unwrap();
        let connected = ring.completion().unwrap();
        assert_eq!((connected.user_data, connected.more), (7, false));
        connected.result
    };
    assert_eq!(connect(), Ok(0));
    drop(listener);
    assert_eq!(connect(), Err(Errno::ECONNREFUSED));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(connect(), Err(Errno::ENOENT));
}

#[test]
fn connects_to_a_full_submission_queue_keep_their_addresses() {
    let mut ring = Ring::new(64, 8).unwrap();
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    while !ring.uring.submission().is_full() {
        ring.cancel(1);
    }
    let connect = |listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        let socket = Socket::to(&address.into()).unwrap();
        ring.connect(&socket, address, 2);
        socket
    };
    let _sockets = listeners.each_ref().map(connect);
    let mut answered = 0;
    while answered < listeners.len() {
        ring.wait(Duration::ZERO, TIMEOUT).unwrap();
        while let Some(connected) = ring.completion() {
            connected.result.unwrap();
            answered += 1;
        }
    }
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        listener.accept().expect("one connection each");
    }
}

#[test]
fn a_send_to_a_full_socket_completes_once_there_is_room() {
    let (mut ring, socket, mut buffer, mut peer) = received();
    let whole = (0, u32::try_from(BUFFER_SIZE).unwrap());
    let (mut taken, mut sends) = (0, 0);
    loop {
        ring.send(&socket, 2, buffer, whole, false);
        sends += 1;
        let Some(sent) = ring.completion() else { break };
        taken += u64::from(sent.result.unwrap());
        buffer = sent.buffer.unwrap();
        assert!(sends < 10_000, "{taken} bytes fit into one socket");
    }
    let count = move || {
        let mut got = vec![0; 1 << 20];
        std::iter::from_fn(|| peer.read(&mut got).ok().filter(|read| *read > 0)).sum::<usize>()
    };
    let reader = std::thread::spawn(count);
    ring.wait(Duration::ZERO, TIMEOUT).unwrap();
    let sent = ring.completion().unwrap();
    assert_eq!(sent.user_data, 2);
    taken += u64::from(sent.result.unwrap());
    socket.shut_down();
    assert_eq!(reader.join().unwrap() as u64, taken);
}

#[test]
fn memory_with_a_completion_that_was_not_read_is_not_given_back() {
    let (mut ring, socket, buffer, mut peer) = received();
    ring.release(buffer);
    peer.write_all(b"whole").unwrap();
    ring.receive(&socket, 2, false);
    // As a full submission queue does within a turn.
    ring.submit();
    ring.give_back_memory();
    let received = ring.completion().unwrap();
    assert_eq!((received.user_data, received.result), (2, Ok(5)));
    assert_eq!(ring.buffers().bytes(&received.buffer.unwrap(), (0, 5)), b"whole");
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Arms the wait timer for `after` from now, and submits that.
fn arm_wait_timer(ring: &mut Ring, after: Duration) {
    let now = ring.now();
    let entry = ring.wait_timer.arm(now, now + after);
    ring.push(&entry);
    ring.submit();
}

/// Waits repeatedly until `time` from now; returns how many waits that took.
fn wait_for(ring: &mut Ring, time: Duration) -> usize {
    let until = ring.now() + time;
    for waits in 0..100 {
        let now = ring.now();
        if now >= until {
            return waits;
        }
        ring.wait(now, Some(until)).unwrap();
        assert!(ring.completion().is_none(), "the completion of the timer is not returned");
    }
    panic!("100 waits did not take {time:?}");
}

#[test]
fn a_wait_ends_at_its_own_time_whether_earlier_or_later_than_the_previous_one() {
    let mut ring = Ring::new(64, 8).unwrap();
    arm_wait_timer(&mut ring, Duration::from_secs(3600));
    assert!(wait_for(&mut ring, millis(30)) <= 1, "the timer is updated to an earlier time");
    // A timer that expires during the next wait.
    arm_wait_timer(&mut ring, millis(20));
    assert!(wait_for(&mut ring, millis(60)) <= 2);
    assert!(wait_for(&mut ring, millis(10)) <= 1);
    assert!(ring.now() < Duration::from_secs(60), "no wait lasted until the first time");
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_long_turn_does_not_lengthen_the_next_wait() {
    let mut ring = Ring::new(64, 8).unwrap();
    let until = Duration::from_secs(2);
    // As if this turn had begun a second ago: the rest is counted from now.
    ring.started -= Duration::from_secs(1);
    ring.wait(Duration::ZERO, Some(until)).unwrap();
    while ring.now() < until {
        assert!(ring.completion().is_none());
        ring.wait(ring.now(), Some(until)).unwrap();
    }
    assert!(ring.now() < until + millis(700), "{:?}", ring.now());
}

#[test]
fn a_timer_whose_completion_was_not_read_is_armed_again() {
    let mut ring = Ring::new(64, 8).unwrap();
    arm_wait_timer(&mut ring, millis(5));
    ring.wait(ring.now(), None).unwrap();
    // Its completion was not read, so it cannot be updated any more.
    let (now, at) = (ring.now(), ring.now() - millis(4));
    let entry = ring.wait_timer.arm(now, at.min(millis(1)));
    ring.push(&entry);
    ring.submit();
    assert!(ring.completion().is_none());
    assert!(wait_for(&mut ring, millis(20)) <= 1);
}

#[test]
fn a_wait_until_now_returns_at_once_with_the_completions() {
    let (mut ring, socket, buffer, mut peer) = received();
    ring.release(buffer);
    let now = Duration::from_secs(7);
    ring.wait(now, Some(now)).unwrap();
    assert!(ring.completion().is_none());
    ring.receive(&socket, 2, false);
    peer.write_all(b"x").unwrap();
    ring.wait(now, Some(now)).unwrap();
    assert_eq!(ring.completion().unwrap().user_data, 2);
}

#[test]
#[should_panic(expected = "user data is below 2^62")]
fn user_data_of_the_ring_itself_is_refused() {
    let (mut ring, socket, ..) = received();
    ring.receive(&socket, NOBODY, false);
}

#[test]
fn an_operation_in_flight_ends_before_finish_returns() {
    let (mut ring, socket, ..) = received();
    ring.receive(&socket, 2, true);
    ring.cancel(2);
    ring.finish(Duration::from_secs(20));
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_cancelled_send_completes_and_returns_its_buffer() {
    let (mut ring, socket, mut buffer, _peer) = received();
    let whole = (0, u32::try_from(BUFFER_SIZE).unwrap());
    let key = loop {
        let key = ring.send(&socket, 2, buffer, whole, false);
        let Some(sent) = ring.completion() else { break key };
        buffer = sent.buffer.unwrap();
    };
    assert_eq!(ring.buffers().held(), 1, "the send holds it");
    ring.cancel_send(key);
    ring.wait(Duration::ZERO, TIMEOUT).unwrap();
    let sent = ring.completion().unwrap();
    assert_eq!((sent.user_data, sent.result), (2, Err(Errno::ECANCELED)));
    ring.release(sent.buffer.unwrap());
    assert_eq!(ring.buffers().held(), 0);
}
