use proptest::prelude::*;
use schemas::event::Code;
use schemas::record;
use schemas::time::UnixMillis;

use super::*;
use crate::accept::decode;
use crate::accept::hot_keys::HotKeys;
use crate::accept::report::MAX_ERRORS;

fn prefix() -> Prefix {
    Prefix::new("default", "203.0.113.7".parse().unwrap(), UnixMillis(1_763_697_600_123))
}

fn run(body: &str, count: u32, spare: u32) -> (Vec<Chunk>, Report) {
    run_for(AllowedEvents::Any, body, count, spare)
}

fn run_for(allowed: AllowedEvents, body: &str, count: u32, spare: u32) -> (Vec<Chunk>, Report) {
    let lines = decode::lines(body.as_bytes(), 1000).unwrap();
    let to = Partitions { count: NonZeroU32::new(count).unwrap(), spare, hot_keys: None };
    enrich(&lines, allowed, "default", Identity::None, None, &prefix(), to)
}

fn lines_of(chunk: &Chunk) -> impl Iterator<Item = &[u8]> {
    record::lines(chunk.value.strip_suffix(b"\n").unwrap())
}

#[track_caller]
fn check_partition(line: &str, expected: u32) {
    let parsed = event::parse::<()>(line).unwrap();
    let to = Partitions { count: NonZeroU32::new(1000).unwrap(), spare: 7, hot_keys: None };
    assert_eq!(partition(&mut UserHasher::of("default"), &parsed.event, to), (expected, false), "{line}");
}

/// Golden values. If they change, an event that is sent again after an upgrade goes to another partition than the first
/// time, and counts twice.
#[test]
fn the_partition_of_an_event_never_changes() {
    check_partition(r#"{"event":"a","user_id":"u1","device_id":"d","session":"s"}"#, 814);
    check_partition(r#"{"event":"b","device_id":"u1"}"#, 814);
    check_partition(r#"{"event":"a","session":"\u00751"}"#, 814);
    check_partition(r#"{"event":"a","user_id":"u2"}"#, 751);
    check_partition(r#"{"event":"a","event_id":"0192F0C1-0000-7000-8000-000000000001"}"#, 384);
    check_partition(r#"{"event":"a","event_id":"0192f0c1-0000-7000-8000-000000000001"}"#, 384);
    check_partition(r#"{"event":"a","user_id":""}"#, 7);
}

#[test]
fn the_longest_user_of_the_longest_tenant_has_a_partition() {
    let line = format!(r#"{{"event":"a","user_id":"{}"}}"#, "u".repeat(event::MAX_ID_BYTES));
    let parsed = event::parse::<()>(&line).unwrap();
    let to = Partitions { count: NonZeroU32::MIN, spare: 7, hot_keys: None };
    assert_eq!(
        partition(&mut UserHasher::of(&"t".repeat(line::MAX_TENANT_BYTES)), &parsed.event, to),
        (0, false)
    );
}

#[test]
fn a_bad_line_is_reported_and_its_neighbours_are_kept() {
    let (chunks, report) =
        run("{\"event\":\"a\"}\n\nx\n{\"event\":\"b\",\"sequence\":-1}\n{\"event\":\"c\",\"ip\":1}", 4, 2);
    assert_eq!((report.accepted, report.rejected, report.reserved_replaced), (2, 2, 1));
    assert_eq!(
        serde_json::to_string(&report.errors).unwrap(),
        r#"[{"line":3,"code":"bad_json"},{"line":4,"code":"bad_type","field":"sequence"}]"#
    );
    let [chunk] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!((chunk.partition, chunk.lines), (2, 2));
    let names: Vec<_> = lines_of(chunk)
        .map(|line| line::read::<()>(str::from_utf8(line).unwrap()).unwrap().event.event.into_owned())
        .collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn errors_beyond_max_errors_are_only_counted() {
    let (chunks, report) = run(&"x\n".repeat(50), 4, 0);
    assert!(chunks.is_empty());
    assert_eq!((report.errors.len(), report.rejected), (MAX_ERRORS, 50));
    assert_eq!(report.by_code[Code::BadJson as usize], 50);
}

#[test]
fn a_derived_event_id_is_written_and_selects_the_partition_like_a_clients_event_id() {
    let ids = ["\"event_id\":\"0192f0c1-0000-7000-8000-000000000001\"", "\"event_id\":null", "\"x\":1"];
    let body = ids.map(|id| format!("{{\"event\":\"a\",{id}}}")).join("\n");
    let lines = decode::lines(body.as_bytes(), 1000).unwrap();
    let to = Partitions { count: NonZeroU32::new(1000).unwrap(), spare: 7, hot_keys: None };
    let enriched =
        |key| enrich(&lines, AllowedEvents::Any, "default", Identity::Request(key), None, &prefix(), to).0;
    let chunks = enriched("r1");
    assert_eq!(chunks, enriched("r1"));
    assert_ne!(chunks, enriched("r2"));
    let mut found = Vec::new();
    for chunk in &chunks {
        for line in lines_of(chunk) {
            let read = line::read::<()>(str::from_utf8(line).unwrap()).unwrap();
            assert_eq!(partition(&mut UserHasher::of("default"), &read.event, to), (chunk.partition, false));
            found.push(read.event.event_id.unwrap());
        }
    }
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].to_string(), "0192f0c1-0000-7000-8000-000000000001");
    assert_ne!(found[1], found[2]);
}

proptest! {
    #[test]
    fn every_line_is_in_one_chunk_in_order_or_rejected(
        users in proptest::collection::vec("[a-f]?|!", 0..60), count in 1_u32..9,
    ) {
        let body: String = users.iter().zip(0..).map(|(user, number)| match user.as_str() {
            "!" => "{}\n".to_owned(),
            user => format!("{{\"event\":\"a\",\"user_id\":\"{user}\",\"sequence\":{number}}}\n"),
        }).collect();
        let (chunks, report) = run(&body, count, count - 1);
        prop_assert_eq!(report.received() as usize, users.len());
        prop_assert_eq!(report.by_code.iter().sum::<u32>(), report.rejected);
        let mut seen = 0;
        for chunk in &chunks {
            let lines: Vec<_> = lines_of(chunk)
                .map(|line| line::read::<()>(str::from_utf8(line).unwrap()).unwrap().event.sequence).collect();
            prop_assert_eq!(lines.len(), chunk.lines as usize);
            prop_assert!(lines.is_sorted());
            seen += lines.len();
        }
        prop_assert_eq!(seen, report.accepted as usize);
    }
}

/// Bodies that consist of random pieces: valid lines, pieces that make a line invalid, and bytes that are not text.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just(r#"{"event":"a"}"#),
        Just(r#"{"event":"a","user_id":"u","x":[1,{"y":"\u00e4"}]}"#),
        Just(r#"{"\u0069p":1,"event":"b","tenant":{}}"#),
        Just(r#"{"event":"a","event":"b"}"#),
        Just("{}"),
        Just("\n"),
        Just("\r\n"),
        Just("\u{feff}"),
        Just("\u{2028}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(" "),
        Just("1e999"),
        Just("\"\\ud800\""),
        Just("\0"),
    ];
    let piece = prop_oneof![
        12 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_line_of_any_bytes_is_rejected_or_can_be_read_back(body in soup(), most in 1_usize..20) {
        let Ok(lines) = decode::lines(&body, most) else { return Ok(()) };
        prop_assert!(lines.len() <= most && lines.is_sorted_by_key(|line| line.number));
        let to = Partitions { count: NonZeroU32::new(3).unwrap(), spare: 1, hot_keys: None };
        let (chunks, report) = enrich(&lines, AllowedEvents::Any, "default", Identity::None, None, &prefix(), to);
        prop_assert_eq!(report.received() as usize, lines.len());
        let stored: Vec<_> = chunks.iter().flat_map(lines_of).collect();
        prop_assert_eq!(stored.len(), report.accepted as usize);
        for line in stored {
            prop_assert!(line::read::<()>(str::from_utf8(line).unwrap()).is_ok());
        }
    }
}

#[test]
fn counters_accept_only_three_events_and_only_with_a_country() {
    let body = r#"{"event":"view","country":"ru"}
{"event":"play","country":"USA"}
{"event":"click","country":"DE","param_int":1}
{"event":"like","country":"DE"}
{"event":"view"}
{"event":"view","country":""}
{"event":"view","country":"D1"}"#;
    let (_, report) = run_for(AllowedEvents::Counters, body, 1, 0);
    let errors: Vec<_> = report.errors.iter().map(|error| (error.line, error.code)).collect();
    assert_eq!(report.accepted, 3);
    assert_eq!(errors, [(4, "unknown_event"), (5, "bad_country"), (6, "bad_country"), (7, "bad_country")]);
}

#[test]
fn the_country_of_the_address_is_used_for_lines_without_a_country() {
    let body = r#"{"event":"view"}
{"event":"view","country":null,"x":1}
{"event":"view","country":"fr"}
{"event":"view","country":"D1"}"#;
    let lines = decode::lines(body.as_bytes(), 1000).unwrap();
    let to = Partitions { count: NonZeroU32::MIN, spare: 0, hot_keys: None };
    let country = Country::parse("DE");
    let (chunks, report) =
        enrich(&lines, AllowedEvents::Counters, "default", Identity::None, country, &prefix(), to);
    let countries = lines_of(&chunks[0])
        .map(|line| line::read::<()>(str::from_utf8(line).unwrap()).unwrap().event.country);
    assert_eq!(countries.map(|country| country.as_str().to_owned()).collect::<Vec<_>>(), ["DE", "DE", "FR"]);
    let errors: Vec<_> = report.errors.iter().map(|error| (error.line, error.code)).collect();
    assert_eq!(errors, [(4, "bad_country")]);
}

#[test]
fn only_events_of_hot_users_are_spread_over_all_partitions() {
    let line = |user: &str, number: u32| match number % 3 {
        0 => format!(r#"{{"event":"a","user_id":"{user}"}}"#),
        _ => format!(
            r#"{{"event":"a","user_id":"{user}","event_id":"{}"}}"#,
            uuid::Uuid::from_u128(number.into())
        ),
    };
    let hot = (0..300).map(|number| line("u1", number));
    let body = hot.chain((0..10).map(|number| line("u2", number))).collect::<Vec<_>>().join("\n");
    let lines = decode::lines(body.as_bytes(), 1000).unwrap();
    let keys = HotKeys::new(const { NonZeroU32::new(60).unwrap() });
    let hot_keys = Some(keys.at(UnixMillis(1_763_697_600_123)));
    // With so many partitions, no `event_id` selects one of the three partitions that this test checks.
    let to = Partitions { count: NonZeroU32::MAX, spare: 7, hot_keys };
    let home = |user| {
        let line = line(user, 0);
        let event = event::parse::<()>(&line).unwrap().event;
        partition(&mut UserHasher::of("default"), &event, Partitions { hot_keys: None, ..to }).0
    };
    let run = || enrich(&lines, AllowedEvents::Any, "default", Identity::None, None, &prefix(), to);
    let (chunks, report) = run();
    let of = |chunks: &[Chunk], partition| {
        chunks.iter().filter(|chunk| chunk.partition == partition).map(|chunk| chunk.lines).sum::<u32>()
    };
    assert_eq!((report.accepted, report.spread), (310, 240));
    assert_eq!([home("u1"), home("u2"), 7].map(|partition| of(&chunks, partition)), [60, 10, 80]);
    assert!(chunks.len() > 100, "the events with an event_id went to only {} partitions", chunks.len());
    let (again, report) = run();
    assert_eq!([home("u1"), home("u2"), 7].map(|partition| of(&again, partition)), [0, 10, 100]);
    assert_eq!(report.spread, 300, "the user is still hot in the second request");
}
