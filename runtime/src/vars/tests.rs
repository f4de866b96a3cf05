use super::*;

#[test]
fn an_absent_or_empty_variable_has_the_default() {
    let vars = Vars::from_pairs([("TOPIC", "")]);
    assert_eq!(vars.string_or("TOPIC", "events"), "events");
    assert_eq!(vars.duration_or("DRAIN_DELAY", Duration::from_secs(5)), Ok(Duration::from_secs(5)));
}

#[test]
fn durations_and_sizes_take_units() {
    let vars = Vars::from_pairs([("AGE", "250ms"), ("BODY", "8MiB"), ("PLAIN", "65536")]);
    assert_eq!(vars.duration_or("AGE", Duration::ZERO), Ok(Duration::from_millis(250)));
    assert_eq!(vars.bytes_or("BODY", 0), Ok(8 << 20));
    assert_eq!(vars.bytes_or("PLAIN", 0), Ok(65536));
}

#[test]
fn a_resolved_size_is_shown_in_the_largest_unit_that_divides_it() {
    for (given, shown) in
        [("10GiB", "10GiB"), ("98304KiB", "96MiB"), ("16384", "16KiB"), ("1000", "1000"), ("0", "0")]
    {
        let vars = Vars::from_pairs([("SIZE", given)]);
        vars.bytes_or("SIZE", 1).unwrap();
        assert_eq!(vars.resolved(), [("SIZE".to_owned(), shown.to_owned())]);
    }
}

#[test]
fn a_bad_value_names_the_variable_and_the_value() {
    let vars = Vars::from_pairs([("AGE", "soon"), ("ROWS", "many")]);
    let age = vars.duration_or("AGE", Duration::ZERO).unwrap_err().to_string();
    assert!(age.starts_with("variable AGE=`soon` is not usable: "), "{age}");
    let rows = vars.parsed_or("ROWS", 1_u64).unwrap_err().to_string();
    assert!(rows.starts_with("variable ROWS=`many` is not usable: "), "{rows}");
}

#[test]
fn a_duration_above_its_limit_is_refused_with_the_limit_and_the_reason() {
    let vars = Vars::from_pairs([("AGE", "10m"), ("LONG", "601s")]);
    let read =
        |name| vars.duration_up_to(name, Duration::ZERO, Duration::from_secs(600), "nobody waits longer");
    assert_eq!(read("AGE"), Ok(Duration::from_secs(600)));
    assert_eq!(
        read("LONG").unwrap_err().to_string(),
        "variable LONG=`10m 1s` is not usable: nobody waits longer; write at most 10m"
    );
}

#[test]
fn a_required_variable_says_what_it_is_for() {
    let error =
        Vars::from_pairs([("X", "1")]).required("KAFKA_BROKERS", "host:port of a broker").unwrap_err();
    assert_eq!(error.to_string(), "variable KAFKA_BROKERS is not set: host:port of a broker");
}

#[test]
fn variables_that_were_read_are_listed_and_secrets_are_hidden() {
    let vars = Vars::from_pairs([
        ("CLICKHOUSE_PASSWORD", "hunter2"),
        ("KAFKA_OPT_sasl.password", "x"),
        ("UNREAD", "x"),
    ]);
    vars.string_or("TOPIC", "events");
    vars.string_or("CLICKHOUSE_PASSWORD", "");
    assert_eq!(
        vars.with_prefix("KAFKA_OPT_").into_iter().collect::<Vec<_>>(),
        [("sasl.password".into(), "x".into())]
    );
    let listed: Vec<_> = vars.resolved().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(listed, ["CLICKHOUSE_PASSWORD=(set)", "KAFKA_OPT_sasl.password=(set)", "TOPIC=events"]);
}

#[test]
fn a_setting_that_a_service_fixes_is_refused_however_it_is_spelled() {
    let fixed = [
        Fixed { names: &["acks", "required.acks"], reason: "all brokers must have it" },
        Fixed { names: &["group.id"], reason: "GROUP names it" },
    ];
    let check = |name: &str, reason: Option<&str>| {
        let variable = format!("OPT_{name}");
        let passed = Vars::from_pairs([(variable.as_str(), "all")]).passed_through("OPT_", &fixed);
        let expected = match reason {
            None => Ok([(name.to_owned(), "all".to_owned())].into()),
            Some(reason) => Err(format!("variable OPT_{name} cannot be set: {reason}")),
        };
        assert_eq!(passed.map_err(|error| error.to_string()), expected, "{name}");
    };
    for name in ["acks", "required.acks", "topic.acks", "ACKS", "REQUIRED_ACKS", "Topic.Required.Acks"] {
        check(name, Some("all brokers must have it"));
    }
    check("group.id", Some("GROUP names it"));
    for name in ["backacks", "acks.more", "group.id.more", "group", "id"] {
        check(name, None);
    }
}
