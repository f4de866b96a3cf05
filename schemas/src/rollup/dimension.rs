//! What a rollup is grouped by, and which events it counts.

use std::fmt;

use crate::named_enum::named_enum;
use crate::prop_path::PropPath;

/// A field that a rollup is grouped by, or that its `where` tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A column of the raw table.
    Column(Column),
    /// A field of `props`: `props.plan`, `props.a.b`. Strings count as they are, numbers and booleans as their JSON;
    /// any other value, or absence, counts as the empty string.
    Prop(PropPath),
}

impl Dimension {
    /// The name of the dimension's column in the rollup's view: the name of the raw column, or the path with `_`
    /// between its steps.
    pub fn column_name(&self) -> String {
        match self {
            Self::Column(column) => column.name().to_owned(),
            Self::Prop(path) => path.steps().join("_"),
        }
    }
}

/// The dimension as it is declared: `country`, `props.plan`.
impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => f.write_str(column.name()),
            Self::Prop(path) => write!(f, "props.{path}"),
        }
    }
}

named_enum! {
    /// A text column of the raw table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Column {
        /// The name of the event.
        Event = "event",
        /// The country.
        Country = "country",
        /// The operating system of the device.
        DeviceOs = "device_os",
        /// The device.
        DeviceId = "device_id",
        /// The `user_id` that the client sent. The `device_id` does not replace an absent `user_id`; in a distinct
        /// count of users, it does.
        UserId = "user_id",
        /// The session.
        Session = "session",
        /// The text that the client chooses.
        ParamStr = "param_str",
    }

    /// All columns.
    pub const ALL;

    /// The name of the column.
    pub fn name;
}

/// A condition on the events of a rollup: the field has one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The field.
    pub field: Dimension,
    /// The values that it may have, at least one.
    pub values: Vec<String>,
}
