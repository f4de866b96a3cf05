//! A modelled pipeline that behaves like `pipeline/applier.rs` and `pipeline/collect.rs`.

use schemas::time::UnixMillis;
use stream_agg::protocol::idle::{IdleCheck, WorkState};
use stream_agg::protocol::intent::Intent;
use stream_agg::protocol::progress::{NextOffset, Offset, Progress};
use stream_agg::protocol::window::Window;

use super::log::{Logged, Next, Row, index, remember, restored};
use super::{Bounds, Event, System};

/// The collector and the applier, and the message between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pipeline {
    pub(super) stops: bool,
    pub(super) collector: Collector,
    pub(super) sent: Option<Message>,
    pub(super) progress: Progress,
    /// The declared batch, and for each of its cells whether the cell is in ClickHouse.
    pub(super) inserting: Option<(Batch, [bool; 2])>,
    /// The intent to commit if no batch follows.
    pub(super) after: Option<String>,
}

/// The state of the collector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Collector {
    /// The last record of the batch that the collector rebuilds; `None` if it rebuilds none.
    pub(super) rebuild: Option<Offset>,
    pub(super) start: NextOffset,
    pub(super) open: Vec<Row>,
    pub(super) window: Vec<Row>,
    /// The intent that describes the window before the open batch.
    pub(super) before: String,
    /// A request to Kafka for the end of the log, which the collector sent because its queue is empty.
    pub(super) question: Option<Question>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) asked: UnixMillis,
    /// Kafka's answer; `None` until Kafka has answered. Before the collector receives the answer, records may be
    /// appended and time may pass.
    pub(super) end: Option<NextOffset>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Batch(Batch),
    Idle(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    pub(super) start: NextOffset,
    pub(super) end: NextOffset,
    pub(super) rows: Vec<Row>,
    pub(super) intent: String,
    pub(super) after: String,
    pub(super) rebuilt: bool,
}

impl Pipeline {
    /// The events that may happen next.
    pub(super) fn events(&self, bounds: &Bounds, system: &System, events: &mut Vec<Event>) {
        if system.crashes > 0 {
            events.push(Event::Crash);
        }
        if system.stops > 0 && !self.stops {
            events.push(Event::Stop);
        }
        // A full channel blocks the collector.
        if !self.stops && self.sent.is_none() {
            match self.collector.question {
                Some(Question { end: None, .. }) => events.push(Event::TellLogsEnd),
                Some(_) => events.push(Event::ReceiveLogEnd),
                None => self.events_of_collector(bounds, system, events),
            }
        }
        if let Some((_, applied)) = &self.inserting {
            events.extend((0..2).filter(|cell| !applied[*cell]).map(Event::Insert));
            return;
        }
        let dropped = matches!(&self.sent, Some(Message::Batch(batch)) if self.stops && !batch.rebuilt);
        if self.sent.is_some() && !dropped {
            events.push(Event::Take);
        } else if self.stops {
            events.push(Event::End);
        } else if self.after.is_some() {
            events.push(Event::Settle);
        }
    }

    fn events_of_collector(&self, bounds: &Bounds, system: &System, events: &mut Vec<Event>) {
        let Collector { rebuild, open, .. } = &self.collector;
        // Before the collector searches the ledger for a record that came through a spool, it waits until the ledger
        // has every record below the open batch.
        let next = system.log.get(self.read().to_i64() as usize);
        let asks = |next: &Logged| next.record as i64 != self.read().to_i64();
        if next.is_some_and(|next| !asks(next) || self.progress.applied() >= self.collector.start) {
            events.push(Event::Fetch);
        }
        if rebuild.is_none() && !open.is_empty() {
            events.push(Event::Close);
        }
        let idle_check = self.idle_check(bounds, &system.log);
        if idle_check.is_some_and(|idle_check| idle_check.may_be_idle(system.now)) {
            events.push(Event::AskLogsEnd);
        }
    }

    /// Reads a record.
    pub(super) fn fetch(&mut self, bounds: &Bounds, log: &[Logged], next: Next) {
        let Collector { window, open, rebuild, .. } = &mut self.collector;
        let mut remembered = restored(window, log);
        let row = remember(&mut remembered, log, next, &bounds.window);
        open.push(row);
        window.push(row);
        window.retain(|row| remembered.floor().is_some_and(|floor| floor <= row.offset));
        if *rebuild == Some(next.offset) {
            self.close(log);
        }
    }

    /// Receives Kafka's answer, and empties the window if the partition is idle.
    pub(super) fn receive_log_end(&mut self, bounds: &Bounds, log: &[Logged]) {
        let idle_check = self.idle_check(bounds, log);
        let Some(Question { asked, end: Some(end) }) = self.collector.question.take() else { return };
        if idle_check.is_some_and(|idle_check| idle_check.is_idle(asked, end)) {
            let Collector { window, before, start, .. } = &mut self.collector;
            window.clear();
            let window = Window::new().mark(*start);
            *before = Intent { window, ..intent(before) }.to_string();
            self.sent = Some(Message::Idle(before.clone()));
        }
    }

    /// The next record to read, and whether the open batch or the ledger already has it.
    pub(super) fn next(&self, log: &[Logged], ledger: &[Row]) -> Next {
        let Collector { start, open, .. } = &self.collector;
        let offset = Offset::new(self.read().to_i64());
        let record = log[index(offset)].record;
        let mut before = ledger.iter().filter(|row| row.offset.next() <= *start).chain(open);
        let known = record != index(offset) && before.any(|row| log[index(row.offset)].record == record);
        Next { offset, known }
    }

    /// The next offset to read.
    fn read(&self) -> NextOffset {
        self.collector.open.last().map_or(self.collector.start, |row| row.offset.next())
    }

    /// The check whether the partition is idle; `None` if the window is empty.
    fn idle_check(&self, bounds: &Bounds, log: &[Logged]) -> Option<IdleCheck> {
        let Collector { rebuild, open, window, .. } = &self.collector;
        let state = match rebuild {
            Some(_) => WorkState::Rebuilding,
            None if open.is_empty() => WorkState::NoBatch,
            None => WorkState::OpenBatch,
        };
        let newest = restored(window, log).newest()?;
        let (read, applied) = (self.read(), self.progress.applied());
        Some(IdleCheck { state, read, applied, newest, window_age_ms: bounds.window.age_ms })
    }

    /// Closes the open batch and sends it to the applier.
    pub(super) fn close(&mut self, log: &[Logged]) {
        let (start, end) = (self.collector.start, self.read());
        let Collector { rebuild, open, window, before, .. } = &mut self.collector;
        let rebuilt = rebuild.take().is_some();
        let rows = std::mem::take(open);
        let last = rows.last().map(|row| row.offset);
        let declared = Intent { last, ..intent(before) };
        let newest = last.map(|last| log[index(last)].time);
        let mark = restored(window, log).mark(end);
        *before = Intent { window: mark, newest, ..intent(before) }.to_string();
        let (intent, after) = (declared.to_string(), before.clone());
        self.collector.start = end;
        self.sent = Some(Message::Batch(Batch { start, end, rows, intent, after, rebuilt }));
    }
}

/// Parses the text of an intent.
pub(super) fn intent(text: &str) -> Intent {
    text.parse().expect("an intent can be parsed from its own text")
}
