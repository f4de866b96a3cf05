use std::thread;

use schemas::record::Kind;
use schemas::time::DAY;

use super::*;
use crate::protocol::intent::LogMark;
use crate::protocol::recover::Resume;
use crate::rows::decode::LedgerEntry;

#[test]
fn an_intent_has_the_leader_epoch_of_the_last_record_of_its_batch() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let declared = Declaration::clone(&context.services.declaration);
    let log = LogMark { topic: None, epoch: Some(3) };
    let intent = Intent::fresh(NextOffset::ZERO, declared.hash(), 0, log);
    let mut collector = resumed(&context, intent, declared, &[5]);
    collector.newest_epoch = Some(4);
    let batch = collector.batcher.push(entry(4), 1, Instant::now()).expect("the batch ends here");
    let PipelineMessage::Batch(ready) = collector.close(batch) else { unreachable!("a batch was closed") };
    assert_eq!((ready.intent.log.epoch, ready.intent.last_epoch), (Some(3), Some(4)));
    let after = ready.after.expect("no part of the batch is left");
    assert_eq!((after.log.epoch, after.last_epoch), (Some(4), None));
}

/// A rebuild of offsets 0 to 9 in two parts, under a copy of the process's declaration. [`is_ours`] returns false while
/// the collector uses this copy.
fn rebuilding(context: &PartitionContext) -> Collector<'_> {
    let declared = Declaration::clone(&context.services.declaration);
    let intent = Intent {
        last: Some(Offset::new(9)),
        split: vec![NextOffset::new(5)],
        ..Intent::fresh(NextOffset::ZERO, declared.hash(), 0, LogMark::default())
    };
    resumed(context, intent, declared, &[])
}

fn resumed<'p>(
    context: &'p PartitionContext,
    intent: Intent,
    declared: Declaration,
    ends: &[i64],
) -> Collector<'p> {
    let resume = Resume { from: NextOffset::ZERO, rebuild: intent.last, intent };
    let fixed_ends = ends.iter().copied().map(NextOffset::new).collect();
    Collector::new(
        context,
        RestoredPartition { resume, declaration: Arc::new(declared), window: Window::new(), fixed_ends },
    )
}

/// A record without lines.
fn entry(offset: i64) -> LedgerEntry {
    LedgerEntry {
        offset: Offset::new(offset),
        record_id: Uuid::nil(),
        kafka_time: UnixMillis(0),
        lines: 0,
        rejected: 0,
        duplicates: 0,
        stored: 0,
        time_replaced: 0,
        arrival_replaced: 0,
        ids: Vec::new(),
        first_rejected: None,
    }
}

/// Adds a record without lines. If the record completes a batch, returns where the batch ends, whether it is rebuilt,
/// and whether an intent may be committed after it if no other batch follows.
fn push(collector: &mut Collector<'_>, offset: i64) -> Option<(NextOffset, bool, bool)> {
    let batch = collector.batcher.push(entry(offset), 1, Instant::now())?;
    match collector.close(batch) {
        PipelineMessage::Batch(ready) => {
            Some((ready.declared.end, ready.declared.rebuilt, ready.after.is_some()))
        }
        PipelineMessage::Idle(_) => unreachable!("a batch was closed"),
    }
}

fn is_ours(collector: &Collector<'_>) -> bool {
    Arc::ptr_eq(&collector.declaration, &collector.context.services.declaration)
}

#[test]
fn a_split_batch_keeps_its_declaration_until_its_last_part() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let mut collector = rebuilding(&context);
    assert_eq!(push(&mut collector, 4), Some((NextOffset::new(5), true, false)));
    assert!(collector.batcher.is_rebuilding() && !is_ours(&collector));
    assert_eq!(push(&mut collector, 9), Some((NextOffset::new(10), true, true)));
    assert!(!collector.batcher.is_rebuilding() && is_ours(&collector));
}

#[test]
fn a_rebuilt_batch_keeps_its_token_and_a_new_declaration_gets_a_new_token() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let declared = Declaration::clone(&context.services.declaration);
    let fresh = Intent::fresh(NextOffset::ZERO, declared.hash(), 0, LogMark::default());
    let close = |intent: Intent, ends: &[i64]| {
        let mut collector = resumed(&context, intent, declared.clone(), ends);
        let batch = collector.batcher.push(entry(4), 1, Instant::now()).expect("the batch ends here");
        let PipelineMessage::Batch(ready) = collector.close(batch) else {
            unreachable!("a batch was closed")
        };
        ready
    };
    let [first, other] = [(), ()].map(|()| close(fresh.clone(), &[5]));
    assert_ne!(first.declared.token, other.declared.token, "each declaration of a batch has its own nonce");
    let again = close(Intent { split: Vec::new(), ..first.intent.clone() }, &[]);
    assert_eq!(again.declared.token, first.declared.token);
    assert_eq!(again.after.expect("no part of the batch is left").nonce, 0);
}

#[test]
fn adopted_records_keep_their_declaration_and_later_ones_get_the_current() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let declared = Declaration::clone(&context.services.declaration);
    let fresh = Intent::fresh(NextOffset::ZERO, declared.hash(), 0, LogMark::default());
    let intent = Intent { adopted: Some(NextOffset::new(8)), ..fresh };
    let mut collector = resumed(&context, intent, declared, &[5, 8]);
    assert_eq!(push(&mut collector, 4), Some((NextOffset::new(5), false, true)));
    assert!(!is_ours(&collector));
    assert_eq!(push(&mut collector, 7), Some((NextOffset::new(8), false, true)));
    assert!(is_ours(&collector));
    assert_eq!(push(&mut collector, 9), None, "nothing closes the batch");
}

#[test]
fn the_intent_after_a_rebuilt_batch_names_the_current_declaration() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let ours = &context.services.declaration;
    let declared = Declaration { max_groups: 7, ..Declaration::clone(ours) };
    let fresh = Intent::fresh(NextOffset::ZERO, declared.hash(), 0, LogMark::default());
    let intent = Intent { last: Some(Offset::new(9)), ..fresh };
    let mut collector = resumed(&context, intent, declared.clone(), &[]);
    let batch = collector.batcher.push(entry(9), 1, Instant::now()).expect("the batch ends here");
    let PipelineMessage::Batch(ready) = collector.close(batch) else { unreachable!("a batch was closed") };
    let after = ready.after.expect("no part of the batch is left");
    assert_eq!((after.last, after.declaration_hash), (None, ours.hash()));
    assert_ne!(declared.hash(), ours.hash());
}

#[test]
fn each_record_with_an_implausible_time_is_counted() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let mut collector = rebuilding(&context);
    for (offset, time) in [(0, 0), (1, DAY), (2, DAY), (3, 0), (4, 0)] {
        collector.check_time(Offset::new(offset), UnixMillis(time), UnixMillis(0));
        collector.newest_time = Some(UnixMillis(time));
    }
    assert_eq!(
        context.services.metrics.records_off_clock.get(),
        3,
        "the times at offsets 1 and 2 are ahead of the clock, and the time at offset 3 goes back"
    );
}

#[test]
fn a_stop_before_the_ledger_answers_leaves_a_spooled_record_undecided() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let context = PartitionContext::unanswered(runtime.handle().clone());
    let head = Ok(Head { lines: 1, id: Uuid::now_v7(), spooled: true, kind: Kind::Events, trace: None });
    let known = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let queue = context.queue();
            let mut records = Records { queue: &queue, ahead: VecDeque::new() };
            rebuilding(&context).is_known(&head, &mut records)
        });
        context.stop.cancel();
        asking.join().unwrap()
    });
    assert!(matches!(known, Err(CollectorEnd::Stopped)));
}
