//! Dictionary-encodes the dimensions of a rollup. Their values come from text columns of a batch or from `props`.

use std::borrow::Cow;

use schemas::rollup::{Column, Dimension, PropPath};

use crate::rows::columns::{Interned, Interner, RowId, Rows, Texts};
use crate::rows::decode::props;

/// A dictionary-encoded text column. The dictionary comes from the decoder, or was made for one rollup.
pub struct DictionaryColumn<'r> {
    texts: Dictionary<'r>,
    /// Indexes into the dictionary, one for each unit that the rollup counts: a row, or a stratum (see
    /// [`Strata`](crate::rows::strata::Strata)). In an [`Aggregate`](super::Aggregate), one for each group instead.
    pub numbers: Vec<u32>,
}

enum Dictionary<'r> {
    Decoded(&'r Interner),
    Own(Interner),
}

impl DictionaryColumn<'_> {
    /// The number of `text`. A new text is added to the dictionary.
    pub(super) fn intern(&mut self, text: &str) -> u32 {
        if let Dictionary::Decoded(texts) = self.texts {
            self.texts = Dictionary::Own(texts.clone());
        }
        match &mut self.texts {
            Dictionary::Own(texts) => texts.intern(text),
            Dictionary::Decoded(_) => unreachable!("the decoded texts were just replaced by a copy"),
        }
    }

    /// The dictionary, which has the text of each number.
    pub fn texts(&self) -> &Interner {
        match &self.texts {
            Dictionary::Decoded(texts) => texts,
            Dictionary::Own(texts) => texts,
        }
    }
}

/// A text column of the batch.
pub(super) enum TextColumn<'r> {
    Interned(&'r Interned),
    Plain(&'r Texts),
}

/// The texts of `column`.
pub(super) fn text_column(column: Column, rows: &Rows) -> TextColumn<'_> {
    match column {
        Column::Event => TextColumn::Interned(&rows.event),
        Column::Country => TextColumn::Interned(&rows.country),
        Column::DeviceOs => TextColumn::Interned(&rows.device_os),
        Column::DeviceId => TextColumn::Plain(&rows.device_id),
        Column::UserId => TextColumn::Plain(&rows.user_id),
        Column::Session => TextColumn::Plain(&rows.session),
        Column::ParamStr => TextColumn::Plain(&rows.param_str),
    }
}

/// The text at `path` in the row's `props`; empty if there is no string, number or boolean at this path.
pub(super) fn prop<'r>(rows: &'r Rows, path: &PropPath, row: RowId) -> Cow<'r, str> {
    props::scalar(rows.props.get(row), path.steps())
}

/// Dictionary-encodes a dimension. `counted` has the first row of each unit (stratum or row) that the rollup counts.
pub(super) fn dictionary_column<'r>(
    dimension: &Dimension,
    rows: &'r Rows,
    counted: &[RowId],
) -> DictionaryColumn<'r> {
    let own = |text: &dyn Fn(RowId) -> Cow<'r, str>| {
        let mut texts = Interner::default();
        let numbers = counted.iter().map(|row| texts.intern(&text(*row))).collect();
        DictionaryColumn { texts: Dictionary::Own(texts), numbers }
    };
    match dimension {
        Dimension::Prop(path) => own(&|row| prop(rows, path, row)),
        Dimension::Column(column) => match text_column(*column, rows) {
            TextColumn::Plain(texts) => own(&|row| texts.get(row).into()),
            TextColumn::Interned(column) => DictionaryColumn {
                texts: Dictionary::Decoded(&column.texts),
                numbers: counted.iter().map(|row| column.numbers[*row as usize]).collect(),
            },
        },
    }
}
