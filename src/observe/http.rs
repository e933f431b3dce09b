//! HTTP: /metrics, /healthz, /readyz, the status page.
//!
//! A connection serves one request and has a deadline; at most [`CONNECTIONS_MAX`] are open. A
//! client that stalls takes one of them for [`STALL_TIMEOUT`], and costs traffic nothing.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::observe::connection_limit::{self, ConnectionLimit, RequestArrived};
use crate::observe::document::{CONTROL_TIMEOUT, Documents, PLACE_TIMEOUT, Unavailable};
use crate::observe::exposition::{Exposition, Recorder};
use crate::observe::page;
use crate::observe::report::Report;
use crate::shared::orders::Request;
use crate::shared::phase::Phase;
use crate::shared::state::SharedState;

/// Open connections; at the limit, a new one replaces the one whose time is over first.
pub const CONNECTIONS_MAX: usize = 128;

/// For a connection, from its accept to its last byte; as long as Prometheus waits for a scrape.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// For a client that receives nothing: then the kernel ends its connection (`TCP_USER_TIMEOUT`
/// counts closed windows too, tcp(7)).
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// For a connection from its request on, while others wait: the time until a document begins, and a
/// second for the answer to be read.
const ANSWER_TIMEOUT: Duration =
    PLACE_TIMEOUT.saturating_add(CONTROL_TIMEOUT).saturating_add(Duration::from_secs(1));

/// Bytes of the head of a request, and its header lines.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADER_LINES_MAX: usize = 64;

/// What the handlers need.
struct Observer {
    documents: Documents,
    recorder: Arc<Recorder>,
    shared: Arc<SharedState>,
}

/// Serves `listener` until the control thread drops its receiver of requests; dropped, it ends
/// every connection. Runs inside tokio (tokio-uring's too).
///
/// # Errors
/// The runtime cannot take the socket.
pub async fn serve(
    listener: TcpListener,
    control: mpsc::Sender<Request>,
    shared: Arc<SharedState>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router(control.clone(), Arc::clone(&shared));
    let accept = || async { Ok(listener.accept().await?.0) };
    let converse = |stream: TcpStream, arrived| {
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT)) {
            tracing::debug!("observe.bind: TCP_USER_TIMEOUT: {error}");
        }
        converse(stream, arrived, router.clone())
    };
    let answer_timeout = Some(ANSWER_TIMEOUT);
    let limit = ConnectionLimit { name: "observe.bind", max: CONNECTIONS_MAX, answer_timeout };
    let open = connection_limit::serve(limit, &control, &shared, accept, converse).await;
    // A new process may have it.
    drop(listener);
    open.finish().await;
    Ok(())
}

pub(super) fn router(control: mpsc::Sender<Request>, shared: Arc<SharedState>) -> Router {
    let documents = Documents::new(control, Arc::clone(&shared));
    let observer = Observer { documents, recorder: Arc::default(), shared };
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

/// One request, one answer; errors of the peer are ignored.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    arrived: RequestArrived,
    router: Router,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request| {
        arrived.set();
        router.call(request)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // A client may shut down once it has sent its request.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADER_LINES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("observe.bind: {error}"),
        Err(_) => tracing::debug!("observe.bind: a connection took too long"),
    }
}

async fn metrics(State(observer): State<Arc<Observer>>) -> Response {
    const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";
    let recorder = Arc::clone(&observer.recorder);
    let begin = move |snapshot, shared| Exposition::new(snapshot, shared, &recorder);
    document(KIND, observer.documents.make(begin).await)
}

async fn status_json(State(observer): State<Arc<Observer>>) -> Response {
    let render = |snapshot, shared: Arc<SharedState>| {
        let text = serde_json::to_string(&Report::new(&snapshot, &shared));
        std::iter::once(text.unwrap_or_default() + "\n")
    };
    document("application/json", observer.documents.make(render).await)
}

async fn status_page(State(observer): State<Arc<Observer>>) -> Response {
    let render = |snapshot, shared: Arc<SharedState>| {
        std::iter::once(page::render(&Report::new(&snapshot, &shared)))
    };
    document("text/html; charset=utf-8", observer.documents.make(render).await)
}

/// 200 while no worker is stuck. It runs on the control thread: while that is blocked, there is no
/// answer. The watchdog of a service manager follows the same rule.
async fn healthz(State(observer): State<Arc<Observer>>) -> Response {
    match stuck_workers(&observer.shared) {
        Some(stuck) => line(StatusCode::SERVICE_UNAVAILABLE, &stuck),
        None => line(StatusCode::OK, "ok"),
    }
}

/// "worker 1 is stuck"
fn stuck_workers(shared: &SharedState) -> Option<String> {
    let stuck: Vec<String> = shared.heartbeats.stuck().map(|worker| worker.0.to_string()).collect();
    match &*stuck {
        [] => None,
        [one] => Some(format!("worker {one} is stuck")),
        several => Some(format!("workers {} are stuck", several.join(", "))),
    }
}

/// Whether the balancer accepts new clients, with all of its workers.
async fn readyz(State(observer): State<Arc<Observer>>) -> Response {
    match observer.shared.phase.load() {
        Phase::Running if observer.shared.phase.is_leaving() => {
            line(StatusCode::SERVICE_UNAVAILABLE, "draining soon")
        }
        Phase::Running => match stuck_workers(&observer.shared) {
            Some(stuck) => line(StatusCode::SERVICE_UNAVAILABLE, &stuck),
            None => line(StatusCode::OK, "ready"),
        },
        Phase::Draining(_) => line(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Phase::Stopped => line(StatusCode::SERVICE_UNAVAILABLE, "stopped"),
    }
}

async fn not_found() -> Response {
    line(StatusCode::NOT_FOUND, "not found; paths: /, /metrics, /healthz, /readyz, /status.json")
}

async fn method_not_allowed() -> Response {
    line(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD")
}

fn document(kind: &'static str, made: Result<Body, Unavailable>) -> Response {
    let (text, wait) = match made {
        Ok(body) => return answer(StatusCode::OK, kind, body),
        Err(Unavailable::Busy) => ("too many documents are being sent; try again", "1"),
        Err(Unavailable::Silent) => ("the control thread does not answer", "5"),
        Err(Unavailable::Stopping) => return line(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let mut refused = line(StatusCode::SERVICE_UNAVAILABLE, text);
    refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(wait));
    refused
}

fn line(status: StatusCode, text: &str) -> Response {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n").into())
}

fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Instant;

    use tokio::task::spawn_blocking;

    use super::*;
    use crate::observe::sample;

    /// Serves a sample snapshot while `client` runs on a thread of its own.
    fn with_server<T: Send + 'static>(
        client: impl FnOnce(SocketAddr, Arc<SharedState>) -> T + Send + 'static,
    ) -> T {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shared = sample::shared();
            let (control, requests) = mpsc::channel(8);
            tokio::spawn(sample::control(requests));
            tokio::spawn(serve(listener, control, Arc::clone(&shared)));
            spawn_blocking(move || client(address, shared)).await.unwrap()
        })
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// The whole answer, head and body.
    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn fetch(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n"))
    }

    #[test]
    fn a_scrape_has_prometheus_type_and_the_metrics() {
        with_server(|address, _| {
            let answer = fetch(address, "/metrics");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.contains("\nevenkeel_sessions_total{frontend=\"http\"} 7\n"));
        });
    }

    #[test]
    fn it_is_ready_until_it_drains_and_healthy_until_it_ends() {
        with_server(|address, shared| {
            assert!(fetch(address, "/readyz").starts_with("HTTP/1.1 200 "));
            shared.phase.store(Phase::Draining(Instant::now()));
            let answer = fetch(address, "/readyz");
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\ndraining\n"));
            assert!(fetch(address, "/healthz").starts_with("HTTP/1.1 200 "));
        });
    }

    #[test]
    fn the_page_fetches_nothing_and_json_says_the_same() {
        with_server(|address, _| {
            let page = fetch(address, "/");
            assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("web/web2"), "{page}");
            for word in ["<script", "http://", "https://", "src=", "@import", "url("] {
                assert!(!page.contains(word), "{word}");
            }
            // A client of HTTP/1.0 gets no chunks.
            let json = ask(address, "GET /status.json HTTP/1.0\r\n\r\n");
            let (_, body) = json.split_once("\r\n\r\n").unwrap();
            let report: Report = serde_json::from_str(body).unwrap();
            assert_eq!(report.servers[1].state, "down");
        });
    }

    #[test]
    fn an_unknown_path_is_404_and_another_method_405() {
        with_server(|address, _| {
            assert!(fetch(address, "/etc/passwd").starts_with("HTTP/1.1 404 "));
            let answer = ask(address, "POST /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
            let answer = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"));
        });
    }

    #[test]
    fn invalid_and_endless_heads_are_refused() {
        with_server(|address, _| {
            for junk in [
                "\0\0\0\r\n\r\n".to_owned(),
                "GET / HTTP/1.1\r\nA: ".to_owned() + &"x".repeat(1 << 20),
            ] {
                let mut stream = connect(address);
                // It may have hung up before all was sent, with a reset.
                drop(stream.write_all(junk.as_bytes()));
                let mut answer = Vec::new();
                drop(stream.read_to_end(&mut answer));
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
            }
            assert!(fetch(address, "/healthz").starts_with("HTTP/1.1 200 "));
        });
    }

    #[test]
    fn connections_without_a_request_are_closed_and_others_served() {
        with_server(|address, _| {
            let is_soon_served = |_| {
                let start = Instant::now();
                let silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(address)).collect();
                assert!(fetch(address, "/healthz").starts_with("HTTP/1.1 200 "));
                let is_soon = start.elapsed() < CONNECTION_TIME_MAX / 2;
                for mut stream in silent {
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                }
                is_soon
            };
            // A busy machine may delay one try.
            assert!((0..3).any(is_soon_served), "{:?} or more", CONNECTION_TIME_MAX / 2);
        });
    }

    #[test]
    fn a_control_thread_that_does_not_answer_is_503() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (control, requests) = mpsc::channel(1);
        let documents = Documents::new(control, sample::shared());
        let (recorder, shared) = (Arc::default(), sample::shared());
        let observer = Observer { documents, recorder, shared };
        let answer = runtime.block_on(metrics(State(Arc::new(observer))));
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
        drop(requests);
    }
}
