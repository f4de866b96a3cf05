//! Profiles and quotas: what a query may use, which settings it may change, and how many queries a user may send.

/// A settings profile of users.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Settings with their values.
    pub(super) settings: &'static [(&'static str, u64)],
    /// Settings that users with this profile may change although `readonly` is 1, each with the least and the greatest
    /// value that is allowed; `None` if every value is allowed.
    pub(super) changeable: &'static [(&'static str, Option<(u64, u64)>)],
}

/// How many queries and rows, and how much time, a user may use within an interval. ClickHouse counts separately for
/// each user name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) name: &'static str,
    pub(super) seconds: u32,
    /// Limits for each interval of `seconds`.
    pub(super) limits: &'static [(&'static str, u64)],
}

pub(super) const DEFAULT: Profile =
    Profile { name: "default", about: "", settings: &[("max_memory_usage", 2 << 30)], changeable: &[] };

pub(super) const POLLER: Profile = Profile {
    name: "poller",
    about: "The limits of the query API: short reads, few at once.",
    settings: &[("readonly", 2), ("max_execution_time", 30), ("max_concurrent_queries_for_user", 20)],
    changeable: &[],
};

pub(super) const BI: Profile = Profile {
    name: "bi",
    about: "The limits of an analyst's query, and the settings that drivers and tools may send: those that change the \
            format of a result or make it smaller. `max_rows_to_read` is not set: ClickHouse compares this limit with \
            the rows that the index selects, before a LIMIT applies, so it would refuse a preview of a large view.",
    settings: &[
        ("readonly", 1),
        ("max_execution_time", 30),
        ("max_memory_usage", 1 << 30),
        ("max_threads", 4),
        ("max_result_rows", 1_000_000),
        ("max_concurrent_queries_for_user", 10),
    ],
    changeable: &[
        ("max_execution_time", Some((1, 30))),
        ("max_result_rows", Some((1, 1_000_000))),
        ("result_overflow_mode", None),
        ("read_overflow_mode", None),
        ("max_block_size", Some((1, 1 << 20))),
        ("session_timezone", None),
        ("join_use_nulls", None),
        ("cast_keep_nullable", None),
        ("output_format_json_quote_64bit_integers", None),
    ],
};

pub(super) const PROFILES: [&Profile; 3] = [&DEFAULT, &POLLER, &BI];

pub(super) const BI_QUOTA: Quota = Quota {
    name: "bi",
    seconds: 60,
    limits: &[("queries", 600), ("read_rows", 20_000_000_000), ("execution_time", 300)],
};
