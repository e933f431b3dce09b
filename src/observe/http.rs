//! HTTP for people and scrapers: /metrics, /healthz, /readyz, the status page.
//!
//! A connection serves one request and has a moment at which it ends, whatever it does; as many as
//! [`CONNECTIONS_MAX`] are served at once. So a reader that stalls costs a place for a while, and
//! traffic nothing.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::control::drain::Phase;
use crate::control::table::Seam;
use crate::observe::report::Report;
use crate::observe::status::{Request, Snapshot};
use crate::observe::{exposition, page};

/// Connections served at once; what is beyond it waits in the backlog.
const CONNECTIONS_MAX: usize = 128;

/// Of a connection, from its accept to its last byte; as long as Prometheus waits for a scrape.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// For the control thread to say what it knows.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a request's head, and its header lines.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADER_LINES_MAX: usize = 64;

/// What the handlers need.
struct Observer {
    control: mpsc::Sender<Request>,
    seam: Arc<Seam>,
    /// One document is made at a time: who scrapes in a loop gets one core at most.
    press: Semaphore,
}

/// Serves `listener` until the control thread hangs up; dropped, it ends every connection. Runs
/// inside tokio (tokio-uring's too).
///
/// # Errors
/// The runtime cannot take the socket.
pub async fn serve(
    listener: TcpListener,
    control: mpsc::Sender<Request>,
    seam: Arc<Seam>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router(control.clone(), seam);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = control.closed() => return Ok(()),
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                connections.spawn(async move {
                    let _place = place;
                    converse(stream, router).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: without a pause this would be a spin.
                tracing::warn!("observe.bind: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn router(control: mpsc::Sender<Request>, seam: Arc<Seam>) -> Router {
    let observer = Observer { control, seam, press: Semaphore::new(1) };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status.json", get(status_json))
        .route("/", get(status_page))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::new(observer))
}

/// One request, one answer; what a peer does wrong is its own matter.
async fn converse(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADER_LINES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("observe.bind: {error}"),
        Err(_) => tracing::debug!("observe.bind: a connection took too long"),
    }
}

async fn metrics(State(observer): State<Arc<Observer>>) -> Response {
    const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";
    observer.document(KIND, exposition::render).await
}

async fn status_json(State(observer): State<Arc<Observer>>) -> Response {
    let render = |snapshot: &Snapshot, seam: &Seam| {
        let text = serde_json::to_string(&Report::new(snapshot, seam));
        text.unwrap_or_default() + "\n"
    };
    observer.document("application/json", render).await
}

async fn status_page(State(observer): State<Arc<Observer>>) -> Response {
    let render = |snapshot: &Snapshot, seam: &Seam| page::render(&Report::new(snapshot, seam));
    observer.document("text/html; charset=utf-8", render).await
}

/// The process lives, and its control thread turns.
async fn healthz() -> Response {
    line(StatusCode::OK, "ok")
}

/// Whether new clients may be sent here.
async fn readyz(State(observer): State<Arc<Observer>>) -> Response {
    match observer.seam.phase.load() {
        Phase::Running => line(StatusCode::OK, "ready"),
        Phase::Draining(_) => line(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Phase::Stopped => line(StatusCode::SERVICE_UNAVAILABLE, "stopped"),
    }
}

async fn not_found() -> Response {
    line(StatusCode::NOT_FOUND, "not here: /, /metrics, /healthz, /readyz, /status.json")
}

async fn method_not_allowed() -> Response {
    line(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD")
}

impl Observer {
    /// Asks the control thread, and has a document made of its answer on a thread of the pool:
    /// with a thousand servers that takes longer than probes should wait.
    async fn document(
        &self,
        kind: &'static str,
        render: impl FnOnce(&Snapshot, &Seam) -> String + Send + 'static,
    ) -> Response {
        let asked = async {
            let press = self.press.acquire().await.ok()?;
            let (sender, receiver) = oneshot::channel();
            self.control.send(Request::Snapshot(sender)).await.ok()?;
            Some((press, receiver.await.ok()?))
        };
        let (_press, snapshot) = match timeout(CONTROL_TIMEOUT, asked).await {
            Ok(Some(answered)) => answered,
            Ok(None) => return line(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Err(_) => return line(StatusCode::SERVICE_UNAVAILABLE, "the control thread hangs"),
        };
        let seam = Arc::clone(&self.seam);
        match spawn_blocking(move || render(&snapshot, &seam)).await {
            Ok(text) => answer(StatusCode::OK, kind, text),
            Err(_) => line(StatusCode::INTERNAL_SERVER_ERROR, "the document could not be made"),
        }
    }
}

fn line(status: StatusCode, text: &str) -> Response {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (status, headers, text).into_response()
}
