//! Sends the load: a steady pace, so many requests at once at most, each to its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::chaos::book::{Book, Fate};
use crate::chaos::clock::Clock;
use crate::chaos::load::Request;
use crate::chaos::tally::Tally;
use crate::client::{Answer, Http};
use crate::oracle::now;

/// Requests a second, on average: what an outage holds up is made up for after it.
const RATE: u32 = 200;
/// Requests at once; while nothing is answered, nothing more is sent.
const AT_ONCE: usize = 32;
/// How long a request waits for its answer: longer than any pause and than the edge itself waits.
const PATIENCE: Duration = Duration::from_secs(40);
/// Before a request is sent again.
const PAUSE: Duration = Duration::from_millis(200);

/// Requests are made and told about by many tasks.
pub(crate) type SharedBook = Arc<Mutex<Book>>;

/// The book, for a moment.
pub(crate) fn open(book: &SharedBook) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom it sends to, and who is told.
#[derive(Clone)]
pub(crate) struct Sender {
    http: Arc<Http>,
    book: SharedBook,
    tally: Arc<Tally>,
    /// Nothing is sent again after that.
    give_up: CancellationToken,
}

impl Sender {
    pub(crate) fn new(base: String, book: &SharedBook, tally: &Arc<Tally>) -> Self {
        Self {
            http: Arc::new(Http::patient(base, PATIENCE)),
            book: Arc::clone(book),
            tally: Arc::clone(tally),
            give_up: CancellationToken::new(),
        }
    }

    /// Makes requests for `length` by the `clock`, and brings each to its end; what has none after
    /// `patience` more stays unanswered.
    pub(crate) async fn send(self, clock: &Clock, length: Duration, patience: Duration) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        let mut sent = 0;
        let sending = async {
            loop {
                clock.reaches(Duration::from_secs(1) / RATE * sent).await;
                sent += 1;
                let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
                let (sender, request) = (self.clone(), open(&self.book).next(now()));
                under_way.spawn(async move {
                    let fate = sender.bring_home(&request).await;
                    open(&sender.book).tell(request.number, fate);
                    drop(place);
                });
                while under_way.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = sending => {}
            () = clock.reaches(length) => {}
        }
        let all = async { while under_way.join_next().await.is_some() {} };
        // What is late stays unanswered.
        let _late = time::timeout(patience, all).await;
        self.give_up.cancel();
        under_way.shutdown().await;
    }

    async fn bring_home(&self, request: &Request) -> Fate {
        // A try that may have been taken makes the whole request uncertain, until one is acknowledged.
        let mut fate = Fate::Refused;
        while !self.give_up.is_cancelled() {
            match send_once(&self.http, request, &self.tally).await {
                Try::Acked => return Fate::Acked,
                Try::Refused => return fate,
                Try::NotNow => {}
                Try::Unknown if request.repeatable => fate = Fate::Unanswered,
                Try::Unknown => return Fate::Unanswered,
            }
            time::sleep(PAUSE).await;
        }
        fate
    }
}

/// What one try has shown.
enum Try {
    Acked,
    /// Nothing of it was taken.
    Refused,
    /// Nothing of it was taken, and it may be tomorrow.
    NotNow,
    /// All of it was taken, or nothing.
    Unknown,
}

async fn send_once(http: &Http, request: &Request, tally: &Tally) -> Try {
    let headers: &[_] =
        if request.body.is_empty() { &[] } else { &[("content-type", "application/x-ndjson")] };
    match http.try_send("POST", &request.path, headers, request.body.as_bytes()).await {
        Ok(answer) => judge(&answer, request).unwrap_or_else(|| {
            tally.wrong(format!("request {} was answered {} {}", request.number, answer.status, answer.text));
            Try::Unknown
        }),
        // Nobody has heard of it.
        Err(error) if error.is_connect() => Try::NotNow,
        Err(_) => Try::Unknown,
    }
}

/// None for an answer that must not be.
fn judge(answer: &Answer, request: &Request) -> Option<Try> {
    let json = answer.json();
    let number = |name: &str| json[name].as_u64();
    let (events, bad) = (request.events.len() as u64, request.bad as u64);
    match (answer.status, json["code"].as_str()) {
        (200, None)
            if events > 0 && (number("accepted"), number("rejected")) == (Some(events), Some(bad)) =>
        {
            Some(Try::Acked)
        }
        (204, None) if request.body.is_empty() => Some(Try::Acked),
        (400, Some("all_lines_invalid")) if events == 0 => Some(Try::Refused),
        (503, Some("overloaded")) => Some(if request.repeatable { Try::NotNow } else { Try::Refused }),
        (503, Some("not_durable")) => Some(Try::Unknown),
        _ => None,
    }
}
