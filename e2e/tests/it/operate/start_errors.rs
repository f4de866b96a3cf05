//! A start with wrong settings prints one helpful line and exits with an error.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use devstack::{DataDirectory, ports};
use rcgen::generate_simple_self_signed;
use serde_json::Value;

/// Runs a program with only these variables.
fn output(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(super::program(program));
    command.args(arguments).env_clear().envs(variables.iter().copied()).output().unwrap()
}

/// The exit code of a program and its standard error.
fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = output(program, arguments, variables);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The standard output of a program that succeeds, and its standard error.
#[track_caller]
fn printed(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (String, String) {
    let output = output(program, arguments, variables);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{program} {arguments:?}: {err}");
    (out, err)
}

/// The exit code EX_USAGE, which means that another start with the same configuration fails in the same way.
const WRONG_CONFIGURATION: Option<i32> = Some(64);

const UNREACHABLE_SERVERS: [(&str, &str); 2] =
    [("KAFKA_BROKERS", "127.0.0.1:1"), ("CLICKHOUSE_URL", "http://127.0.0.1:1")];

#[test]
fn a_port_in_use_is_reported_with_the_variable_that_sets_it() {
    for (service, variable) in
        [("ingest", "LISTEN_ADDR"), ("query-api", "LISTEN_ADDR"), ("stream-agg", "ADMIN_ADDR")]
    {
        let port = ports::free().unwrap();
        let holder = TcpListener::bind(ports::local(port)).unwrap();
        let taken = holder.local_addr().unwrap().to_string();
        let (code, said) =
            run(service, &[], &[UNREACHABLE_SERVERS.as_slice(), &[(variable, taken.as_str())]].concat());
        // The exit code is not EX_USAGE, because the port may be free at the next start.
        assert_eq!(code, Some(1), "{service}: {said}");
        let line = said.lines().last().unwrap_or_default();
        assert_eq!(
            line,
            format!(
                "error: listen on {taken}: the port is in use; free it or set {variable} to another address"
            )
        );
    }
}

#[test]
fn a_missing_or_malformed_variable_is_reported_in_one_line() {
    for service in ["ingest", "stream-agg", "query-api"] {
        let (code, said) = run(service, &[], &[]);
        assert_eq!((code, said.lines().count()), (WRONG_CONFIGURATION, 1), "{service}: {said}");
        assert!(said.starts_with("error: variable ") && said.contains(" is not set: "), "{said}");
        let (code, said) =
            run(service, &[], &[UNREACHABLE_SERVERS.as_slice(), &[("ADMIN_ADDR", "nowhere")]].concat());
        assert_eq!((code, said.lines().count()), (WRONG_CONFIGURATION, 1), "{service}: {said}");
        assert!(said.starts_with("error: variable ADMIN_ADDR=`nowhere` is not usable: "), "{said}");
    }
}

#[test]
fn an_invalid_key_file_is_reported_in_one_line_with_file_and_line_number() {
    let directory = DataDirectory::for_test("start_errors_keys").unwrap();
    let file = directory.path().join("keys.toml");
    fs::write(&file, "# Ours.\n[[key]]\nid = \"web\"\ntenant = \"acme\"\nsha256 = \"mr_secret\"\n").unwrap();
    let path = file.to_str().unwrap();
    for (service, auth, keys) in
        [("ingest", "AUTH", "KEYS_FILE"), ("query-api", "READ_AUTH", "READ_KEYS_FILE")]
    {
        let (code, said) =
            run(service, &[], &[UNREACHABLE_SERVERS.as_slice(), &[(auth, "required")]].concat());
        assert_eq!((code, said.lines().count()), (WRONG_CONFIGURATION, 1), "{said}");
        assert!(said.contains(&format!("it needs {keys}")), "{said}");
        let (code, said) = run(
            service,
            &[],
            &[UNREACHABLE_SERVERS.as_slice(), &[(auth, "required"), (keys, path)]].concat(),
        );
        let expected = format!(
            "error: variable {keys}=`{path}` is not usable: line 2: key `web`: its sha256 must be 64 hexadecimal digits\n"
        );
        assert_eq!((code, said), (WRONG_CONFIGURATION, expected));
    }
}

#[test]
fn an_invalid_rollups_file_is_reported_in_one_line_with_file_and_line_number() {
    let directory = DataDirectory::for_test("start_errors_rollups").unwrap();
    let file = directory.path().join("rollups.toml");
    fs::write(
        &file,
        "# Ours.\n[[rollup]]\nname = \"plans\"\ngrain = \"week\"\ndimensions = [\"props.plan\"]\n\
         measures = { events = \"count\" }\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for (service, arguments) in
        [("stream-agg", [].as_slice()), ("stream-agg", &["migrate"]), ("query-api", &[])]
    {
        let (code, said) =
            run(service, arguments, &[UNREACHABLE_SERVERS.as_slice(), &[("ROLLUPS_FILE", file)]].concat());
        assert_eq!(
            (code, said),
            (
                WRONG_CONFIGURATION,
                format!(
                    "error: variable ROLLUPS_FILE=`{file}` is not usable: read rollups: {file}:4: `week` is not a \
                     grain; there are minute, 15m, hour, day, none\n"
                )
            ),
            "{service} {arguments:?}"
        );
    }
}

#[test]
fn an_unusable_certificate_or_key_is_reported_in_one_line_with_its_file() {
    let directory = DataDirectory::for_test("start_errors_tls").unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [made, other] = [(); 2].map(|()| generate_simple_self_signed(["localhost".to_owned()]).unwrap());
    let certificate = write("tls.crt", &made.cert.pem());
    let key = write("tls.key", &made.signing_key.serialize_pem());
    let others_key = write("other.key", &other.signing_key.serialize_pem());
    let empty = write("empty", "");
    let check = |variables: &[(&str, &str)], expected: &str| {
        let (code, said) = run("ingest", &[], &[UNREACHABLE_SERVERS.as_slice(), variables].concat());
        assert_eq!(
            (code, said),
            (WRONG_CONFIGURATION, format!("error: variable {expected}\n")),
            "{variables:?}"
        );
    };
    let pair = |certificate: &str, key: &str, expected: &str| {
        check(&[("TLS_CERT", certificate), ("TLS_KEY", key)], expected);
    };
    let unusable = |name: &str, file: &str, reason: &str| format!("{name}=`{file}` is not usable: {reason}");
    pair(
        &certificate,
        &others_key,
        &unusable("TLS_KEY", &others_key, "it does not belong to the certificate"),
    );
    pair(&empty, &key, &unusable("TLS_CERT", &empty, "there is no certificate in it"));
    pair(
        &certificate,
        &certificate,
        &unusable(
            "TLS_KEY",
            &certificate,
            "it has no unencrypted private key; encrypted keys are not supported",
        ),
    );
    pair(
        &certificate,
        "/nowhere",
        &unusable("TLS_KEY", "/nowhere", "No such file or directory (os error 2)"),
    );
    check(
        &[("TLS_CERT", &certificate)],
        "TLS_KEY is not set: TLS_CERT also needs a PEM file with the private key",
    );
    check(&[("TLS_KEY", &key)], "TLS_CERT is not set: TLS_KEY also needs a PEM file with the certificate");
}

#[test]
fn limits_that_the_tables_cannot_support_are_reported_in_one_line_with_the_range() {
    for (name, value, reason) in [
        (
            "EVENT_TIME_FROM",
            "1969-12-31T23:59:59Z",
            "rollups can hold times from 1970-01-01 00:00:00.000 to before 2059-01-01 00:00:00.000; \
             write a time in this range",
        ),
        (
            "EVENT_TIME_AHEAD",
            "2years",
            "too long: an event's retention must end before ClickHouse's DateTime does, in 2106; write 0s to 1year",
        ),
        (
            "DEDUP_WINDOW_AGE",
            "15days",
            "the window is restored from the ledger, which keeps a record for 30 days; write at most 14days",
        ),
    ] {
        let (code, said) =
            run("stream-agg", &[], &[UNREACHABLE_SERVERS.as_slice(), &[(name, value)]].concat());
        let expected = format!("error: variable {name}=`{value}` is not usable: {reason}\n");
        assert_eq!((code, said), (WRONG_CONFIGURATION, expected));
    }
}

#[test]
fn a_kafka_client_setting_that_would_break_a_guarantee_is_refused_with_the_reason() {
    for (service, arguments, name, value, reason) in [
        (
            "ingest",
            [].as_slice(),
            "KAFKA_OPT_request.required.acks",
            "1",
            "a request is answered once all in-sync replicas have its events",
        ),
        ("ingest", &[], "KAFKA_OPT_delivery.timeout.ms", "0", "set DURABLE_WAIT instead"),
        (
            "stream-agg",
            &[],
            "KAFKA_OPT_topic.auto.offset.reset",
            "latest",
            "a partition whose offset is not in the log must stop, or records would be left out or read again",
        ),
        ("stream-agg", &["adopt", "0"], "KAFKA_OPT_group.id", "another", "GROUP names the consumer group"),
    ] {
        let (code, said) =
            run(service, arguments, &[UNREACHABLE_SERVERS.as_slice(), &[(name, value)]].concat());
        assert_eq!(
            (code, said),
            (WRONG_CONFIGURATION, format!("error: variable {name} cannot be set: {reason}\n"))
        );
    }
}

#[test]
fn a_setting_unknown_to_the_kafka_client_is_reported_in_one_line() {
    for (service, arguments) in [
        ("ingest", [].as_slice()),
        ("stream-agg", &[]),
        ("stream-agg", &["migrate"]),
        ("ingest", &["--check-config"]),
    ] {
        let given = [UNREACHABLE_SERVERS.as_slice(), &[("KAFKA_OPT_linger", "5")]].concat();
        let (code, said) = run(service, arguments, &given);
        let expected =
            "error: variable KAFKA_OPT_linger is not usable: No such configuration property: \"linger\"\n";
        assert_eq!((code, said.as_str()), (WRONG_CONFIGURATION, expected), "{service} {arguments:?}");
    }
}

#[test]
fn a_typo_in_a_flag_is_answered_with_the_flag_that_was_meant() {
    for (program, arguments, meant) in [
        ("ingest", ["--chek-config"].as_slice(), "--check-config"),
        ("stream-agg", &["--chek-config"], "--check-config"),
        ("query-api", &["--chek-config"], "--check-config"),
        ("devstack", &["up", "--freshh"], "--fresh"),
    ] {
        let (code, said) = run(program, arguments, &[]);
        assert_eq!(code, WRONG_CONFIGURATION, "{program}: {said}");
        assert!(said.contains(meant), "{program}: {said}");
    }
}

#[test]
fn check_config_prints_settings_and_memory_without_listening_or_connecting() {
    for (service, arguments) in [
        ("ingest", [].as_slice()),
        ("ingest", &["spool", "replay"]),
        ("stream-agg", &[]),
        ("stream-agg", &["migrate"]),
        ("query-api", &[]),
    ] {
        // A port that is in use, and addresses where nothing answers, must not make the check fail.
        let holder = TcpListener::bind(ports::local(ports::free().unwrap())).unwrap();
        let taken = holder.local_addr().unwrap().to_string();
        let given =
            [UNREACHABLE_SERVERS.as_slice(), &[("ADMIN_ADDR", taken.as_str()), ("LISTEN_ADDR", &taken)]]
                .concat();
        let check = [&["--check-config"], arguments].concat();
        let (table, said) = printed(service, &check, &given);
        assert_eq!(said, "", "{service}");
        assert!(table.contains(&taken), "{table}");
        // All values begin in the same column.
        let columns: BTreeSet<_> = table.lines().filter_map(|line| Some(line.rfind("  ")? + 2)).collect();
        assert_eq!(columns.len(), 1, "{table}");
        let (json, _) = printed(service, &[&["--check-config", "--json"], arguments].concat(), &given);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert!(json["memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 64 << 20), "{json}");
        assert_eq!(json["variables"]["ADMIN_ADDR"], taken, "{service} {arguments:?}");
        assert!(!json["connects"].as_array().unwrap().is_empty(), "{json}");
    }
}

#[test]
fn check_config_reports_a_wrong_configuration_in_one_line() {
    for service in ["ingest", "stream-agg", "query-api"] {
        for (name, value) in [("ADMIN_ADDR", "nowhere"), ("LOG_FORMAT", "xml")] {
            let given = [UNREACHABLE_SERVERS.as_slice(), &[(name, value)]].concat();
            let (code, said) = run(service, &["--check-config", "--json"], &given);
            assert_eq!((code, said.lines().count()), (WRONG_CONFIGURATION, 1), "{service}: {said}");
            assert!(said.starts_with(&format!("error: variable {name}=`{value}` is not usable: ")), "{said}");
        }
    }
    for (service, name, value, remedy) in [
        ("stream-agg", "CLICKHOUSE_URL", "clickhouse:8123", "write `http://host:port`"),
        ("query-api", "CLICKHOUSE_URL", "https://clickhouse", "write `http://host:port`"),
        ("ingest", "KAFKA_BROKERS", "kafka:9o92", "write `host:port`, separated by commas"),
    ] {
        let given: Vec<_> = UNREACHABLE_SERVERS
            .into_iter()
            .filter(|(other, _)| *other != name)
            .chain([(name, value)])
            .collect();
        let expected = format!("error: variable {name}=`{value}` is not usable: {remedy}\n");
        assert_eq!(run(service, &[], &given), (WRONG_CONFIGURATION, expected));
    }
}
