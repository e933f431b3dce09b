//! Names such as "pi.local" by multicast DNS, on a virtual Ethernet between two network namespaces:
//! that of the test, and that of a Pi.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel::sys::child::die_with_parent;
use hickory_resolver::proto::op::{Message, MessageType};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Socket, Type};

use crate::common::client::fetch;
use crate::common::wait::holds_for;
use crate::common::{Balancer, Config, Server, TestEnv, skip, until};
use crate::network_namespace::enter;

const HERE: &str = "10.9.0.1";
const PI: &str = "10.9.0.2";

/// The network namespace of the Pi, at the other end of `pair0`.
struct Pi(File);

impl Pi {
    /// With an IPv4 address on both sides, or with IPv6 link-local addresses alone.
    fn new(has_v4: bool) -> Self {
        let own = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let pi = Self(own.join().unwrap());
        let namespace = pi.path();
        ip("link add pair0 type veth peer name pair1");
        ip(&format!("link set pair1 netns {namespace}"));
        let up = |name: &str, address: &str| {
            // Without duplicate address detection, a link-local address can be used at once.
            let file = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
            drop(fs::write(file, "0"));
            if has_v4 {
                ip(&format!("address add {address}/24 dev {name}"));
            }
            ip(&format!("link set {name} up"));
        };
        up("pair0", HERE);
        pi.run(|| {
            ip("link set lo up");
            up("pair1", PI);
        });
        pi
    }

    /// For programs.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `action` in it. Sockets, threads and processes that it makes stay there.
    fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            thread.join().unwrap()
        })
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// What a responder does.
#[derive(Debug, Clone)]
struct Script {
    addresses: Vec<IpAddr>,
    /// Before the answer, in its place: bytes that are no message, and messages that are no answer.
    rubbish: bool,
    /// The address that it answers from.
    from: SocketAddr,
}

/// A responder for `pi.local`, on IPv4 or on IPv6.
struct Responder {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Responder {
    fn start(pi: &Pi, script: Script) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&stopped);
        let thread = pi.run(move || {
            let (socket, answers) = (group_socket(script.from.is_ipv4()), port_socket(script.from));
            std::thread::spawn(move || respond(&socket, &answers, &script, &of_thread))
        });
        Self { stopped, thread: Some(thread) }
    }

    /// Ends it; the number of questions that it had.
    fn end(mut self) -> usize {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn group_socket(is_v4: bool) -> UdpSocket {
    let domain = if is_v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if is_v4 {
        let group = Ipv4Addr::new(224, 0, 0, 251);
        socket.bind(&SocketAddr::from((group, 5353)).into()).unwrap();
        socket.join_multicast_v4(&group, &PI.parse().unwrap()).unwrap();
    } else {
        let group = "ff02::fb".parse().unwrap();
        socket.set_only_v6(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5353)).into()).unwrap();
        socket.join_multicast_v6(&group, if_nametoindex("pair1").unwrap()).unwrap();
    }
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.into()
}

fn port_socket(from: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(from), Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.into()
}

fn respond(group: &UdpSocket, answers: &UdpSocket, script: &Script, stop: &AtomicBool) -> usize {
    let (mut question, mut count) = ([0; 9000], 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = group.recv_from(&mut question) else { continue };
        let Ok(query) = Message::from_vec(&question[..length]) else { continue };
        assert_ne!(client.port(), 5353, "a one-shot query has a port of its own");
        count += 1;
        let kind = query.queries[0].query_type();
        let mut answer = query.clone();
        answer.metadata.message_type = MessageType::Response;
        let name = Name::from_ascii("pi.local.").unwrap();
        let of_kind = script.addresses.iter().filter(|ip| ip.is_ipv4() == (kind == RecordType::A));
        for ip in of_kind {
            answer.add_answer(Record::from_rdata(name.clone(), 10, RData::from(*ip)));
        }
        if script.rubbish {
            for wrong in rubbish(&answer) {
                drop(answers.send_to(&wrong, client));
            }
        }
        if query.queries[0].name() == &name && !answer.answers.is_empty() {
            drop(answers.send_to(&answer.to_vec().unwrap(), client));
        }
    }
    count
}

/// Datagrams that are no answer to a question, each with an address at which no server is.
fn rubbish(answer: &Message) -> Vec<Vec<u8>> {
    let nowhere = |name: &str| {
        let name = Name::from_ascii(name).unwrap();
        Record::from_rdata(name, 10, RData::from(IpAddr::from([10, 9, 0, 99])))
    };
    let mut whole = answer.clone();
    whole.answers = vec![nowhere("pi.local.")];
    let mut other_id = whole.clone();
    other_id.metadata.id ^= 1;
    let mut query = whole.clone();
    query.metadata.message_type = MessageType::Query;
    let mut other_name = whole.clone();
    other_name.answers = vec![nowhere("other.local.")];
    let bytes = whole.to_vec().unwrap();
    let mut all: Vec<Vec<u8>> =
        [other_id, query, other_name].iter().map(|wrong| wrong.to_vec().unwrap()).collect();
    all.push(bytes[..bytes.len() - 3].to_vec());
    all.push(vec![0xff; 500]);
    all.push(Vec::new());
    all
}

fn named(host: &str) -> String {
    format!("[[backend.web.server]]\nname = \"pi\"\naddress = \"{host}:9001\"\n")
}

/// Without DNS: multicast DNS alone can answer.
fn config(env: &TestEnv) -> Config {
    let nowhere = format!("resolver = [\"{}\"]", env.port(5300));
    Config::new(env).global(&nowhere).more(&named("pi.local"))
}

fn reaches(balancer: &Balancer<'_>, name: &str) {
    until("the server is reached", || {
        fetch(balancer.env.frontend()).is_ok_and(|answer| answer == name)
    });
}

#[test]
fn a_local_name_is_resolved_by_multicast_and_followed() {
    if !enter("a_local_name_is_resolved_by_multicast_and_followed") {
        return;
    }
    let (env, pi) = (TestEnv::new(), Pi::new(true));
    pi.run(|| ip("address add 10.9.0.3/24 dev pair1"));
    let server = |name, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        pi.run(|| Server::naming(name, address))
    };
    let _one = server("one", "10.9.0.2:9001");
    let _two = server("two", "10.9.0.3:9001");
    let from = (PI.parse::<IpAddr>().unwrap(), 5353).into();
    let script = Script { addresses: vec![PI.parse().unwrap()], rubbish: true, from };
    let responder = Responder::start(&pi, script.clone());
    let balancer = Balancer::start(&env, &config(&env));
    assert_eq!(fetch(env.frontend()).unwrap(), "one", "rubbish is ignored");
    assert!(responder.end() > 0);
    let moved = Script { addresses: vec!["10.9.0.3".parse().unwrap()], ..script };
    let _responder = Responder::start(&pi, moved);
    reaches(&balancer, "two");
    balancer.assert_no_leaks();
}

#[test]
fn an_ipv6_link_local_answer_is_reached_through_its_interface() {
    if !enter("an_ipv6_link_local_answer_is_reached_through_its_interface") {
        return;
    }
    let (env, pi) = (TestEnv::new(), Pi::new(false));
    let (own, zone) = pi.run(|| {
        until("pair1 has an address", || link_local("pair1").is_some());
        (link_local("pair1").unwrap(), if_nametoindex("pair1").unwrap())
    });
    until("pair0 has an address", || link_local("pair0").is_some());
    let _one = pi.run(|| Server::naming("one", "[::]:9001".parse().unwrap()));
    let from = SocketAddr::V6(std::net::SocketAddrV6::new(own, 5353, 0, zone));
    let script = Script { addresses: vec![own.into()], rubbish: false, from };
    let _responder = Responder::start(&pi, script);
    let balancer = Balancer::start(&env, &config(&env).quick_health("tcp"));
    reaches(&balancer, "one");
    let status = balancer.control_ok(&["status", "--json"]);
    assert!(status.contains(&format!("[{own}%pair0]:9001")), "{status}");
    balancer.assert_no_leaks();
}

/// The link-local address of an interface of this network namespace.
fn link_local(interface: &str) -> Option<Ipv6Addr> {
    let text = fs::read_to_string("/proc/thread-self/net/if_inet6").ok()?;
    let line = text.lines().find(|line| line.ends_with(interface) && line.starts_with("fe80"))?;
    let digits = u128::from_str_radix(&line[..32], 16).ok()?;
    Some(Ipv6Addr::from(digits))
}

#[test]
fn an_answer_from_another_network_or_port_does_not_count() {
    if !enter("an_answer_from_another_network_or_port_does_not_count") {
        return;
    }
    let (env, pi) = (TestEnv::new(), Pi::new(true));
    fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
    fs::write("/proc/sys/net/ipv4/conf/pair0/rp_filter", "0").unwrap();
    pi.run(|| ip("address add 10.8.0.9/24 dev pair1"));
    let _one = pi.run(|| Server::naming("one", "10.9.0.2:9001".parse().unwrap()));
    let script = |from: &str| Script {
        addresses: vec![PI.parse().unwrap()],
        rubbish: false,
        from: from.parse().unwrap(),
    };
    let far = Responder::start(&pi, script("10.8.0.9:5353"));
    let balancer = Balancer::start(&env, &config(&env));
    assert!(holds_for(Duration::from_secs(3), || fetch(env.frontend()).is_err()));
    assert!(far.end() > 0, "it was asked");
    let wrong_port = Responder::start(&pi, script("10.9.0.2:5354"));
    assert!(holds_for(Duration::from_secs(4), || fetch(env.frontend()).is_err()));
    wrong_port.end();
    let log = balancer.application_log();
    assert!(log.contains("no answer by multicast DNS within 2 s"), "{log}");
    let _near = Responder::start(&pi, script("10.9.0.2:5353"));
    reaches(&balancer, "one");
    balancer.assert_no_leaks();
}

/// avahi-daemon, which ends with the test.
struct Avahi(Child);

impl Avahi {
    fn start(env: &TestEnv, pi: &Pi) -> Self {
        let file = env.file("avahi.conf");
        let text = "[server]\nhost-name=pi\nenable-dbus=no\nallow-interfaces=pair1\n\
                    use-ipv4=yes\nuse-ipv6=yes\n[publish]\npublish-workstation=no\n";
        fs::write(&file, text).unwrap();
        let log = File::create(env.file("avahi.log")).unwrap();
        // It has one place for its process id.
        let script = "mount -t tmpfs none /run && exec avahi-daemon --no-drop-root --no-chroot \
                      --no-rlimits --file \"$0\"";
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", pi.path()));
        command.args(["unshare", "--mount", "sh", "-c", script]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        die_with_parent(&mut command);
        let avahi = Self(command.spawn().unwrap());
        until("avahi has announced the host name", || {
            let log = fs::read_to_string(env.file("avahi.log")).unwrap();
            log.contains("Server startup complete")
        });
        avahi
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_host_that_avahi_announces_is_resolved() {
    let test = "a_host_that_avahi_announces_is_resolved";
    if !enter(test) {
        return;
    }
    if Command::new("avahi-daemon").arg("--version").output().is_err() {
        return skip(test, "not installed: avahi-daemon (tests/run installs it)");
    }
    let (env, pi) = (TestEnv::new(), Pi::new(true));
    let _one = pi.run(|| Server::naming("one", "10.9.0.2:9001".parse().unwrap()));
    let _avahi = Avahi::start(&env, &pi);
    let balancer = Balancer::start(&env, &config(&env).quick_health("tcp"));
    reaches(&balancer, "one");
    let status = balancer.control_ok(&["status", "--json"]);
    assert!(status.contains("10.9.0.2:9001"), "{status}");
    assert!(!status.contains("fe80"), "its link-local address is another way to it: {status}");
    balancer.assert_no_leaks();
}
