//! A model of the deduplication window. It checks which rows a batch has, whatever happens between an event and its
//! repeat.
//!
//! This model is separate from [`super::system`], because each of the two models has several hundred thousand states,
//! and a combined model would have too many. `system` covers the failures of commits and inserts. A row in `system` is
//! only an offset, and `system` shows that a declared batch keeps its offsets and is inserted into each cell once. This
//! model shows the rest: in a given log, the rows of a batch depend only on the offsets of the batch. Here, a commit or
//! an insert into one cell happens completely or not at all, and only one process exists at a time.
//!
//! The model calls the functions of the service to decode, remember and restore records. Only the check whether the
//! open batch or the ledger already has a record from a spool is imitated here (`Pipeline::next`); the service has this
//! check in `pipeline/collect.rs`. To model a slow fetch, the queue of the pipeline may be empty at any moment although
//! the log has more records. A state contains the rows of the window instead of the window itself.

mod log;
mod pipeline;

use schemas::time::UnixMillis;
use stateright::{Model, Property};
use stream_agg::protocol::intent::Intent;
use stream_agg::protocol::progress::{NextOffset, Offset, Progress};
use stream_agg::protocol::recover::{Resume, resume};
use stream_agg::protocol::window::WindowLimits;

use super::aggregator::{CFG, found, markers};
use log::{Logged, Row, index, restored, stored};
use pipeline::{Collector, Message, Pipeline, Question, intent};

/// How often each kind of event may happen, so that the number of states is finite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Number of records that are appended to the log, each with one event.
    pub(crate) records: usize,
    /// How many of these records may be copies of earlier records, sent again from a spool.
    pub(crate) spooled: usize,
    /// How far back repeats are recognized.
    pub(crate) window: WindowLimits,
    /// Length of a silence, which is a time without records, in milliseconds.
    pub(crate) silence: i64,
    /// Number of silences.
    pub(crate) silences: u8,
    /// Crashes of a process at any moment.
    pub(crate) crashes: u8,
    /// Graceful stops of a process.
    pub(crate) stops: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct System {
    now: UnixMillis,
    silences: u8,
    crashes: u8,
    stops: u8,
    log: Vec<Logged>,
    committed: Option<(NextOffset, String)>,
    /// The cell of the ledger, then the cell of `events`.
    cells: [Cell; 2],
    owner: Option<Pipeline>,
    /// Whether a pipeline could not start.
    refused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cell {
    rows: Vec<Row>,
    marker: NextOffset,
}

/// What happens next. The number in `Append` is the number of an event, in `AppendSpooled` the index of the record that
/// is sent again, and in `Insert` the index of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Append(usize),
    AppendSpooled(usize),
    Silence,
    Assign,
    Crash,
    Stop,
    Fetch,
    Close,
    AskLogsEnd,
    TellLogsEnd,
    ReceiveLogEnd,
    Take,
    Insert(usize),
    Settle,
    End,
}

impl Model for Bounds {
    type State = System;
    type Action = Event;

    fn init_states(&self) -> Vec<System> {
        let Self { silences, crashes, stops, .. } = *self;
        let cell = Cell { rows: Vec::new(), marker: NextOffset::ZERO };
        vec![System {
            now: UnixMillis(0),
            silences,
            crashes,
            stops,
            log: Vec::new(),
            committed: None,
            cells: [cell.clone(), cell],
            owner: None,
            refused: false,
        }]
    }

    fn actions(&self, system: &System, events: &mut Vec<Event>) {
        if system.log.len() < self.records {
            let new = system.log.iter().map(|record| record.event + 1).max().unwrap_or(0);
            events.extend((0..=new).map(Event::Append));
            let own = |(at, record): &(usize, &Logged)| *at == record.record;
            let (first, again): (Vec<_>, Vec<_>) = system.log.iter().enumerate().partition(own);
            if again.len() < self.spooled {
                events.extend(first.iter().map(|(at, _)| Event::AppendSpooled(*at)));
            }
        }
        if system.silences > 0 {
            events.push(Event::Silence);
        }
        match &system.owner {
            Some(pipeline) => pipeline.events(self, system, events),
            None if system.refused => {}
            None => events.push(Event::Assign),
        }
    }

    fn next_state(&self, system: &System, event: Event) -> Option<System> {
        let mut next = system.clone();
        next.happens(self, &event);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no record is in a cell twice", |_, system: &System| {
                let ascends = |cell: &Cell| cell.rows.is_sorted_by(|one, next| one.offset < next.offset);
                system.cells.iter().all(ascends)
            }),
            Property::always(
                "an event is counted once while its repeats are recognized",
                |bounds, system: &System| {
                    let stored = stored(&system.log, &bounds.window);
                    let rows = system.cells.iter().flat_map(|cell| &cell.rows);
                    rows.into_iter().all(|row| row.stored == stored[index(row.offset)])
                },
            ),
            Property::always("every committed record is in every cell", |_, system: &System| {
                let from = system.committed.as_ref().map_or(NextOffset::ZERO, |(from, _)| *from);
                let below = |cell: &Cell| cell.rows.iter().filter(|row| row.offset.next() <= from).count();
                system.cells.iter().all(|cell| below(cell) == from.to_i64() as usize)
            }),
            Property::always("no operator is needed", |_, system: &System| !system.refused),
            // If the model never reached this state, the other properties could hold without proving anything.
            Property::sometimes("all is counted after every failure", |bounds, system: &System| {
                let done = |(from, text): &(NextOffset, String)| {
                    from.to_i64() as usize == bounds.records && intent(text).last.is_none()
                };
                let System { silences, crashes, stops, committed, .. } = system;
                silences + crashes + stops == 0 && committed.as_ref().is_some_and(done)
            }),
            Property::sometimes("a window was emptied in a silence", |bounds, system: &System| {
                let empties = |pipeline: &Pipeline| {
                    pipeline.collector.start > NextOffset::ZERO && pipeline.collector.window.is_empty()
                };
                bounds.silences == 0 || system.owner.as_ref().is_some_and(empties)
            }),
        ]
    }
}

impl System {
    fn happens(&mut self, bounds: &Bounds, event: &Event) {
        let log = self.log.clone();
        match event {
            Event::Append(event) => {
                self.log.push(Logged { event: *event, record: self.log.len(), time: self.now });
            }
            Event::AppendSpooled(at) => self.log.push(Logged { time: self.now, ..self.log[*at] }),
            Event::Silence => {
                self.silences -= 1;
                self.now.0 += bounds.silence;
            }
            Event::Assign => self.assign(),
            Event::Crash => {
                self.crashes -= 1;
                self.owner = None;
            }
            Event::Stop => {
                self.stops -= 1;
                self.pipeline().stops = true;
            }
            Event::Fetch => {
                let ledger = self.cells[0].rows.clone();
                let pipeline = self.pipeline();
                let next = pipeline.next(&log, &ledger);
                pipeline.fetch(bounds, &log, next);
            }
            Event::Close => self.pipeline().close(&log),
            Event::AskLogsEnd => {
                self.pipeline().collector.question = Some(Question { asked: self.now, end: None });
            }
            Event::TellLogsEnd => {
                let end = Some(NextOffset::new(self.log.len() as i64));
                let question = &mut self.pipeline().collector.question;
                *question = question.map(|question| Question { end, ..question });
            }
            Event::ReceiveLogEnd => self.pipeline().receive_log_end(bounds, &log),
            Event::Take => self.take(),
            Event::Insert(cell) => self.insert(*cell),
            Event::Settle => self.settle(),
            Event::End => {
                self.settle();
                self.owner = None;
            }
        }
    }

    /// Does what `pipeline/restore.rs` does.
    fn assign(&mut self) {
        let committed = self.committed.as_ref().map(|(from, text)| (*from, text.clone()));
        let found = found(committed, self.log.len());
        let markers = markers(self.cells.each_ref().map(|cell| cell.marker));
        let Ok(Resume { from, rebuild, intent }) = resume(&found, &markers, self.now, CFG) else {
            self.refused = true;
            return;
        };
        let in_window =
            |row: &&Row| intent.window.floor.is_at_or_below(row.offset) && row.offset.next() <= from;
        let window: Vec<_> = self.cells[0].rows.iter().filter(in_window).copied().collect();
        if restored(&window, &self.log).verified(&intent.window).is_err() {
            self.refused = true;
            return;
        }
        let before = Intent { last: None, ..intent }.to_string();
        let collector = Collector { rebuild, start: from, open: Vec::new(), window, before, question: None };
        let progress = Progress::new(from);
        self.owner =
            Some(Pipeline { stops: false, collector, sent: None, progress, inserting: None, after: None });
    }

    /// The applier receives a message. If the message contains a batch, the applier declares the batch, unless the
    /// batch is rebuilt and therefore declared already.
    fn take(&mut self) {
        let pipeline = self.pipeline();
        match pipeline.sent.take().expect("a message was sent") {
            Message::Idle(after) => pipeline.after = Some(after),
            Message::Batch(batch) => {
                pipeline.progress.declare(Offset::new(batch.end.to_i64() - 1), 2);
                let (commit, rebuilt) = ((batch.start, batch.intent.clone()), batch.rebuilt);
                pipeline.inserting = Some((batch, [false; 2]));
                if !rebuilt {
                    self.committed = Some(commit);
                }
            }
        }
    }

    fn insert(&mut self, cell: usize) {
        let pipeline = self.owner.as_mut().expect("the event happens only while there is a pipeline");
        let (batch, applied) = pipeline.inserting.as_mut().expect("only a declared batch is inserted");
        let Cell { rows, marker } = &mut self.cells[cell];
        if *marker <= batch.start {
            rows.extend(&batch.rows);
            *marker = batch.end;
        }
        applied[cell] = true;
        pipeline.progress.cell_applied();
        if pipeline.progress.may_declare() {
            pipeline.after = pipeline.inserting.take().map(|(batch, _)| batch.after);
        }
    }

    fn settle(&mut self) {
        let pipeline = self.pipeline();
        let applied = pipeline.progress.applied();
        if let Some(after) = pipeline.after.take() {
            self.committed = Some((applied, after));
        }
    }

    fn pipeline(&mut self) -> &mut Pipeline {
        self.owner.as_mut().expect("the event happens only while there is a pipeline")
    }
}
