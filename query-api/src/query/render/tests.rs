use schemas::time::UnixMillis;

use super::*;

/// Dimensions and measures of a row.
type Given<'a> = (&'a [Option<&'a str>], &'a [Option<i128>]);

fn query(given: &[(&str, &str)]) -> Query {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Query::parse(&pairs).unwrap()
}

/// An answer of rows of dimensions and measures, all of the bucket of 2026-10-25 01:00 UTC.
fn shaped(rows: &[Given<'_>]) -> Shaped {
    let start = 1_792_890_000;
    let row = |(keys, figures): &Given<'_>| Row {
        start,
        keys: keys.iter().map(|key| key.map(str::to_owned)).collect(),
        figures: figures.to_vec(),
    };
    Shaped {
        rows: rows.iter().map(row).collect(),
        truncated: false,
        next: None,
        complete_until: Some(start),
        as_of: Some(UnixMillis((start + 60) * 1000)),
        declared: None,
        rollups: vec!["event_hourly".to_owned()],
        window: (start, start + 3600),
    }
}

fn text(query: &Query, shaped: &Shaped, format: Format) -> String {
    String::from_utf8(render(query, shaped, format, false).bytes).unwrap()
}

#[test]
fn an_answer_says_what_it_is_of() {
    let query = query(&[("grain", "hour"), ("dimensions", "event"), ("tz", "Europe/Berlin")]);
    let shaped = shaped(&[(&[Some("a")], &[Some(7)])]);
    assert_eq!(
        text(&query, &shaped, Format::Json),
        concat!(
            r#"{"data":[{"time":"2026-10-25T02:00:00+01:00","event":"a","events":7}],"#,
            r#""meta":{"as_of":"2026-10-25T01:01:00.000Z","stale":false,"complete_until":"2026-10-25T02:00:00+01:00","#,
            r#""exact":true,"rollups":["event_hourly"],"#,
            r#""window":{"from":"2026-10-25T02:00:00+01:00","to":"2026-10-25T03:00:00+01:00","tz":"Europe/Berlin"},"#,
            r#""rows":1,"truncated":false,"unsafe_integers":false},"#,
            r#""query":{"measures":["events"],"dimensions":["event"],"grain":"hour","from":"-24h","to":"now","#,
            r#""tz":"Europe/Berlin","week":"mon","fill":"zero","limit":"1000","partial":"include","csv":"plain","#,
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
fn a_formula_is_text_in_a_spreadsheet_and_as_it_is_for_programs() {
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
fn what_top_merges_is_marked() {
    let query = query(&[("dimensions", "event"), ("top", "1")]);
    let shaped = shaped(&[(&[Some("a")], &[Some(7)]), (&[None], &[Some(9)])]);
    let expected = "{\"event\":\"a\",\"events\":7}\n{\"event\":null,\"others\":true,\"events\":9}\n";
    assert_eq!(text(&query, &shaped, Format::Ndjson), expected);
    assert_eq!(text(&query, &shaped, Format::Csv), "event,others,events\r\na,false,7\r\n,true,9\r\n");
}

#[test]
fn no_row_is_an_answer_that_says_why() {
    let json = |given: &[(&str, &str)]| text(&query(given), &shaped(&[]), Format::Json);
    assert!(
        json(&[("dimensions", "event")])
            .contains(r#""rows":0,"truncated":false,"unsafe_integers":false,"empty":"no_rows""#)
    );
    assert!(json(&[("filter", "event:eq:a")]).contains(r#""empty":"filtered""#));
}

#[test]
fn equal_answers_have_equal_etags_in_every_tick() {
    let (query, one) = (query(&[]), shaped(&[(&[], &[Some(7)])]));
    let later = Shaped { as_of: Some(UnixMillis(1_792_890_099_000)), ..one.clone() };
    let tag = |shaped: &Shaped, stale| render(&query, shaped, Format::Json, stale).etag;
    assert_eq!(tag(&one, false), tag(&later, false));
    assert_ne!(tag(&one, false), tag(&one, true));
    assert_ne!(tag(&one, false), tag(&shaped(&[(&[], &[Some(8)])]), false));
    assert_ne!(tag(&one, false), tag(&Shaped { complete_until: None, ..one.clone() }, false));
}
