//! Turns declared fields of `props` into typed columns of the raw table.

use std::iter::once;

use schemas::field::{Field, FieldType};

use crate::rows::columns::{RowId, Rows};
use crate::rows::decode::props;
use crate::rows::native::BlockBuilder;

/// Appends the column of `field`: first the default for the marker row, then the values of the rows. Returns how many
/// rows have a scalar value whose type is not the declared type. In these rows, the column has its default, and `props`
/// keeps the value.
pub(super) fn column(block: &mut BlockBuilder, field: &Field, rows: &Rows, order: &[RowId]) -> u64 {
    let (name, kind) = (field.column(), field.kind.column_type());
    let found: Vec<_> =
        order.iter().map(|row| props::find(rows.props.get(*row), field.path.steps())).collect();
    let present = found.iter().flatten().count();
    let of_kind = match field.kind {
        FieldType::String => {
            let texts = read(&found, |json| json.starts_with('"').then(|| props::string(json))?);
            let values = texts.iter().map(|text| text.as_deref().unwrap_or_default());
            block.text(&name, kind, once("").chain(values));
            texts.iter().flatten().count()
        }
        FieldType::Int => fixed(block, &name, kind, &read(&found, props::int), i64::to_le_bytes),
        FieldType::Float => fixed(block, &name, kind, &read(&found, props::float), f64::to_le_bytes),
        FieldType::Bool => {
            fixed(block, &name, kind, &read(&found, props::boolean), |value| [u8::from(value)])
        }
        FieldType::Time => fixed(block, &name, kind, &read(&found, props::time), |time| time.0.to_le_bytes()),
    };
    (present - of_kind) as u64
}

fn read<T>(found: &[Option<&str>], value: impl Fn(&str) -> Option<T>) -> Vec<Option<T>> {
    found.iter().map(|json| json.and_then(&value)).collect()
}

/// Appends a column: the default for the marker row, then `values`, with the default for each absent value. Returns how
/// many values are present.
fn fixed<T: Copy + Default, const N: usize>(
    block: &mut BlockBuilder,
    name: &str,
    kind: &str,
    values: &[Option<T>],
    bytes: impl Fn(T) -> [u8; N],
) -> usize {
    let all = once(T::default()).chain(values.iter().map(|value| value.unwrap_or_default()));
    block.fixed(name, kind, all.map(bytes));
    values.iter().flatten().count()
}
