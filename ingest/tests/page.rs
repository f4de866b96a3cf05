//! `docs/events.md` agrees with the code: it contains every field, limit and code.

use ingest::content::{Encoding, MEDIA_TYPES};
use ingest::outcome::{Bound, Refusal};
use ingest::{Config, warnings};
use runtime::vars::Vars;
use schemas::event::{
    Code, FIELD_NAMES, MAX_DEPTH, MAX_EVENT_BYTES, MAX_ID_BYTES, MAX_LINE_BYTES, MAX_PARAM_STR_BYTES,
};
use schemas::time::UnixMillis;

const PAGE: &str = include_str!("../../docs/events.md");

#[track_caller]
fn says(text: impl AsRef<str>) {
    assert!(PAGE.contains(text.as_ref()), "docs/events.md does not say {}", text.as_ref());
}

/// One refusal of each kind.
fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::EmptyBody,
        Refusal::AllLinesInvalid,
        Refusal::BadEncoding,
        Refusal::UndeclaredEncoding(Encoding::Gzip),
        Refusal::BadTime(UnixMillis(0), UnixMillis(0)),
        Refusal::BadQuery("".into()),
        Refusal::BadIdempotencyKey(1),
        Refusal::Aborted,
        Refusal::NoKey,
        Refusal::UnknownKey,
        Refusal::KeyDisabled,
        Refusal::OriginDenied,
        Refusal::IpDenied,
        Refusal::RateLimited(1),
        Refusal::NotFound,
        Refusal::MethodNotAllowed,
        Refusal::BodyTimeout,
        Refusal::BodyTooLarge(1),
        Refusal::DecodedTooLarge(1),
        Refusal::TooManyEvents(1),
        Refusal::ContentType,
        Refusal::ContentEncoding,
        Refusal::Internal,
        Refusal::Overloaded(Bound::Requests),
        Refusal::NotDurable,
        Refusal::NoPartitions,
        Refusal::SpoolFull,
        Refusal::Draining,
    ]
}

#[test]
fn every_code_is_in_one_row_with_its_status() {
    for code in Code::ALL {
        says(format!("\n| `{}` |", code.as_str()));
    }
    for refusal in refusals() {
        let (status, code) = (refusal.status().as_u16().to_string(), format!("`{}`", refusal.code()));
        let row = |line: &&str| line.starts_with("| ") && line.contains(&code);
        let rows: Vec<_> = PAGE
            .lines()
            .filter(row)
            .filter(|line| line.split('|').nth(1).unwrap().contains(&status))
            .collect();
        assert_eq!(rows.len(), 1, "rows of docs/events.md with {status} and {code}");
    }
    for text in refusals()
        .iter()
        .flat_map(|refusal| [refusal.title().to_owned(), refusal.detail().into(), refusal.hint().into()])
    {
        assert!(!text.ends_with('.'), "a text of a refusal must not end with a full stop: {text}");
    }
}

/// Clients retry after the answers whose hint says "send the request again". The advice in docs/events.md, the list in
/// docs/clients.md and the two client libraries must name the same answers.
#[test]
fn the_page_the_hints_and_the_client_libraries_agree_on_which_answers_to_retry() {
    const CLIENTS: &str = include_str!("../../docs/clients.md");
    let libraries =
        [include_str!("../../docs/clients/millrace.js"), include_str!("../../docs/clients/millrace.py")];
    let of_page = CLIENTS.lines().find(|line| line.contains("`408`")).unwrap();
    for refusal in refusals() {
        let (status, code) = (refusal.status().as_u16().to_string(), refusal.code());
        let is_retried = refusal.hint().contains("send the request again");
        let row = |line: &&str| {
            line.contains(&format!("`{code}`"))
                && line.split('|').nth(1).unwrap_or_default().contains(&status)
        };
        let advice = PAGE.lines().find(row).unwrap().rsplit('|').nth(1).unwrap();
        assert_eq!(
            advice.trim().starts_with("retry"),
            is_retried,
            "advice of docs/events.md on `{code}`: {advice}"
        );
        // A client recognizes answers to retry by their status. Only `aborted` shares its status, 400, with answers
        // that are not retried, so a client recognizes `aborted` by its code.
        let name = if code == "aborted" { code } else { &status };
        assert_eq!(
            of_page.contains(&format!("`{name}`")),
            is_retried,
            "`{name}` in docs/clients.md: {of_page}"
        );
        for library in libraries {
            let list = library.lines().find(|line| line.contains("RETRIED =")).unwrap();
            let is_named =
                if code == "aborted" { library.contains("\"aborted\"") } else { list.contains(name) };
            assert_eq!(is_named, is_retried, "{name} in a client library: {list}");
        }
    }
}

#[test]
fn every_field_limit_and_media_type_is_named() {
    let of_the_edge = ["ip", "server_time", "tenant"];
    let encodings = Encoding::ALL.map(Encoding::as_str).into_iter();
    let names = FIELD_NAMES.into_iter().chain(of_the_edge).chain(warnings::FIELDS);
    for name in names.chain(MEDIA_TYPES).chain(encodings) {
        says(format!("`{name}`"));
    }
    says(format!("text of 1 to {MAX_EVENT_BYTES} bytes"));
    says(format!("text of at most {MAX_ID_BYTES} bytes"));
    says(format!("text of at most {MAX_PARAM_STR_BYTES} bytes"));
    says(format!("{} KiB, nested {MAX_DEPTH} deep", MAX_LINE_BYTES / 1024));

    let limits = Config::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "none:1")])).unwrap().accept.limits;
    says(format!("| body as sent | {} MiB |", limits.body_bytes >> 20));
    says(format!("| body decompressed | {} MiB |", limits.decoded_bytes >> 20));
    says(format!("| events per request | {} |", limits.events));
    says(format!(
        "| {} s, pauses of at most {} s |",
        limits.body_total.as_secs(),
        limits.body_idle.as_secs()
    ));
}
