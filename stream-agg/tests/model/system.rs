//! The whole system of the model: what can happen next, and the properties that must always hold.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use schemas::time::UnixMillis;
use stateright::{Model, Property};
use stream_agg::apply::insert::Token;
use stream_agg::apply::verdict::{Attempts, InsertAnswer, STATEMENT_VALIDITY_MS, Verdict, judge};
use stream_agg::protocol::progress::{AfterCommit, CommitOutcome, after_commit, may_release};
use stream_agg::rows::cells::Source;

use super::aggregator::{Batch, Open, Pipeline, Process, Step};
use super::clickhouse::{Cell, Statement};
use super::kafka::{Commit, Kafka, Sent};

/// How often each kind of event may happen, so that the number of states is finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Records in the log.
    pub(crate) records: i64,
    /// Crashes of a process.
    pub(crate) crashes: u8,
    /// Revocations of the partition, and members that Kafka considers dead.
    pub(crate) moves: u8,
    /// Calls that time out although they may still take effect.
    pub(crate) losses: u8,
    /// Crashes of ClickHouse after it has stored only the token of an insert, or only its part.
    pub(crate) kills: u8,
    /// Steps of the clock. Each step is as long as a statement is valid.
    pub(crate) ticks: u8,
    /// Maximum number of statements at the same time.
    pub(crate) statements: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct System {
    /// How often each kind of event may still happen.
    left: Bounds,
    now: UnixMillis,
    kafka: Kafka,
    cells: [Cell; 2],
    statements: Vec<Statement>,
    processes: [Process; 2],
    /// Whether a pipeline could not start.
    refused: bool,
}

/// What happens next. The first number is the index of a commit in flight (`CommitArrives` to `CommitGivenUp`), of a
/// statement (`Admit` to `KilledWithoutToken`), of a cell (`Forget`), or of a process (all other events). In `Send` and
/// `ReadMarker`, the second number is the index of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Assign(usize),
    Commit(usize, Commit),
    CommitArrives(usize),
    CommitRefused(usize, CommitOutcome),
    CommitGivenUp(usize),
    Send(usize, usize),
    ReadMarker(usize, usize),
    Admit(usize),
    NotAdmitted(usize),
    Write(usize),
    AnswerGivenUp(usize),
    KilledWithoutPart(usize),
    KilledWithoutToken(usize),
    Forget(usize, String),
    Crash(usize),
    Revoke(usize),
    ConsiderDead(usize),
    EndPipeline(usize),
    Release(usize),
    Tick,
}

impl Model for Bounds {
    type State = System;
    type Action = Event;

    fn init_states(&self) -> Vec<System> {
        vec![System {
            left: *self,
            now: UnixMillis(0),
            kafka: Kafka::default(),
            cells: [Cell::new(self.records), Cell::new(self.records)],
            statements: Vec::new(),
            processes: Default::default(),
            refused: false,
        }]
    }

    fn actions(&self, system: &System, events: &mut Vec<Event>) {
        for process in 0..2 {
            system.of_process(process, events);
        }
        system.of_commits(events);
        system.of_statements(events);
        for (at, cell) in system.cells.iter().enumerate() {
            let runs = |token: &str| system.statements.iter().any(|s| s.cell == at && s.token == token);
            let idle = cell.tokens.iter().filter(|token| !runs(token));
            events.extend(idle.map(|token| Event::Forget(at, token.clone())));
        }
        if system.left.ticks > 0 {
            events.push(Event::Tick);
        }
    }

    fn next_state(&self, system: &System, event: Event) -> Option<System> {
        let mut next = system.clone();
        next.happens(event);
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no record is in a cell twice", |_, system: &System| {
                system.cells.iter().all(|cell| cell.counts.iter().all(|count| *count <= 1))
            }),
            Property::always("every committed record is in every cell", |_, system: &System| {
                let from = system.kafka.committed.map_or(0, |committed| committed.from);
                let from = usize::try_from(from).unwrap();
                system.cells.iter().all(|cell| cell.counts[..from].iter().all(|count| *count > 0))
            }),
            Property::always("a declared batch never changes", |_, system: &System| !system.kafka.changed),
            Property::always("no operator is needed", |_, system: &System| {
                let stopped = |p: &Process| {
                    let batch = p.pipeline.as_ref().and_then(|pipeline| pipeline.batch.as_ref());
                    batch.is_some_and(|batch| batch.cells.iter().any(|cell| cell.step == Step::Stopped))
                };
                !system.refused && !system.processes.iter().any(stopped)
            }),
            // If the model never reached this state, the other properties could hold without proving anything.
            Property::sometimes("all is counted after every failure", |bounds, system: &System| {
                let Bounds { crashes, moves, losses, kills, .. } = system.left;
                let done = Commit { from: bounds.records, last: None };
                system.kafka.committed == Some(done) && crashes + moves + losses + kills == 0
            }),
            Property::sometimes(
                "a partition is kept while a commit without a batch is in flight",
                |bounds, system: &System| {
                    let keeps = |process: usize| {
                        let Process { pipeline, revoked, .. } = &system.processes[process];
                        *revoked && pipeline.is_none() && system.kafka.has_idle_call(process)
                    };
                    bounds.moves == 0 || (0..2).any(keeps)
                },
            ),
        ]
    }
}

impl System {
    fn of_process(&self, at: usize, events: &mut Vec<Event>) {
        let Process { pipeline, revoked, lost } = &self.processes[at];
        let leaves = *revoked || *lost;
        if leaves && may_release(pipeline.is_none(), self.kafka.has_call(at)) {
            events.push(Event::Release(at));
        }
        let Some(pipeline) = pipeline else {
            if self.kafka.owner.is_none() && !leaves {
                events.push(Event::Assign(at));
            }
            return;
        };
        events
            .extend(pipeline.commits(self.left.records, *revoked).into_iter().map(|c| Event::Commit(at, c)));
        for (cell, open) in pipeline.batch.iter().flat_map(|batch| batch.cells.iter().enumerate()) {
            match open.step {
                Step::Send if self.statements.len() < self.left.statements => {
                    events.push(Event::Send(at, cell));
                }
                Step::ReadMarkerFrom(from) if from <= self.now => events.push(Event::ReadMarker(at, cell)),
                _ => {}
            }
        }
        if leaves {
            events.push(Event::EndPipeline(at));
        }
        if self.left.crashes > 0 {
            events.push(Event::Crash(at));
        }
        if self.left.moves > 0 && self.kafka.owner == Some(at) && !leaves {
            events.extend([Event::Revoke(at), Event::ConsiderDead(at)]);
        }
    }

    fn of_commits(&self, events: &mut Vec<Event>) {
        for (at, sent) in self.kafka.wire.iter().enumerate() {
            if sent.under_way && self.processes[sent.process].lost {
                events.extend(
                    [CommitOutcome::Refused, CommitOutcome::Fenced].map(|e| Event::CommitRefused(at, e)),
                );
            } else {
                events.push(Event::CommitArrives(at));
            }
            if sent.under_way && self.left.losses > 0 {
                events.push(Event::CommitGivenUp(at));
            }
        }
    }

    fn of_statements(&self, events: &mut Vec<Event>) {
        for (at, statement) in self.statements.iter().enumerate() {
            let Statement { cell, token, admitted, .. } = statement;
            if !admitted {
                events.push(if self.admits(statement) { Event::Admit(at) } else { Event::NotAdmitted(at) });
            } else {
                events.push(Event::Write(at));
                if self.left.kills > 0 && !self.cells[*cell].knows(token) {
                    events.extend([Event::KilledWithoutPart(at), Event::KilledWithoutToken(at)]);
                }
            }
            if statement.process.is_some() && self.left.losses > 0 {
                events.push(Event::AnswerGivenUp(at));
            }
        }
    }

    fn admits(&self, statement: &Statement) -> bool {
        statement.target.admits(self.cells[statement.cell].marker, self.now, statement.deadline)
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Assign(at) => self.assign(at),
            Event::Commit(at, commit) => self.commit(at, commit),
            Event::CommitArrives(at) => {
                let Sent { process, commit, under_way } = self.kafka.wire.remove(at);
                self.kafka.store_commit(commit);
                if under_way {
                    self.commit_answered(process, CommitOutcome::Accepted);
                }
            }
            Event::CommitRefused(at, end) => {
                let Sent { process, .. } = self.kafka.wire.remove(at);
                self.commit_answered(process, end);
            }
            Event::CommitGivenUp(at) => {
                self.left.losses -= 1;
                let process = self.kafka.wire[at].process;
                if self.processes[process].lost {
                    // Kafka considers the process dead, so Kafka refuses the commit even if it arrives later.
                    self.kafka.wire.remove(at);
                } else {
                    self.kafka.wire[at].under_way = false;
                }
                self.commit_answered(process, CommitOutcome::Unknown);
            }
            Event::Send(at, cell) => self.send(at, cell),
            Event::ReadMarker(at, cell) => self.read_marker(at, cell),
            Event::Admit(at) => self.statements[at].admitted = true,
            Event::NotAdmitted(at) => {
                // The condition of the insert does not hold, so ClickHouse answers with an error and writes no rows.
                let statement = self.statements.remove(at);
                self.answer(&statement, false);
            }
            Event::Write(at) => {
                let statement = self.statements.remove(at);
                let cell = &mut self.cells[statement.cell];
                if !cell.knows(&statement.token) {
                    cell.record(&statement.token);
                    cell.write(&statement.target);
                }
                self.answer(&statement, true);
            }
            Event::AnswerGivenUp(at) => {
                self.left.losses -= 1;
                let statement = self.statements[at].clone();
                self.answer(&statement, false);
                self.statements[at].process = None;
            }
            Event::KilledWithoutPart(at) => {
                let Statement { cell, token, .. } = self.statements[at].clone();
                self.cells[cell].record(&token);
                self.kill();
            }
            Event::KilledWithoutToken(at) => {
                let Statement { cell, target, .. } = self.statements[at].clone();
                self.cells[cell].write(&target);
                self.kill();
            }
            Event::Forget(cell, token) => {
                self.cells[cell].tokens.remove(&token);
            }
            Event::Crash(at) => {
                self.left.crashes -= 1;
                self.end(at);
            }
            Event::Revoke(at) => {
                self.left.moves -= 1;
                self.processes[at].revoked = true;
            }
            Event::ConsiderDead(at) => {
                self.left.moves -= 1;
                self.processes[at].lost = true;
                self.kafka.release(at);
                self.kafka.wire.retain(|sent| sent.process != at || sent.under_way);
            }
            Event::EndPipeline(at) => {
                self.stop_waiting(at);
                self.processes[at].pipeline = None;
            }
            Event::Release(at) => {
                self.kafka.release(at);
                self.processes[at].revoked = false;
                self.processes[at].lost = false;
            }
            Event::Tick => {
                self.left.ticks -= 1;
                self.now = UnixMillis(self.now.0 + STATEMENT_VALIDITY_MS);
                let now = self.now;
                self.drop_statements(|statement| statement.over(now));
            }
        }
    }

    fn assign(&mut self, at: usize) {
        self.kafka.assign(at);
        match Pipeline::start(self.kafka.committed, &self.cells, self.now) {
            Ok(pipeline) => self.processes[at].pipeline = Some(pipeline),
            Err(_) => self.refused = true,
        }
    }

    fn commit(&mut self, at: usize, commit: Commit) {
        self.pipeline(at).committing = Some(commit);
        self.kafka.wire.push(Sent { process: at, commit, under_way: true });
    }

    /// Does what [`stream_agg::kafka::commit`] does with the outcome of a commit.
    fn commit_answered(&mut self, at: usize, end: CommitOutcome) {
        let committed = self.kafka.committed;
        let Some(pipeline) = &mut self.processes[at].pipeline else { return };
        let Some(commit) = pipeline.committing.take() else { return };
        match after_commit(end) {
            AfterCommit::Proceed => {
                pipeline.known = Some(commit);
                pipeline.open(commit, Attempts::of(false), Step::Send);
                self.stop_waiting(at);
            }
            AfterCommit::ReadBack if committed == pipeline.known => self.commit(at, commit),
            AfterCommit::ReadBack | AfterCommit::Rejoin | AfterCommit::Shutdown => self.end(at),
        }
    }

    fn send(&mut self, at: usize, cell: usize) {
        let batch = self.batch(at);
        let (target, last) = (batch.target(), batch.last());
        let Open { attempts, step } = &mut batch.cells[cell];
        *step = Step::InsertAnswer;
        let source = Source { log_generation: 0, partition: 0, declaration_hash: 1 };
        let token = Token::new(source, "t", target.start, last, 0).text(attempts.renamed());
        let deadline = UnixMillis(self.now.0 + STATEMENT_VALIDITY_MS);
        let process = Some(at);
        self.statements.push(Statement { process, cell, target, deadline, token, admitted: false });
    }

    fn read_marker(&mut self, at: usize, cell: usize) {
        let (now, marker) = (self.now, self.cells[cell].marker);
        let batch = self.batch(at);
        let target = batch.target();
        let Open { attempts, step } = &mut batch.cells[cell];
        let verdict = judge(&target, attempts, marker, now);
        *step = match verdict {
            Verdict::Applied => return self.applied(at, cell),
            Verdict::Send => Step::Send,
            Verdict::Wait(until) => Step::ReadMarkerFrom(until),
            Verdict::Stop(_) => Step::Stopped,
        };
    }

    /// Passes the result of a statement to the process that waits for the result, if any.
    fn answer(&mut self, statement: &Statement, done: bool) {
        let now = self.now;
        if let Some(at) = statement.process {
            // An answer after the deadline of its statement proves nothing about the rows.
            let answer = match done {
                true if now < statement.deadline => InsertAnswer::Written,
                true => InsertAnswer::Accepted,
                false => InsertAnswer::None,
            };
            let open = &mut self.batch(at).cells[statement.cell];
            if open.attempts.sent(statement.deadline, answer) {
                self.applied(at, statement.cell);
            } else {
                open.step = Step::ReadMarkerFrom(now);
            }
        }
    }

    /// Records that one cell of the batch is in ClickHouse. The batch ends once all of its cells are in ClickHouse.
    fn applied(&mut self, at: usize, cell: usize) {
        let batch = self.batch(at);
        batch.cells[cell].step = Step::Applied;
        let there = batch.cells.iter().all(|cell| cell.step == Step::Applied);
        let pipeline = self.pipeline(at);
        pipeline.progress.cell_applied();
        pipeline.batch = pipeline.batch.take().filter(|_| !there);
    }

    /// Kills ClickHouse, and the statements that it is executing.
    fn kill(&mut self) {
        self.left.kills -= 1;
        self.drop_statements(|statement| statement.admitted);
    }

    fn drop_statements(&mut self, ends: impl Fn(&Statement) -> bool) {
        let (ended, left): (Vec<_>, _) = std::mem::take(&mut self.statements).into_iter().partition(ends);
        self.statements = left;
        for statement in ended {
            self.answer(&statement, false);
        }
    }

    /// Ends a process, or its membership in the group. Requests that the process has sent to Kafka and ClickHouse may
    /// still take effect, except commits of a process that Kafka considers dead.
    fn end(&mut self, at: usize) {
        self.stop_waiting(at);
        if self.processes[at].lost {
            self.kafka.wire.retain(|sent| sent.process != at);
        }
        self.kafka.end_calls(at);
        self.kafka.release(at);
        self.processes[at] = Process::default();
    }

    /// Makes the process stop waiting for its statements.
    fn stop_waiting(&mut self, at: usize) {
        self.statements.iter_mut().filter(|s| s.process == Some(at)).for_each(|s| s.process = None);
    }

    fn pipeline(&mut self, at: usize) -> &mut Pipeline {
        self.processes[at].pipeline.as_mut().expect("the event happens only in a process with a pipeline")
    }

    fn batch(&mut self, at: usize) -> &mut Batch {
        self.pipeline(at).batch.as_mut().expect("only a declared batch is inserted")
    }

    /// Normalizes the state: states that differ only in irrelevant ways become equal.
    fn tidy(&mut self) {
        let (now, cells) = (self.now, &self.cells);
        self.statements.retain(|s| {
            let admits = s.admitted || s.target.admits(cells[s.cell].marker, now, s.deadline);
            s.process.is_some() || admits
        });
        let [one, other] = &self.processes;
        if order(one) > order(other) {
            self.processes.swap(0, 1);
            self.kafka.owner = self.kafka.owner.map(|owner| 1 - owner);
            self.kafka.wire.iter_mut().for_each(|sent| sent.process = 1 - sent.process);
            self.statements.iter_mut().for_each(|s| s.process = s.process.map(|process| 1 - process));
        }
        self.kafka.wire.sort();
        self.statements.sort_by_key(order);
    }
}

/// An arbitrary sort key that is the same in every run.
fn order<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
