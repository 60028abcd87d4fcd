//! The life of one connection: what the client does is noted, and one that does nothing useful is ended.
//!
//! hyper's own header timeout also runs while a kept-alive connection is idle, so it could not be both 5 s for a request
//! that has begun and 60 s for none; and it arms a timer for each request. Here one timer a connection looks every few
//! seconds at what was noted.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Activity, Phase},
    fast_path::answer_whole,
    service::{ConnectionService, Limits, TransportError},
    stream::ClientStream,
};
use crate::{
    ending::Ending,
    tls::{Socket, looks_like_tls},
};

/// How often a connection is looked at. The timeouts are this exact.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// Serves one connection until either side ends it. While the server closes, the next answer is the last one, and says so. Told to
/// stop, it finishes the request that it is in; a client that has just connected is about to ask the first.
pub(super) async fn serve_connection<S, B>(socket: Socket, service: S, limits: Limits, ending: Ending)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + ConnectionService
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
    let mut stream = ClientStream::new(socket, Arc::clone(&activity));
    let mut tick = pin!(sleep(TICK_EVERY));
    let mut watch = Watch::new(&activity, &limits, ending.stopped(), tick.as_mut());
    if let Some(path) = S::FAST_PATH {
        let answering = answer_whole(&mut stream, &service, path, &activity, &limits, &ending);
        let stop = |_: Pin<&mut _>| matches!(activity.phase(), Phase::Idle(1..));
        let ended = watch.until_ended(pin!(answering), stop).await;
        match ended {
            Ok(Ok(Some(rest))) => {
                if looks_like_tls(&rest) {
                    stream.note_tls();
                }
                stream.put_back(rest);
            }
            // Why a client has gone is its own affair.
            Ok(Ok(None) | Err(_)) | Err(GivenUp::Stopped) => return stream.close(Bytes::new()).await,
            Err(GivenUp::SlowHead(patience)) => {
                return stream.close(S::final_response(TransportError::SlowHead(patience))).await;
            }
            Err(GivenUp::Silent) => return,
        }
    }
    let tracked = Tracked { service, activity: Arc::clone(&activity), ending: ending.clone() };
    let mut connection = http1::Builder::new()
        // hyper's way of joining the answers to a pipeline writes none of them while any byte of another request is there: a
        // client that does not read would fill the memory.
        .pipeline_flush(false)
        .max_buf_size(limits.max_head_bytes)
        .max_headers(limits.max_headers)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), tracked);
    let ended = watch
        .until_ended(Pin::new(&mut connection), |connection| {
            // Whoever asks has its answer as the last one; hyper would drop what has come of a request.
            if matches!(activity.phase(), Phase::Idle(1..)) {
                connection.graceful_shutdown();
            }
            // It ends when all is written.
            false
        })
        .await;
    let error = match ended {
        Ok(Ok(())) | Err(GivenUp::Stopped) => None,
        Ok(Err(error)) => match activity.phase() {
            // It was not answered, and hyper gives up on it.
            Phase::InService => Some(TransportError::BrokenBody),
            _ => error_of_head(&error),
        },
        Err(GivenUp::SlowHead(patience)) => Some(TransportError::SlowHead(patience)),
        Err(GivenUp::Silent) => return,
    };
    let final_response = error.map_or_else(Bytes::new, S::final_response);
    connection.into_parts().io.into_inner().close(final_response).await;
}

/// What hyper says of a transfer coding other than chunked, and does not say otherwise.
const UNKNOWN_CODING: &str = "invalid transfer-encoding parsed";

/// What is wrong with a request that hyper cannot parse.
fn error_of_head(error: &hyper::Error) -> Option<TransportError> {
    if error.is_parse_too_large() {
        return Some(TransportError::HeadTooLarge);
    }
    if error.is_parse() && error.to_string() == UNKNOWN_CODING {
        return Some(TransportError::UnknownCoding);
    }
    error.is_parse().then_some(TransportError::BadHead)
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
    tick: Pin<&'a mut Sleep>,
    /// What the client was doing, and since when.
    seen: (Phase, Instant),
    stopping: bool,
}

impl<'a> Watch<'a> {
    fn new(
        activity: &'a Activity,
        limits: &'a Limits,
        stop: &'a CancellationToken,
        tick: Pin<&'a mut Sleep>,
    ) -> Self {
        Self { activity, limits, stop, tick, seen: (activity.phase(), Instant::now()), stopping: false }
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
                () = self.tick.as_mut() => self.tick()?,
                () = self.stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    if on_stop(serving.as_mut()) {
                        return Err(GivenUp::Stopped);
                    }
                }
            }
        }
    }

    fn tick(&mut self) -> Result<(), GivenUp> {
        let (now, phase) = (Instant::now(), self.activity.phase());
        self.tick.as_mut().reset(now + TICK_EVERY);
        if self.stopping && matches!(phase, Phase::Idle(_)) {
            // It has connected, and asks nothing.
            return Err(GivenUp::Stopped);
        }
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
struct Tracked<S> {
    service: S,
    activity: Arc<Activity>,
    ending: Ending,
}

impl<S, B> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TrackedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.note_request();
        let (activity, ending) = (Arc::clone(&self.activity), self.ending.clone());
        TrackedFuture { future: self.service.call(request), activity, ending }
    }
}

pin_project! {
    /// The answer of a service, noted when it is there.
    struct TrackedFuture<F> {
        #[pin]
        future: F,
        activity: Arc<Activity>,
        ending: Ending,
    }
}

impl<F: Future<Output = Result<Response<B>, E>>, B, E> Future for TrackedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = this.future.poll(cx);
        if let Poll::Ready(answer) = &mut answer {
            this.activity.note_answer();
            if let Ok(response) = answer
                && this.ending.is_closing()
            {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        answer
    }
}
