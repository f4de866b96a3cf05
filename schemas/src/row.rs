//! The columns of the raw table `events`, without the columns of declared [fields](crate::field).

pub use crate::event_time::{Ahead, Earliest, EventTime, STORABLE, TimeLimits};

macro_rules! columns {
    ($($column:ident = $name:literal: $type:literal,)*) => {
        /// A column of `events`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "sql/0001_events.sql has a comment for each column")]
        pub enum RawColumn {
            $($column,)*
        }

        impl RawColumn {
            /// All columns, in the order in which the aggregator sends them to ClickHouse. A test compares them with
            /// `sql/0001_events.sql`.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$column),*];

            /// The name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$column => $name,)*
                }
            }

            /// The type in ClickHouse.
            pub const fn column_type(self) -> &'static str {
                match self {
                    $(Self::$column => $type,)*
                }
            }
        }
    };
}

columns! {
    Tenant = "tenant": "LowCardinality(String)",
    Event = "event": "LowCardinality(String)",
    ClientTime = "client_time": "DateTime64(3, 'UTC')",
    ServerTime = "server_time": "DateTime64(3, 'UTC')",
    Ip = "ip": "IPv6",
    UserId = "user_id": "String",
    DeviceId = "device_id": "String",
    DeviceOs = "device_os": "LowCardinality(String)",
    Session = "session": "String",
    Sequence = "sequence": "UInt64",
    ParamInt = "param_int": "Int64",
    ParamStr = "param_str": "String",
    Country = "country": "LowCardinality(String)",
    EventId = "event_id": "UUID",
    Props = "props": "String",
    Place = "place": "UInt16",
    DeclarationHash = "cfg": "UInt64",
    LogGeneration = "g": "UInt16",
    KafkaPartition = "kp": "UInt16",
    KafkaOffset = "ko": "UInt64",
    Line = "line": "UInt16",
    AppliedEnd = "hwm": "UInt64",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FIELD_NAMES;
    use crate::tables;

    #[test]
    fn the_columns_are_those_of_the_table() {
        let sql = tables::MIGRATIONS.iter().find(|m| m.name == "0001_events").unwrap().sql;
        let defined: Vec<(&str, &str)> = sql
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(' '))
            .map(|(name, rest)| {
                (name, rest.split(" COMMENT ").next().unwrap().split(" DEFAULT ").next().unwrap())
            })
            .take_while(|(name, _)| *name != "INDEX")
            .collect();
        let sent = RawColumn::ALL.map(|column| (column.name(), column.column_type()));
        assert_eq!(defined, sent);
    }

    /// The compiler cannot check that each parsed field of an event has a column.
    #[test]
    fn every_field_of_an_event_has_a_column() {
        for field in FIELD_NAMES {
            assert!(RawColumn::ALL.iter().any(|column| column.name() == field), "{field}");
        }
    }

    /// Whether the column is hidden from analysts.
    fn is_internal(column: RawColumn) -> bool {
        match column {
            RawColumn::Tenant
            | RawColumn::Event
            | RawColumn::ClientTime
            | RawColumn::ServerTime
            | RawColumn::Ip
            | RawColumn::UserId
            | RawColumn::DeviceId
            | RawColumn::DeviceOs
            | RawColumn::Session
            | RawColumn::Sequence
            | RawColumn::ParamInt
            | RawColumn::ParamStr
            | RawColumn::Country
            | RawColumn::EventId
            | RawColumn::Props => false,
            RawColumn::Place
            | RawColumn::DeclarationHash
            | RawColumn::LogGeneration
            | RawColumn::KafkaPartition
            | RawColumn::KafkaOffset
            | RawColumn::Line
            | RawColumn::AppliedEnd => true,
        }
    }

    #[test]
    fn analysts_see_every_column_that_is_not_internal() {
        let views = include_str!("bi/line_views.rs");
        let (_, rest) = views.split_once("fn events_recent").unwrap();
        let (view, _) = rest.split_once("\n}\n").unwrap();
        for column in RawColumn::ALL {
            let is_shown = view.contains(&format!("\"{}\"", column.name()));
            assert_eq!(is_shown, !is_internal(column), "{column:?}");
        }
    }
}
