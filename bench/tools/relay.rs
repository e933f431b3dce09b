//! What a Rust programmer would write instead of a balancer: a page each, on tokio and on
//! tokio-uring, without timeouts, limits or counters. They show what these libraries cost.
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// Which library.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Library {
    /// `tokio::io::copy_bidirectional`, on one thread.
    Tokio,
    /// `tokio_uring`, on one thread.
    TokioUring,
}

/// Relays until killed.
pub(crate) fn relay(
    library: Library,
    listen: SocketAddr,
    servers: &[SocketAddr],
) -> io::Result<()> {
    match library {
        Library::Tokio => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, on_tokio(listen, servers))
        }
        Library::TokioUring => tokio_uring::start(on_tokio_uring(listen, servers)),
    }
}

async fn on_tokio(listen: SocketAddr, servers: &[SocketAddr]) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    for turn in 0.. {
        let (mut client, _) = listener.accept().await?;
        let address = servers[turn % servers.len()];
        tokio::task::spawn_local(async move {
            let mut server = tokio::net::TcpStream::connect(address).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
    Ok(())
}

async fn on_tokio_uring(listen: SocketAddr, servers: &[SocketAddr]) -> io::Result<()> {
    let listener = tokio_uring::net::TcpListener::bind(listen)?;
    let turn = Rc::new(Cell::new(0));
    loop {
        let (client, _) = listener.accept().await?;
        let address = servers[turn.replace(turn.get() + 1) % servers.len()];
        tokio_uring::spawn(async move {
            let Ok(server) = tokio_uring::net::TcpStream::connect(address).await else { return };
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            let (client, server) = (Rc::new(client), Rc::new(server));
            let up = tokio_uring::spawn(pump(Rc::clone(&client), Rc::clone(&server)));
            pump(server, client).await;
            up.await.ok();
        });
    }
}

/// One direction, to its end.
async fn pump(from: Rc<tokio_uring::net::TcpStream>, to: Rc<tokio_uring::net::TcpStream>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let (read, filled) = from.read(buffer).await;
        let Ok(count @ 1..) = read else { break };
        use tokio_uring::buf::BoundedBuf as _;
        let (written, slice) = to.write_all(filled.slice(..count)).await;
        if written.is_err() {
            break;
        }
        buffer = slice.into_inner();
    }
    to.shutdown(std::net::Shutdown::Write).ok();
}
