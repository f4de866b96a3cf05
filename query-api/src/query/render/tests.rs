use schemas::time::UnixMillis;

use super::super::shape::ComparedWindow;
use super::*;

/// Dimensions and measures of a row.
type Given<'a> = (&'a [Option<&'a str>], &'a [Option<i128>]);

fn query(given: &[(&str, &str)]) -> Query {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Query::parse(&pairs).unwrap()
}

/// An answer with these rows, all in the bucket that begins at 2026-10-25 01:00 UTC.
fn shaped(rows: &[Given<'_>]) -> Shaped {
    let start = 1_792_890_000;
    let row = |(keys, figures): &Given<'_>| Row {
        start,
        keys: keys.iter().map(|key| key.map(str::to_owned)).collect(),
        figures: figures.to_vec(),
        compared: Vec::new(),
    };
    Shaped {
        rows: rows.iter().map(row).collect(),
        total: rows.len(),
        truncated: false,
        next: None,
        complete_until: Some(start),
        as_of: Some(UnixMillis((start + 60) * 1000)),
        rollups: vec!["event_hourly".to_owned()],
        window: (start, start + 3600),
        is_before_since: false,
        compared: None,
        sampled: Vec::new(),
    }
}

fn text(query: &Query, shaped: &Shaped, format: Format) -> String {
    String::from_utf8(render(query, shaped, format, false).bytes).unwrap()
}

#[test]
fn an_answer_describes_its_window_its_rollups_and_its_query() {
    let query = query(&[("grain", "hour"), ("dimensions", "event"), ("tz", "Europe/Berlin")]);
    let shaped = shaped(&[(&[Some("a")], &[Some(7)])]);
    assert_eq!(
        text(&query, &shaped, Format::Json),
        concat!(
            r#"{"data":[{"time":"2026-10-25T02:00:00+01:00","event":"a","events":7}],"#,
            r#""meta":{"as_of":"2026-10-25T01:01:00.000Z","stale":false,"complete_until":"2026-10-25T02:00:00+01:00","#,
            r#""exact":true,"rollups":["event_hourly"],"#,
            r#""window":{"from":"2026-10-25T02:00:00+01:00","to":"2026-10-25T03:00:00+01:00","tz":"Europe/Berlin"},"#,
            r#""rows":1,"total_rows":1,"truncated":false,"unsafe_integers":false},"#,
            r#""query":{"measures":["events"],"dimensions":["event"],"grain":"hour","from":"-24h","to":"now","#,
            r#""tz":"Europe/Berlin","week":"mon","fill":"zero","limit":"1000","partial":"include","accuracy":"auto","csv":"plain","#,
            r#""int64":"number"}}"#,
        )
    );
}

#[test]
fn numbers_have_all_of_their_digits() {
    let beyond = (1_i128 << 53) + 1;
    let rows: [Given<'_>; 1] = [(&[], &[Some(beyond), Some(i128::MIN), None])];
    let names = ("measures", "events,value,least");
    let number = text(&query(&[names]), &shaped(&rows), Format::Json);
    let digits =
        r#"{"events":9007199254740993,"value":-170141183460469231731687303715884105728,"least":null}"#;
    assert!(number.contains(digits), "{number}");
    assert!(number.contains(r#""unsafe_integers":true"#), "{number}");
    let quoted = text(&query(&[names, ("int64", "string")]), &shaped(&rows), Format::Ndjson);
    assert_eq!(
        quoted,
        "{\"events\":\"9007199254740993\",\"value\":\"-170141183460469231731687303715884105728\",\"least\":null}\n"
    );
    let csv = text(&query(&[names]), &shaped(&rows), Format::Csv);
    assert_eq!(csv, "events,value,least\r\n9007199254740993,-170141183460469231731687303715884105728,\r\n");
}

#[test]
fn a_formula_is_escaped_for_spreadsheets_and_unchanged_for_programs() {
    let texts = ["=1+1", " @x", "+1", "-1", "1=1", "a,\"b\""];
    let keys = texts.map(|text| [Some(text)]);
    let rows: Vec<Given<'_>> = keys.iter().map(|keys| (keys.as_slice(), [Some(-1)].as_slice())).collect();
    let plain = text(&query(&[("dimensions", "event")]), &shaped(&rows), Format::Csv);
    assert_eq!(
        plain,
        "event,events\r\n=1+1,-1\r\n @x,-1\r\n+1,-1\r\n-1,-1\r\n1=1,-1\r\n\"a,\"\"b\"\"\",-1\r\n"
    );
    let excel =
        query(&[("dimensions", "event"), ("csv", "excel"), ("grain", "hour"), ("tz", "Europe/Berlin")]);
    let excel = text(&excel, &shaped(&rows), Format::Csv);
    let time = "2026-10-25 02:00:00";
    assert_eq!(
        excel,
        format!(
            "\u{feff}time,event,events\r\n{time},'=1+1,-1\r\n{time},' @x,-1\r\n{time},'+1,-1\r\n{time},'-1,-1\r\n\
             {time},1=1,-1\r\n{time},\"a,\"\"b\"\"\",-1\r\n"
        )
    );
}

#[test]
fn the_row_of_the_values_that_top_merges_is_marked() {
    let query = query(&[("dimensions", "event"), ("top", "1")]);
    let shaped = shaped(&[(&[Some("a")], &[Some(7)]), (&[None], &[Some(9)])]);
    let expected = "{\"event\":\"a\",\"events\":7}\n{\"event\":null,\"others\":true,\"events\":9}\n";
    assert_eq!(text(&query, &shaped, Format::Ndjson), expected);
    assert_eq!(text(&query, &shaped, Format::Csv), "event,others,events\r\na,false,7\r\n,true,9\r\n");
}

#[test]
fn an_answer_without_rows_says_why() {
    let json = |given: &[(&str, &str)]| text(&query(given), &shaped(&[]), Format::Json);
    assert!(
        json(&[("dimensions", "event")]).contains(
            r#""rows":0,"total_rows":0,"truncated":false,"unsafe_integers":false,"empty":"no_rows""#
        )
    );
    assert!(json(&[("filter", "event:eq:a")]).contains(r#""empty":"filtered""#));
    let before = Shaped { is_before_since: true, ..shaped(&[]) };
    assert!(text(&query(&[]), &before, Format::Json).contains(r#""empty":"before_since""#));
}

#[test]
fn equal_answers_have_equal_etags_in_every_refresh() {
    let (query, one) = (query(&[]), shaped(&[(&[], &[Some(7)])]));
    let later = Shaped { as_of: Some(UnixMillis(1_792_890_099_000)), ..one.clone() };
    let tag = |shaped: &Shaped, stale| render(&query, shaped, Format::Json, stale).etag;
    assert_eq!(tag(&one, false), tag(&later, false));
    assert_ne!(tag(&one, false), tag(&one, true));
    assert_ne!(tag(&one, false), tag(&shaped(&[(&[], &[Some(8)])]), false));
    assert_ne!(tag(&one, false), tag(&Shaped { complete_until: None, ..one.clone() }, false));
}

#[test]
fn a_row_has_the_comparison_and_the_change_of_its_measures() {
    let query =
        query(&[("grain", "hour"), ("from", "-1h"), ("compare", "previous"), ("measures", "events,users")]);
    let comparison = |then, now| Comparison { then, now };
    let mut shaped = shaped(&[(&[], &[Some(20), Some(3)])]);
    shaped.rows[0].compared = vec![comparison(Some(16), Some(20)), comparison(Some(0), Some(3))];
    let start = shaped.window.0;
    shaped.compared =
        Some(ComparedWindow { window: (start - 3600, start), cut: Some((start + 600, start - 3000)) });
    let line = concat!(
        r#"{"time":"2026-10-25T01:00:00+00:00","events":20,"users":3,"compare":{"events":16,"users":0},"#,
        r#""change":{"events":0.25,"users":null}}"#,
    );
    assert_eq!(text(&query, &shaped, Format::Ndjson), format!("{line}\n"));
    assert_eq!(
        text(&query, &shaped, Format::Csv),
        "time,events,users,compare_events,compare_users,change_events,change_users\r\n\
         2026-10-25T01:00:00+00:00,20,3,16,0,0.25,\r\n"
    );
    let compare = concat!(
        r#""compare":{"from":"2026-10-25T00:00:00+00:00","to":"2026-10-25T01:00:00+00:00","#,
        r#""cut":{"now":"2026-10-25T01:10:00+00:00","then":"2026-10-25T00:10:00+00:00"}}"#,
    );
    let json = text(&query, &shaped, Format::Json);
    assert!(json.contains(compare), "{json}");
}

#[test]
fn a_count_of_a_sample_has_its_error() {
    let query = query(&[("measures", "users"), ("dimensions", "event"), ("accuracy", "fast")]);
    let of = |figures: &[i128]| {
        let figures = figures.iter().map(|figure| [Some(*figure)]).collect::<Vec<_>>();
        let rows: Vec<Given<'_>> =
            figures.iter().map(|figure| ([Some("a")].as_slice(), figure.as_slice())).collect();
        text(&query, &Shaped { sampled: vec![0], ..shaped(&rows) }, Format::Json)
    };
    // The bound is 2·√(15/n), rounded up, where n is the lowest count.
    assert!(
        of(&[2_400_000, 9_600_000]).contains(r#""exact":false,"error":{"users":0.005},"#),
        "{}",
        of(&[2_400_000, 9_600_000])
    );
    assert!(of(&[0]).contains(r#""exact":false,"error":{"users":null},"#));
}
