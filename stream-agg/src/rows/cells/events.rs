//! Turns raw rows into cells of `events`, one for each day of arrival (`server_time`).

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::iter::once;

use hashbrown::DefaultHashBuilder;
use schemas::field::Field;
use schemas::row::RawColumn;
use schemas::tables::RAW_DAYS;
use schemas::time::{DAY, HOUR};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Cell, Marker, Source, append_interned, fields, only_marker, repeated};
use crate::protocol::declaration::Declaration;
use crate::protocol::progress::NextOffset;
use crate::rows::columns::{RowId, Rows};
use crate::rows::native::{self, BlockBuilder};
use crate::rows::order;

/// The cells of raw rows, one for each day of arrival. Also returns the number of scalar values whose type is not the
/// declared type of their field.
pub(super) fn cells(
    rows: &Rows,
    declaration: &Declaration,
    source: Source,
    applied_end: NextOffset,
) -> (Vec<Cell>, u64) {
    let mut days = BTreeMap::<_, Vec<RowId>>::new();
    let places = places(rows, declaration.place_key);
    for row in in_order(rows, &places) {
        days.entry(rows.server_time[row as usize].floor(DAY)).or_default().push(row);
    }
    let raw = Raw { rows, places: &places, fields: declaration.rollups.fields() };
    let mut mistyped = 0;
    let cells = days.into_iter().map(|(start, order)| {
        let (cell, of_cell) = events_cell(raw, &order, Marker { source, applied_end, start });
        mistyped += of_cell;
        cell
    });
    (cells.collect(), mistyped)
}

/// The columns of raw rows.
#[derive(Clone, Copy)]
struct Raw<'r> {
    rows: &'r Rows,
    places: &'r [u16],
    fields: &'r [Field],
}

/// The column `place`: for each row a keyed hash of its user and hour. The column is part of the sorting key, so rows
/// of one user and hour are stored together and compress well. The hash is keyed: after the ids in the rows have been
/// blanked, nobody can recognize the rows of a user by `place` without the key.
fn places(rows: &Rows, key: u64) -> Vec<u16> {
    let mut last = (("", i64::MIN), 0);
    let place = |row: usize| {
        let (who, hour) = (rows.user(row as RowId), rows.client_time[row].0.div_euclid(HOUR));
        // Neighbouring rows usually have the same user, because the lines of one request are next to each other and
        // come from one client. So the last hash is reused.
        if last.0 != (who, hour) {
            let hash = xxh3_64_with_seed(who.as_bytes(), key.wrapping_add(hour.cast_unsigned()));
            last = ((who, hour), hash as u16);
        }
        last.1
    };
    (0..rows.len()).map(place).collect()
}

/// The rows in the order of the table's sorting key. Rows with equal keys are in the order of offset and line.
fn in_order(rows: &Rows, places: &[u16]) -> Vec<RowId> {
    let tenants = rows.tenant.texts.ranks();
    let keys = (0..rows.len()).map(|at| {
        let tenant = tenants[rows.tenant.numbers[at] as usize];
        (tenant, rows.client_time[at].floor(HOUR), places[at])
    });
    let hasher = DefaultHashBuilder::default();
    let keys = order::ranked(keys, |key| hasher.hash_one(key));
    let all: Vec<_> = (0..rows.len() as RowId).collect();
    order::by_rank(&all, keys.keys.len(), |row| keys.ranks[row as usize])
}

/// The value of `props` for an event whose fields are all defined by Millrace, such as `event` or `user_id`.
const NO_PROPS: &str = "{}";

/// The cell of rows that are in the order of the sorting key; the marker row is first. Also returns the number of
/// scalar values whose type is not the declared type of their field.
fn events_cell(raw: Raw<'_>, order: &[RowId], marker: Marker) -> (Cell, u64) {
    let Raw { rows, places, fields } = raw;
    let Marker { source: Source { log_generation, partition, declaration_hash }, applied_end, start } =
        marker;
    let count = order.len() + 1;
    // If all rows have `NO_PROPS`, the block omits the column `props` and the columns of declared fields. ClickHouse
    // fills each omitted column with its default; the default of `props` is also `NO_PROPS`.
    let has_props = order.iter().any(|row| rows.props.get(*row) != NO_PROPS);
    let columns = RawColumn::ALL.into_iter().filter(|column| has_props || *column != RawColumn::Props);
    let fields = if has_props { fields } else { &[] };
    let end = applied_end.to_u64().to_le_bytes();
    let mut block = BlockBuilder::new(columns.clone().count() + fields.len(), count);
    let at = || order.iter().map(|row| *row as usize);
    let texts =
        |text: fn(&Rows, RowId) -> &str| once("").chain(order.iter().map(move |row| text(rows, *row)));
    for column in columns {
        let (name, kind) = (column.name(), column.column_type());
        match column {
            RawColumn::Tenant => append_interned(&mut block, name, &rows.tenant, order),
            RawColumn::Event => append_interned(&mut block, name, &rows.event, order),
            RawColumn::ClientTime => {
                let values = once(start).chain(at().map(|row| rows.client_time[row]));
                block.fixed(name, kind, values.map(|time| time.0.to_le_bytes()));
            }
            RawColumn::ServerTime => {
                let values = once(start).chain(at().map(|row| rows.server_time[row]));
                block.fixed(name, kind, values.map(|time| time.0.to_le_bytes()));
            }
            RawColumn::Ip => block.fixed(name, kind, once([0; 16]).chain(at().map(|row| rows.ip[row]))),
            RawColumn::UserId => block.text(name, kind, texts(|rows, row| rows.user_id.get(row))),
            RawColumn::DeviceId => block.text(name, kind, texts(|rows, row| rows.device_id.get(row))),
            RawColumn::DeviceOs => append_interned(&mut block, name, &rows.device_os, order),
            RawColumn::Session => block.text(name, kind, texts(|rows, row| rows.session.get(row))),
            RawColumn::Sequence => {
                let values = once(0).chain(at().map(|row| rows.sequence[row]));
                block.fixed(name, kind, values.map(u64::to_le_bytes));
            }
            RawColumn::ParamInt => {
                let values = once(0).chain(at().map(|row| rows.param_int[row]));
                block.fixed(name, kind, values.map(i64::to_le_bytes));
            }
            RawColumn::ParamStr => block.text(name, kind, texts(|rows, row| rows.param_str.get(row))),
            RawColumn::Country => append_interned(&mut block, name, &rows.country, order),
            RawColumn::EventId => {
                let values = at().map(|row| native::uuid(rows.event_id[row]));
                block.fixed(name, kind, once([0; 16]).chain(values));
            }
            RawColumn::Props => {
                let values = order.iter().map(|row| rows.props.get(*row));
                block.text(name, kind, once(NO_PROPS).chain(values));
            }
            RawColumn::Place => {
                let values = once(0).chain(at().map(|row| places[row]));
                block.fixed(name, kind, values.map(u16::to_le_bytes));
            }
            RawColumn::DeclarationHash => {
                repeated(&mut block, name, kind, declaration_hash.to_le_bytes(), count);
            }
            RawColumn::LogGeneration => repeated(&mut block, name, kind, log_generation.to_le_bytes(), count),
            RawColumn::KafkaPartition => repeated(&mut block, name, kind, partition.to_le_bytes(), count),
            RawColumn::KafkaOffset => {
                let values = once(0).chain(at().map(|row| rows.ko[row]));
                block.fixed(name, kind, values.map(u64::to_le_bytes));
            }
            RawColumn::Line => {
                let values = once(0).chain(at().map(|row| rows.line[row]));
                block.fixed(name, kind, values.map(u16::to_le_bytes));
            }
            RawColumn::AppliedEnd => only_marker(&mut block, name, kind, end, count),
        }
    }
    let mistyped = fields.iter().map(|field| fields::column(&mut block, field, rows, order)).sum();
    (marker.daily("events", RAW_DAYS, count, block), mistyped)
}
