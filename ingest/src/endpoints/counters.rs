//! `/v1/counters` allows only events that are counted by country: views, plays and clicks.

use schemas::event::{COUNTER_EVENTS, Code, Fault, Parsed};

use crate::route::Route;
use crate::warnings::LookAlikes;

/// Which events an endpoint allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedEvents {
    /// All events.
    Any,
    /// Views, plays and clicks with a country.
    Counters,
}

impl AllowedEvents {
    /// The events that a route allows.
    pub fn of(route: Route) -> Self {
        match route {
            Route::Counters => Self::Counters,
            Route::Events | Route::Votes | Route::Analytics | Route::Other => Self::Any,
        }
    }

    /// Checks that an event is allowed.
    pub fn check(self, parsed: &Parsed<'_, LookAlikes>) -> Result<(), Fault> {
        let event = &parsed.event;
        match (self, parsed.left_out.faults().next()) {
            // If a label (`client_time`, `country` or `device_os`) cannot be read, other routes leave the label out and
            // accept the event. `/v1/counters` rejects the event, because it is counted by its country and its time.
            (Self::Counters, Some(fault)) => return Err(fault),
            (Self::Any | Self::Counters, _) => {}
        }
        match self {
            Self::Any => Ok(()),
            Self::Counters if !COUNTER_EVENTS.contains(&&*event.event) => {
                Err(Fault::field(Code::UnknownEvent, "event"))
            }
            Self::Counters if event.country.as_str().is_empty() => {
                Err(Fault::field(Code::BadCountry, "country"))
            }
            Self::Counters => Ok(()),
        }
    }
}
