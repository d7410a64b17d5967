//! `moelab serve`: the page, and the runs and studies of a folder by the messages of a [workspace](moelab::lab::workspace), over HTTP.
//!
//! | request | what follows |
//! |---|---|
//! | `GET /` and the page's other files | the file; they say nothing about the runs, and need no token |
//! | `POST /requests`, a [`Request`] a line | the replies of those that only read, a [`Reply`] a line; the others go to the one workspace that makes runs |
//! | `GET /replies?after=N` | what that workspace has replied since message N, after a line with the number to ask for next |
//!
//! **Who is let in.** The last two need the token of the printed address, as `Authorization: Bearer`. It is random, and in the fragment of the address, which
//! browsers neither send nor log. The `Host` of every request must be this machine (an address, `localhost`, or a name given with `--host`),
//! so that no foreign name can be made to lead here, and an `Origin` must be that host. Without `--control`, requests that write, train or use the
//! GPU are refused.
//!
//! **What is bounded.** Connections, bodies, heads, requests that read at once, points of a series, and the messages kept for clients: all read
//! the same ring, so that a slow client costs nothing and misses messages instead. The page's files are read once, from one folder, and nothing else is.
//!
//! The server is `oxhttp`: synchronous, small, maintained (0.3.3 of June 2026; `tiny_http` had its last release in 2022 and no limit of threads). Its
//! limits are accepted: it opens its port itself, so a free one is looked for first; a connection that is kept open and idle counts until it times out,
//! which is why the time is short; and a client that goes away in the middle of a reply is a line on stderr.

mod guard;
mod page;
mod ring;

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use moelab::{
    lab::{
        host::Activity,
        workspace::{Reply, Request},
        workspace_host::Workspace,
    },
    run::protocol::{Command, Problem, Subscription},
};
use moelab_native::{err, out, places::Runs, print, runner::Runner};
use oxhttp::{
    Server,
    model::{self, Body, HeaderValue, Method, Response, StatusCode, header},
};

use crate::{Common, signals};
use guard::{Guard, Refusal};
use page::Page;
use ring::Ring;

/// Connections at a time, each with a thread. Others wait.
const CONNECTIONS: usize = 256;
/// How long a connection may be silent in the middle of a request, or between two.
const SILENCE: Duration = Duration::from_secs(5);
/// Most bytes of a body: a study with its configs.
const BODY: u64 = 1 << 20;
/// Most requests in a body.
const REQUESTS: usize = 256;
/// Requests that read at once; others are refused and may try again.
const READERS: usize = 8;
/// Most series of a question, and points of each.
const SERIES: usize = 64;
const POINTS: u32 = 4096;
/// How long a client waits for a message at most. Browsers make six connections to a server, which all tabs share.
const WAIT: Duration = Duration::from_secs(2);
/// Time between two looks at what the workspace replied.
const TICK: Duration = Duration::from_millis(20);
/// Why a server without `--control` refuses a request.
const READ_ONLY: &str = "this server only shows runs: `moelab serve --control` lets its page make, pause, stop and remove them, too";

/// Options of `moelab serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// The folder of runs and studies.
    #[arg(default_value = "runs")]
    runs: PathBuf,
    /// Let the page make, pause, stop and remove runs. Without it, the page only shows them.
    #[arg(long)]
    control: bool,
    /// The address to listen on. Other machines can connect only to an address other than the default, without encryption.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 6464)]
    port: u16,
    /// A name by which browsers reach this machine, besides localhost and its addresses. May be repeated.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The folder of the page. Default: dist, in the current folder or beside the program.
    #[arg(long, value_name = "DIR")]
    page: Option<PathBuf>,
}

/// What all connections share.
struct Shared {
    guard: Guard,
    page: Page,
    places: Runs,
    readers: AtomicUsize,
    ring: Ring,
    /// To the workspace that makes runs; none without `--control`.
    maker: Option<Mutex<Sender<Request>>>,
}

/// Serves a folder until a signal ends it.
///
/// # Errors
/// If there is no page or no folder, or the port cannot be used.
pub fn serve(common: &Common, args: &ServeArgs) -> Result<()> {
    ensure!(args.runs.is_dir(), "{}: there is no such folder; `moelab train` makes runs in runs/", print::path(&args.runs));
    let page = Page::load(args.page.as_deref(), args.control)?;
    let stop = signals::stop_requested()?;
    let address = free_address(SocketAddr::new(args.address, args.port))?;
    let token = guard::token()?;
    let (sender, requests) = channel();
    let places = Runs::new(&args.runs, common.resources());
    let shared = Arc::new(Shared {
        guard: Guard::new(&token, args.address, &args.hosts),
        page,
        places: places.clone(),
        readers: AtomicUsize::new(0),
        ring: Ring::default(),
        maker: args.control.then(|| Mutex::new(sender)),
    });
    let answering = shared.clone();
    let server = Server::new(move |request| answering.answer(request)).bind(address).with_global_timeout(SILENCE);
    let listening = server.with_max_concurrent_connections(CONNECTIONS).spawn().with_context(|| in_use(address))?;
    tell(common, args, address, &token);
    let is_over = || stop.load(Ordering::Relaxed);
    if args.control {
        make(places, &requests, &shared.ring, is_over)?;
    } else {
        while !is_over() {
            std::thread::sleep(TICK);
        }
    }
    // Its threads end with the process.
    drop(listening);
    Ok(())
}

/// The address with a port that is free.
fn free_address(address: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| in_use(address))?;
    Ok(listener.local_addr()?)
}

fn in_use(address: SocketAddr) -> String {
    format!("cannot listen on {address}: choose another port with --port, 0 takes a free one")
}

/// Prints where the page is.
fn tell(common: &Common, args: &ServeArgs, address: SocketAddr, token: &str) {
    let shown = match address.ip() {
        ip if !ip.is_unspecified() => address.to_string(),
        _ => format!("{}:{}", args.hosts.first().map_or("localhost", String::as_str), address.port()),
    };
    let url = format!("http://{shown}/#token={token}");
    let access = if args.control { "control" } else { "read-only" };
    if common.json {
        print::json(&serde_json::json!({ "url": url, "address": address.to_string(), "token": token, "access": access }));
    } else {
        out!("{url}");
    }
    err!("{}: {access}; Ctrl-C ends it", print::path(&args.runs));
    if !address.ip().is_loopback() {
        err!("warning: whoever can read the network between this machine and the browser can read the token: `ssh -L` is safer");
    }
}

/// Drives the workspace that makes runs.
fn make(places: Runs, requests: &Receiver<Request>, ring: &Ring, is_over: impl Fn() -> bool) -> Result<()> {
    let runner: Runner<Request, Reply> = Runner::spawn(move || Workspace::new(places.clone()), || ())?;
    let subscribe = || {
        let subscription = Subscription { series: vec!["train_ce".into()], every_seconds: 0.1, records: false };
        runner.send(Request::Session { command: Command::Subscribe(subscription) });
    };
    subscribe();
    while !is_over() {
        match requests.recv_timeout(TICK) {
            Ok(request) => runner.send(request),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the server has ended"),
        }
        while let Some(reply) = runner.poll() {
            if matches!(reply, Reply::Failed(_)) {
                // It was started again.
                subscribe();
            }
            ring.push(&reply);
        }
    }
    err!("stopping; a run under way saves a checkpoint");
    Ok(())
}

impl Shared {
    fn answer(&self, request: &mut model::Request<Body>) -> Response<Body> {
        let answered = self.answered(request).unwrap_or_else(|refusal| {
            let mut response = text(refusal.what);
            *response.status_mut() = refusal.status;
            response
        });
        self.page.secured(answered)
    }

    fn answered(&self, request: &mut model::Request<Body>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().trim_start_matches('/').to_string();
        let is_page = !matches!(path.as_str(), "requests" | "replies");
        self.guard.check_origin(request, is_page)?;
        let method = request.method().clone();
        match (path.as_str(), &method) {
            ("requests", &Method::POST) => {
                self.guard.check_token(request)?;
                self.requests(request)
            }
            ("replies", &Method::GET) => {
                self.guard.check_token(request)?;
                Ok(lines(self.ring.since(after(request.uri().query().unwrap_or_default())?, WAIT)))
            }
            ("requests" | "replies", _) => Err(Refusal::method()),
            (path, &Method::GET | &Method::HEAD) => self.page.file(path, method == Method::GET).ok_or_else(Refusal::absent),
            _ => Err(Refusal::method()),
        }
    }

    /// Follows the requests of a body.
    fn requests(&self, request: &mut model::Request<Body>) -> Result<Response<Body>, Refusal> {
        let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "more than 1 MiB or 256 requests");
        let invalid = |problem: String| Refusal::new(StatusCode::BAD_REQUEST, problem);
        if request.body().len().is_some_and(|length| length > BODY) {
            return Err(too_large());
        }
        let mut body = String::new();
        let read = request.body_mut().take(BODY + 1).read_to_string(&mut body);
        read.map_err(|error| invalid(error.to_string()))?;
        let count = body.lines().count();
        if body.len() as u64 > BODY || count > REQUESTS {
            return Err(too_large());
        }
        let parsed = |line: &str| serde_json::from_str(line).map_err(|error| invalid(format!("no request: {error}")));
        let requests: Vec<Request> = body.lines().map(parsed).collect::<Result<_, _>>()?;
        let (reading, changing): (Vec<Request>, Vec<Request>) = requests.into_iter().partition(Request::only_reads);
        let mut replies: Vec<Reply> = changing.into_iter().filter_map(|request| self.change(request)).collect();
        if !reading.is_empty() {
            replies.extend(self.read(reading)?);
        }
        let text = |reply: &Reply| serde_json::to_string(reply).map_err(|error| invalid(error.to_string()));
        Ok(lines(replies.iter().map(text).collect::<Result<_, _>>()?))
    }

    /// Passes a request on that does more than read. Returns the reply if it is refused at once.
    fn change(&self, request: Request) -> Option<Reply> {
        // What the workspace reports is the same for all clients.
        if matches!(request, Request::Session { command: Command::Subscribe(_) }) {
            return None;
        }
        if matches!(request, Request::Export { .. } | Request::Import { .. } | Request::Keep { .. }) {
            return Some(request.refused(Problem::new("runs and texts are files of the server's machine: copy them there")));
        }
        let Some(maker) = &self.maker else { return Some(request.refused(Problem::new(READ_ONLY))) };
        // It is there as long as connections are answered.
        let _ = maker.lock().unwrap_or_else(PoisonError::into_inner).send(request);
        None
    }

    /// Follows requests that only read, in a workspace of their own.
    fn read(&self, requests: Vec<Request>) -> Result<Vec<Reply>, Refusal> {
        let _reader = Reader::enter(&self.readers).ok_or_else(Refusal::busy)?;
        let read = AssertUnwindSafe(|| {
            let (mut workspace, mut replies) = (Workspace::new(self.places.clone()), Vec::new());
            for request in requests {
                match &request {
                    Request::Read(query) if query.points > POINTS || query.series.len() > SERIES => {
                        let problem = format!("more than {SERIES} series or {POINTS} points");
                        replies.push(request.refused(Problem::new(problem)));
                    }
                    _ => workspace.send(request),
                }
            }
            loop {
                let (new, activity) = workspace.advance(1.0);
                replies.extend(new);
                if activity == Activity::Idle {
                    return replies;
                }
            }
        });
        catch_unwind(read)
            .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the folder could not be read: the server has the reason"))
    }
}

/// The right to read.
struct Reader<'a>(&'a AtomicUsize);

impl Reader<'_> {
    fn enter(readers: &AtomicUsize) -> Option<Reader<'_>> {
        let entered = readers.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < READERS).then_some(count + 1));
        entered.is_ok().then_some(Reader(readers))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The number of the last message that a client has; none at first.
fn after(query: &str) -> Result<Option<u64>, Refusal> {
    match query.strip_prefix("after=") {
        None | Some("") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "after: expected a number")),
    }
}

fn lines(lines: Vec<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(lines.join("\n")));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn text(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
