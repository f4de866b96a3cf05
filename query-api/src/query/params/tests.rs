use std::fs;
use std::path::Path;

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn check_refused(given: &[(&str, &str)], param: &str) {
    let problem = Query::parse(&pairs(given)).unwrap_err();
    assert_eq!(problem.kind, Kind::BadParameter);
    assert_eq!(problem.errors.iter().map(|error| &*error.param).collect::<Vec<_>>(), [param], "{given:?}");
}

#[test]
fn without_parameters_a_query_has_the_defaults() {
    let query = Query::parse(&[]).unwrap();
    assert_eq!(
        serde_json::to_string(&query).unwrap(),
        r#"{"measures":["events"],"grain":"none","from":"-24h","to":"now","tz":"UTC","week":"mon","fill":"zero","limit":"1000","partial":"include","accuracy":"auto","csv":"plain","int64":"number"}"#
    );
    assert_eq!(query.order(), Order { field: "events".to_owned(), direction: Direction::Descending });
}

#[test]
fn an_unknown_or_repeated_parameter_is_named() {
    check_refused(&[("measure", "events")], "measure");
    check_refused(&[("tz", "UTC"), ("grain", "day"), ("tz", "UTC")], "tz");
    check_refused(&[("limit", "5"), ("limit", "x")], "limit");
}

#[test]
fn filters_may_be_repeated() {
    let query = Query::parse(&pairs(&[("filter", "event:eq:a"), ("filter", "country:ne:")])).unwrap();
    assert_eq!(query.filters.len(), 2);
    let many = [("filter", "event:eq:a"); MAX_FILTERS + 1];
    check_refused(&many, "filter");
}

#[test]
fn a_value_that_cannot_be_parsed_names_its_parameter() {
    for (name, value) in [
        ("measures", ""),
        ("measures", "events,,users"),
        ("measures", "events,events"),
        ("dimensions", "a,b,c,d,e,f,g"),
        ("grain", "second"),
        ("from", "-7"),
        ("to", "tomorrow"),
        ("tz", "Berlin"),
        ("week", "sat"),
        ("filter", "event"),
        ("top", "0"),
        ("top", "country:many"),
        ("fill", "previous"),
        ("order", "events"),
        ("limit", "100001"),
        ("compare", "month"),
        ("compare", "2026-11-01"),
        ("accuracy", "most"),
        ("limit", "0"),
        ("cursor", "7b"),
        ("partial", "drop"),
        ("format", "xml"),
        ("csv", "libre"),
        ("int64", "quoted"),
    ] {
        check_refused(&[(name, value)], name);
    }
}

#[test]
fn parameters_that_do_not_fit_together_are_named() {
    check_refused(&[("dimensions", "events")], "dimensions");
    check_refused(&[("dimensions", "time"), ("grain", "day")], "dimensions");
    check_refused(&[("dimensions", "others")], "dimensions");
    check_refused(&[("top", "5")], "top");
    let cursor = |keys| Cursor { figure: Some(1), start: 0, keys }.to_string();
    let (of_two, of_others) = (cursor(vec![Some("a".to_owned()); 2]), cursor(vec![None]));
    check_refused(&[("dimensions", "event"), ("cursor", &of_two)], "cursor");
    check_refused(&[("dimensions", "event"), ("cursor", &of_others)], "cursor");
    check_refused(&[("dimensions", "event"), ("top", "country:5")], "top");
    check_refused(&[("order", "time:asc")], "order");
    check_refused(&[("format", "json"), ("csv", "excel")], "csv");
    check_refused(&[("dimensions", "change"), ("compare", "week")], "dimensions");
    check_refused(&[("grain", "month"), ("compare", "week")], "compare");
}

#[test]
fn the_filters_of_the_key_are_added_and_not_repeated_in_the_answer() {
    let reader = Reader { filters: vec![Filter::parse("country:eq:DE").unwrap()], ..Reader::default() };
    let query = Query::parse(&pairs(&[("filter", "event:eq:a")])).unwrap();
    let (asked, text) = (query.filters.clone(), serde_json::to_string(&query).unwrap());
    let query = query.of_reader(&reader, &Rollups::built_in()).unwrap();
    assert_eq!(query.filters, [asked, reader.filters].concat());
    assert_eq!(serde_json::to_string(&query).unwrap(), text);
}

#[test]
fn a_measure_or_rollup_outside_the_key_is_refused_even_if_it_does_not_exist() {
    let reader = Reader { measures: Some(["events".to_owned()].into()), ..Reader::default() };
    let refused = |given: &[(&str, &str)]| {
        let query = Query::parse(&pairs(given)).unwrap();
        query.of_reader(&reader, &Rollups::built_in()).err().map(|problem| problem.errors[0].param.clone())
    };
    for measures in ["users", "no_such", "events,users"] {
        assert_eq!(refused(&[("measures", measures)]).as_deref(), Some("measures"));
    }
    for rollup in ["users_daily", "no_such", "event_daily,users_daily"] {
        assert_eq!(refused(&[("rollup", rollup)]).as_deref(), Some("rollup"));
    }
    assert_eq!(refused(&[("rollup", "event_daily")]), None);
}

#[test]
fn parameters_accept_exactly_the_values_in_their_schemas() {
    for Parameter { name, values, .. } in &PARAMETERS {
        let is_read = |text: &str| Query::parse(&pairs(&[(name, text)])).is_ok();
        match values {
            Values::OneOf(all) => {
                assert!(all.iter().all(|text| is_read(text)), "{name}");
                assert!(!is_read("no_such_value") && !is_read(""), "{name}");
            }
            Values::Number(least, most) => {
                assert!(is_read(&least.to_string()) && is_read(&most.to_string()), "{name}");
                assert!(!is_read(&(least - 1).to_string()) && !is_read(&(most + 1).to_string()), "{name}");
            }
            Values::Names(most) => {
                let names = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>().join(",");
                assert!(is_read(&names(*most)) && !is_read(&names(most + 1)), "{name}");
            }
            Values::Text(_) => {}
        }
    }
}

#[test]
fn a_body_has_the_same_parameters_as_a_url() {
    let body = br#"{"measures":["events","users"],"filter":["event:in:a|b","country:eq:DE"],"limit":5,"top":null,"grain":"day"}"#;
    let of_body = Query::parse(&of_json(&PARAMETERS, body).unwrap()).unwrap();
    let of_query = Query::parse(&pairs(&[
        ("measures", "events,users"),
        ("filter", "event:in:a|b"),
        ("filter", "country:eq:DE"),
        ("limit", "5"),
        ("grain", "day"),
    ]));
    assert_eq!(of_body.canonical(), of_query.unwrap().canonical());
    let repeated = serde_json::to_vec(&of_body).unwrap();
    assert_eq!(
        Query::parse(&of_json(&PARAMETERS, &repeated).unwrap()).unwrap().canonical(),
        of_body.canonical()
    );
}

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    for body in ["", "[]", "{", "{} {}", "7"] {
        assert_eq!(of_json(&PARAMETERS, body.as_bytes()).unwrap_err().kind, Kind::BadBody, "{body}");
    }
    for (body, param) in [
        (r#"{"limit":true}"#, "limit"),
        (r#"{"grain":["day"]}"#, "grain"),
        (r#"{"measures":["a,b"]}"#, "measures"),
        (r#"{"nothing":{}}"#, "nothing"),
    ] {
        assert_eq!(of_json(&PARAMETERS, body.as_bytes()).unwrap_err().errors[0].param, param, "{body}");
    }
    let twice = of_json(&PARAMETERS, br#"{"grain":"day","grain":"day"}"#).unwrap();
    assert_eq!(Query::parse(&twice).unwrap_err().errors[0].param, "grain");
}

#[test]
fn the_page_has_every_parameter_with_its_documentation() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/query.md");
    let page = fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let row = |Parameter { name, default, doc, .. }: &Parameter| {
        let default = default.map(|text| format!("`{text}`")).unwrap_or_default();
        format!("| `{name}` | {default} | {} |\n", doc.replace('|', "\\|"))
    };
    let table: String = PARAMETERS.iter().map(row).collect();
    let right = format!("{before}{BEGIN}{table}{END}{after}");
    if page != right {
        fs::write(&file, right).unwrap();
        panic!("the table in docs/query.md was stale; the test has rewritten it, review and commit it");
    }
}

/// The text before and after the rows of the table in docs/query.md.
const BEGIN: &str = "| parameter | default | |\n|---|---|---|\n";
const END: &str = "\nThe table above is generated";
