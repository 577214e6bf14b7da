//! A node of the simulation: honest with keys, and otherwise as foul as its temper.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use super::plan::{TROUBLE, Temper, millis, pick};
use super::record::{Reading, Record};

/// Where nodes listen.
pub const PORT: u16 = 9000;

/// A fault of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mischief {
    /// It takes a while, and the batch is stored after it.
    Slow,
    /// The batch is stored, and the answer takes a while.
    SlowAnswer,
    /// 503, sometimes with the time after which to come again.
    Busy,
    /// 500, and nothing is stored.
    Fails,
    /// 500, and the batch is stored: the answer is lost.
    LostAnswer,
    /// The connection is closed, and nothing is stored; sometimes before the body is read.
    HangsUp,
    /// The connection is closed, and the batch is stored.
    HangsUpAfterStoring,
    /// The connection is closed in the middle of the answer; the batch is stored.
    BreaksOff,
    /// The node dies, and the batch is not stored.
    Dies,
    /// The node dies in the middle of its answer; the batch is stored.
    DiesInAnswer,
    /// The answer comes twice.
    AnswersTwice,
    /// The connection ends with the answer.
    Closes,
}

impl Mischief {
    const NAMES: [(&str, Mischief); 12] = [
        ("slow", Mischief::Slow),
        ("slow answer", Mischief::SlowAnswer),
        ("busy", Mischief::Busy),
        ("fails", Mischief::Fails),
        ("lost answer", Mischief::LostAnswer),
        ("hangs up", Mischief::HangsUp),
        ("hangs up after storing", Mischief::HangsUpAfterStoring),
        ("breaks off", Mischief::BreaksOff),
        ("dies", Mischief::Dies),
        ("dies in the answer", Mischief::DiesInAnswer),
        ("answers twice", Mischief::AnswersTwice),
        ("closes", Mischief::Closes),
    ];

    /// Whether the batch is stored.
    fn stores(self) -> bool {
        match self {
            Mischief::Slow
            | Mischief::SlowAnswer
            | Mischief::LostAnswer
            | Mischief::HangsUpAfterStoring
            | Mischief::BreaksOff
            | Mischief::DiesInAnswer
            | Mischief::AnswersTwice
            | Mischief::Closes => true,
            Mischief::Busy | Mischief::Fails | Mischief::HangsUp | Mischief::Dies => false,
        }
    }
}

/// The names of all that may go wrong.
pub fn mischiefs() -> impl Iterator<Item = &'static str> {
    Mischief::NAMES.iter().map(|(name, _)| *name)
}

/// A handle on a node; clones share it. Its store survives its death.
#[derive(Clone, Debug)]
pub struct Node {
    number: usize,
    temper: Temper,
    random: Arc<Mutex<fastrand::Rng>>,
    record: Record,
}

impl Node {
    /// The node of this number.
    pub fn new(number: usize, temper: Temper, record: Record) -> Node {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(temper.seed)));
        Node { number, temper, random, record }
    }

    /// Serves until it dies.
    pub async fn serve(self) -> turmoil::Result {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        // All in one task: when a node dies, its connections always end in the same order.
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! { biased;
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = listener.accept() => connections.push(self.clone().connection(accepted?.0)),
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        let ending = Arc::new(Mutex::new(Ending::Whole));
        let io = TokioIo::new(Line { stream, ending: Arc::clone(&ending), out: Bytes::new(), end: None });
        let service = service_fn(move |request| self.clone().receive(request, Arc::clone(&ending)));
        // Whether the other side left early is not the node's business.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }

    /// The fault of the next request.
    fn mischief(&self) -> Option<Mischief> {
        let mut random = self.random.lock().expect("not poisoned");
        let is_foul = random.u8(..100) < self.temper.foul_percent;
        let (name, mischief) = pick(&mut random, &Mischief::NAMES);
        let in_trouble = turmoil::sim_elapsed().is_some_and(|now| now < TROUBLE);
        if !is_foul || !in_trouble {
            return None;
        }
        let mut seen = self.record.seen();
        seen.count(name);
        seen.note(format_args!("node {}: {name}", self.number));
        Some(mischief)
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().expect("not poisoned"))
    }

    async fn receive(
        self,
        request: Request<Incoming>,
        ending: Arc<Mutex<Ending>>,
    ) -> io::Result<Response<Full<Bytes>>> {
        let mischief = self.mischief();
        if mischief == Some(Mischief::HangsUp) && self.draw(fastrand::Rng::bool) {
            return Err(hang_up());
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        // The request goes on although the gateway may hang up.
        let work = tokio::spawn(async move { self.work(mischief, &head.headers, &body, &ending).await });
        work.await.map_err(io::Error::other)?
    }

    async fn work(
        &self,
        mischief: Option<Mischief>,
        headers: &HeaderMap,
        body: &[u8],
        ending: &Mutex<Ending>,
    ) -> io::Result<Response<Full<Bytes>>> {
        let Some((key, readings)) = parse(headers, body) else {
            self.record.fault(format_args!("node {} cannot read {headers:?}", self.number));
            return answer(StatusCode::BAD_REQUEST);
        };
        self.record.received(self.number, &key, &readings);
        if mischief == Some(Mischief::Slow) {
            self.linger().await;
        }
        if mischief.is_none_or(Mischief::stores) {
            self.record.store(self.number, &key, &readings);
        }
        let Some(mischief) = mischief else { return answer(StatusCode::OK) };
        match mischief {
            Mischief::Slow => answer(StatusCode::NO_CONTENT),
            Mischief::SlowAnswer => {
                self.linger().await;
                answer(StatusCode::CREATED)
            }
            Mischief::Busy => self.busy(),
            Mischief::Fails | Mischief::LostAnswer => answer(StatusCode::INTERNAL_SERVER_ERROR),
            Mischief::HangsUp | Mischief::HangsUpAfterStoring => Err(hang_up()),
            Mischief::Dies => {
                let back_after = self.draw(|random| millis(random, 1..1500));
                self.record.seen().deaths.push((self.number, back_after));
                Err(hang_up())
            }
            Mischief::BreaksOff | Mischief::DiesInAnswer => {
                let part = self.draw(fastrand::Rng::f64);
                let back_after = self.draw(|random| millis(random, 1..1500));
                let death = (mischief == Mischief::DiesInAnswer).then(|| Death {
                    record: self.record.clone(),
                    node: self.number,
                    back_after,
                });
                set(ending, Ending::Cut { part, death });
                answer(StatusCode::OK)
            }
            Mischief::AnswersTwice => {
                set(ending, Ending::Twice);
                answer(StatusCode::OK)
            }
            Mischief::Closes => {
                let mut answer = answer(StatusCode::OK)?;
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                Ok(answer)
            }
        }
    }

    async fn linger(&self) {
        let pause = self.draw(|random| millis(random, 50..1500));
        sleep(pause).await;
    }

    fn busy(&self) -> io::Result<Response<Full<Bytes>>> {
        let mut answer = answer(StatusCode::SERVICE_UNAVAILABLE)?;
        let after = self.draw(|random| pick(random, &[None, None, Some("0"), Some("1"), Some("2")]));
        if let Some(seconds) = after {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        Ok(answer)
    }
}

/// The key and the readings of a batch; `None` if it is not one.
fn parse(headers: &HeaderMap, body: &[u8]) -> Option<(String, Vec<Reading>)> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let readings: Vec<Reading> = match text(CONTENT_TYPE.as_str())? {
        "application/json" => serde_json::from_slice(body).ok()?,
        _ => serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<_, _>>().ok()?,
    };
    let count: usize = text("forebay-readings")?.parse().ok()?;
    (count == readings.len()).then_some((text("idempotency-key")?.to_owned(), readings))
}

fn answer(status: StatusCode) -> io::Result<Response<Full<Bytes>>> {
    let body = if status == StatusCode::NO_CONTENT { "" } else { "so it is" };
    let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *answer.status_mut() = status;
    Ok(answer)
}

fn hang_up() -> io::Error {
    io::Error::other("hangs up")
}

fn set(ending: &Mutex<Ending>, to: Ending) {
    *ending.lock().expect("not poisoned") = to;
}

/// How the next answer goes out.
#[derive(Debug)]
enum Ending {
    Whole,
    /// Two times.
    Twice,
    /// Only a part of its bytes; then the connection is closed, or the node dies.
    Cut {
        part: f64,
        death: Option<Death>,
    },
}

#[derive(Debug)]
struct Death {
    record: Record,
    node: usize,
    back_after: Duration,
}

/// A connection at the node's end, which may spoil the answer.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    ending: Arc<Mutex<Ending>>,
    /// The rest of a spoilt answer, which is still to be sent.
    out: Bytes,
    /// The end of the connection after it.
    end: Option<Option<Death>>,
}

impl Line {
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.out))?;
            self.out.advance(sent);
        }
        let Some(death) = self.end.take() else { return Poll::Ready(Ok(())) };
        if let Some(Death { record, node, back_after }) = death {
            record.seen().deaths.push((node, back_after));
        }
        Poll::Ready(Err(hang_up()))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(context))?;
        let ending = std::mem::replace(&mut *self.ending.lock().expect("not poisoned"), Ending::Whole);
        match ending {
            Ending::Whole => return Pin::new(&mut self.stream).poll_write(context, bytes),
            Ending::Twice => self.out = Bytes::from(bytes.repeat(2)),
            Ending::Cut { part, death } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a part of a length"
                )]
                #[expect(clippy::cast_precision_loss, reason = "answers are short")]
                let kept = (bytes.len() as f64 * part) as usize;
                self.out = Bytes::copy_from_slice(&bytes[..kept]);
                self.end = Some(death);
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
