//! Reads the dimensions of rollups from a line of the load. Pure.

use schemas::event::{self, Event};
use schemas::rollup::{Column, Dimension, PropPath};
use schemas::time::UnixMillis;
use serde_json::Value;

/// A line of the load, from which the dimensions of rollups can be read.
pub struct Line<'a> {
    /// The known fields.
    pub event: Event<'a>,
    props: Value,
}

impl<'a> Line<'a> {
    /// Reads a line that the load made.
    ///
    /// # Panics
    /// If the line is not valid.
    pub fn read(line: &'a str) -> Self {
        let event = event::parse::<()>(line).unwrap_or_else(|fault| panic!("{line}: {fault:?}")).event;
        // `serde_json` cannot read a line whose hostile fields escape a lone surrogate, such as `\ud800`. Then `props`
        // is null, and every dimension of `props` is empty. Empty is right, because no line with hostile fields has a
        // field of `props` that is a dimension of a rollup in a run.
        Self { event, props: serde_json::from_str(line).unwrap_or_default() }
    }

    /// When the event happened.
    pub fn time(&self) -> UnixMillis {
        self.event.client_time.expect("the load gives every event a time")
    }

    /// The value of a dimension.
    pub fn text(&self, dimension: &Dimension) -> String {
        let event = &self.event;
        match dimension {
            Dimension::Column(Column::Event) => event.event.to_string(),
            Dimension::Column(Column::Country) => event.country.as_str().to_owned(),
            Dimension::Column(Column::DeviceOs) => event.device_os.to_string(),
            Dimension::Column(Column::DeviceId) => event.device_id.to_string(),
            Dimension::Column(Column::UserId) => event.user_id.to_string(),
            Dimension::Column(Column::Session) => event.session.to_string(),
            Dimension::Column(Column::ParamStr) => event.param_str.to_string(),
            Dimension::Prop(path) => prop(&self.props, path),
        }
    }
}

fn prop(props: &Value, path: &PropPath) -> String {
    match path.steps().iter().try_fold(props, |value, step| value.get(step)) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => String::new(),
    }
}
