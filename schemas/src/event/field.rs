//! The known fields of an event. One table has their names, their types, and how their values are checked.

use std::borrow::Cow;

use uuid::Uuid;

use super::country::Country;
use super::fault::Code;
use super::value::Scalar;
use crate::time::UnixMillis;

/// Maximum length of the name of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 200;
/// Maximum length of `device_id`, `session`, `device_os` and `user_id`, each in bytes.
pub const MAX_ID_BYTES: usize = 200;
/// Maximum length of `param_str`, in bytes.
pub const MAX_PARAM_STR_BYTES: usize = 8192;

/// For each field: its name in JSON and in [`Event`], its type, its variant of [`Field`], and how its value is checked.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $field:ident, |$value:ident| $checked:expr;)*) => {
        /// One event. Its texts are borrowed from the line, except those with escapes. An absent string is empty, as
        /// in the raw table: `null`, `""` and absence are stored the same.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Event<'a> {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl<'a> Event<'a> {
            #[inline(always)]
            pub(super) fn set(&mut self, field: Field, value: Scalar<'a>) -> Result<(), Code> {
                if value.is_absent() {
                    return Ok(());
                }
                match field {
                    $(Field::$field => {
                        let $value = value;
                        self.$name = $checked?;
                    })*
                }
                Ok(())
            }
        }

        /// The known fields.
        #[derive(Clone, Copy)]
        pub(super) enum Field {
            $($field,)*
        }

        impl Field {
            pub(super) const COUNT: usize = [$(stringify!($name)),*].len();

            /// The field with this name. The length is compared first, which leaves at most four names to compare.
            #[inline]
            pub(super) fn named(name: &[u8]) -> Option<Self> {
                match name.len() {
                    $(length::$name if name == stringify!($name).as_bytes() => Some(Self::$field),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$field => stringify!($name),)*
                }
            }
        }

        /// The names of the known fields.
        pub const FIELD_NAMES: [&str; Field::COUNT] = [$(stringify!($name)),*];

        /// The length of each name.
        #[expect(non_upper_case_globals, reason = "named like their fields")]
        mod length {
            $(pub(super) const $name: usize = stringify!($name).len();)*
        }
    };
}

fields! {
    /// The name of the event, 1–200 bytes.
    event: Cow<'a, str> = Event, |value| value.text(MAX_EVENT_BYTES);
    /// When the event happened, by the client's clock.
    client_time: Option<UnixMillis> = ClientTime, |value| value.time().map(Some);
    /// The device on which the event happened.
    device_id: Cow<'a, str> = DeviceId, |value| value.text(MAX_ID_BYTES);
    /// The session that the event belongs to.
    session: Cow<'a, str> = Session, |value| value.text(MAX_ID_BYTES);
    /// The operating system of the device.
    device_os: Cow<'a, str> = DeviceOs, |value| value.text(MAX_ID_BYTES);
    /// The user who caused the event.
    user_id: Cow<'a, str> = UserId, |value| value.text(MAX_ID_BYTES);
    /// The position of the event in its session.
    sequence: u64 = Sequence, |value| value.unsigned();
    /// An integer that the client chooses.
    param_int: i64 = ParamInt, |value| value.signed();
    /// A text that the client chooses.
    param_str: Cow<'a, str> = ParamStr, |value| value.text(MAX_PARAM_STR_BYTES);
    /// The country code: two or three letters in upper case.
    country: Country = Country, |value| value.country();
    /// The identifier by which a repeated event is recognized.
    event_id: Option<Uuid> = EventId, |value| value.uuid().map(Some);
}

impl Event<'_> {
    /// The user: `user_id`, else `device_id`; `None` if the client sent neither.
    pub fn user(&self) -> Option<&str> {
        [&self.user_id, &self.device_id].into_iter().find(|id| !id.is_empty()).map(|id| &**id)
    }
}
