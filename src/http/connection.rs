//! The life of one connection: what the client does is noted, and one that does nothing useful is ended.
//!
//! hyper's own header timeout also runs while a kept-alive connection is idle, so it could not be both 5 s for a request
//! that has begun and 60 s for none; and it arms a timer for each request. Here one timer a connection looks every few
//! seconds at what was noted.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    problem::Problem,
    quick::answer_checks,
    server::{Begin, Limits},
    stream::ClientStream,
};

/// How often a connection is looked at. The timeouts are this exact.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a client did, noted by its stream and its service, which run on one thread.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Reads and writes that moved something, wrapping.
    moved: AtomicU32,
    /// Requests that the service was given, wrapping.
    requests: AtomicU32,
    /// A request is with the service.
    in_service: AtomicBool,
    /// Bytes have come since the last request: the head of another one, not complete yet.
    head_begun: AtomicBool,
    /// The client does not take our bytes.
    write_stalled: AtomicBool,
}

impl Activity {
    pub(super) fn note_read(&self) {
        self.moved.store(self.moved.load(Relaxed).wrapping_add(1), Relaxed);
        if !self.in_service.load(Relaxed) {
            self.head_begun.store(true, Relaxed);
        }
    }

    pub(super) fn note_write(&self, stalled: bool) {
        self.write_stalled.store(stalled, Relaxed);
        if !stalled {
            self.moved.store(self.moved.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    pub(super) fn note_request(&self) {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
        self.head_begun.store(false, Relaxed);
        self.in_service.store(true, Relaxed);
    }

    pub(super) fn note_answer(&self) {
        self.in_service.store(false, Relaxed);
    }

    fn phase(&self) -> Phase {
        if self.in_service.load(Relaxed) {
            Phase::InService
        } else if self.write_stalled.load(Relaxed) {
            Phase::NotReading(self.moved.load(Relaxed))
        } else if self.head_begun.load(Relaxed) {
            Phase::Head(self.requests.load(Relaxed))
        } else {
            Phase::Idle(self.requests.load(Relaxed))
        }
    }
}

/// What a connection is doing; the same value twice means that nothing has changed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The service has a deadline of its own.
    InService,
    /// After so many requests the head of another one is coming.
    Head(u32),
    /// After so many requests there is none.
    Idle(u32),
    /// The client does not take its answer, after so much was moved.
    NotReading(u32),
}

impl Phase {
    fn patience(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::InService => None,
            Self::Head(_) => Some(limits.head_timeout),
            Self::Idle(_) => Some(limits.idle_timeout),
            Self::NotReading(_) => Some(limits.write_timeout),
        }
    }
}

/// Serves one connection until either side ends it. Told to stop, it finishes the request that it is in.
pub(super) async fn serve_connection<S, B>(
    tcp: TcpStream,
    service: S,
    limits: Limits,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Begin
        + Send
        + Sync
        + Unpin
        + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = Arc::new(Activity::default());
    let mut stream = ClientStream::new(tcp, Arc::clone(&activity));
    let mut look = pin!(sleep(LOOK_EVERY));
    let mut watch = Watch::new(&activity, &limits, &stop, look.as_mut());
    if S::ANSWERS_CHECKS {
        let stopping = AtomicBool::new(false);
        let checks = answer_checks(&mut stream, &service, &activity, &limits, &stopping);
        let stop = |_: Pin<&mut _>| {
            stopping.store(true, Relaxed);
            matches!(activity.phase(), Phase::Idle(_))
        };
        let ended = watch.until_ended(pin!(checks), stop).await;
        match ended {
            Ok(Ok(Some(rest))) => stream.put_back(rest),
            // Why a client has gone is its own affair.
            Ok(Ok(None) | Err(_)) | Err(GivenUp::Stopped) => return stream.close(None).await,
            Err(GivenUp::SlowHead(patience)) => {
                return stream.close(Some(Problem::of_slow_head(patience))).await;
            }
            Err(GivenUp::Silent) => return,
        }
    }
    let noted = Noted { service, activity: Arc::clone(&activity) };
    let mut connection = http1::Builder::new()
        // hyper's way of joining the answers to a pipeline writes none of them while any byte of another request is there: a
        // client that does not read would fill the memory.
        .pipeline_flush(false)
        .max_buf_size(limits.max_head_bytes)
        .max_headers(limits.max_headers)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), noted);
    if watch.stopping {
        Pin::new(&mut connection).graceful_shutdown();
    }
    let ended = watch
        .until_ended(Pin::new(&mut connection), |connection| {
            connection.graceful_shutdown();
            // It ends when all is written.
            false
        })
        .await;
    let last_words = match ended {
        Ok(Ok(())) | Err(GivenUp::Stopped) => None,
        Ok(Err(error)) => match activity.phase() {
            // It was not answered, and hyper gives up on it.
            Phase::InService => Some(Problem::of_broken_body()),
            _ => Problem::of_head(&error),
        },
        Err(GivenUp::SlowHead(patience)) => Some(Problem::of_slow_head(patience)),
        Err(GivenUp::Silent) => return,
    };
    connection.into_parts().io.into_inner().close(last_words).await;
}

/// Why a connection is given up.
#[derive(Debug, Clone, Copy)]
enum GivenUp {
    /// A head that has begun was not complete after so long.
    SlowHead(Duration),
    /// Nothing was asked, or answers were not taken.
    Silent,
    /// The server stops, and nothing was being asked.
    Stopped,
}

/// Looks after a connection: at what its client does, and whether the server stops.
struct Watch<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    stop: &'a CancellationToken,
    look: Pin<&'a mut Sleep>,
    /// What the client was doing, and since when.
    seen: (Phase, Instant),
    stopping: bool,
}

impl<'a> Watch<'a> {
    fn new(
        activity: &'a Activity,
        limits: &'a Limits,
        stop: &'a CancellationToken,
        look: Pin<&'a mut Sleep>,
    ) -> Self {
        Self { activity, limits, stop, look, seen: (activity.phase(), Instant::now()), stopping: false }
    }

    /// Until what serves the connection ends. `on_stop` tells it, once, that the server stops, and says whether there is
    /// nothing to wait for.
    async fn until_ended<F: Future>(
        &mut self,
        mut serving: Pin<&mut F>,
        mut on_stop: impl FnMut(Pin<&mut F>) -> bool,
    ) -> Result<F::Output, GivenUp> {
        loop {
            tokio::select! {
                biased;
                ended = &mut serving => return Ok(ended),
                () = self.look.as_mut() => self.look()?,
                () = self.stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    if on_stop(serving.as_mut()) {
                        return Err(GivenUp::Stopped);
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Result<(), GivenUp> {
        let (now, phase) = (Instant::now(), self.activity.phase());
        self.look.as_mut().reset(now + LOOK_EVERY);
        if self.seen.0 != phase {
            self.seen = (phase, now);
        } else if let Some(patience) = phase.patience(self.limits)
            && now - self.seen.1 >= patience
        {
            return Err(if let Phase::Head(_) = phase {
                GivenUp::SlowHead(patience)
            } else {
                GivenUp::Silent
            });
        }
        Ok(())
    }
}

/// A service whose requests are noted.
struct Noted<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Noted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = NotedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.note_request();
        NotedFuture { future: self.service.call(request), activity: Arc::clone(&self.activity) }
    }
}

pin_project! {
    /// The answer of a service, noted when it is there.
    struct NotedFuture<F> {
        #[pin]
        future: F,
        activity: Arc<Activity>,
    }
}

impl<F: Future> Future for NotedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = this.future.poll(cx);
        if answer.is_ready() {
            this.activity.note_answer();
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_trickles_in_is_in_one_phase_until_it_is_complete() {
        let activity = Activity::default();
        assert_eq!(activity.phase(), Phase::Idle(0));
        activity.note_read();
        let begun = activity.phase();
        activity.note_read();
        assert_eq!(begun, activity.phase(), "more bytes of the same head do not buy more time");
        activity.note_request();
        assert_eq!(activity.phase(), Phase::InService);
        activity.note_answer();
        assert_eq!(activity.phase(), Phase::Idle(1));
    }

    #[test]
    fn a_client_that_takes_some_of_its_answer_is_not_the_one_that_takes_none() {
        let activity = Activity::default();
        activity.note_write(true);
        let stalled = activity.phase();
        assert!(matches!(stalled, Phase::NotReading(_)));
        activity.note_write(false);
        activity.note_write(true);
        assert_ne!(stalled, activity.phase());
    }
}
