//! Dictionary-encodes the dimensions of a rollup, which come from text columns of a batch.

use std::borrow::Cow;

use schemas::rollup::{Column, Dimension, PropPath};

use crate::rows::columns::{Interned, Interner, RowId, Rows, Texts};
use crate::rows::decode::props;

/// A dictionary-encoded text column. The dictionary comes from the decoder, or was made for this rollup.
pub struct Numbered<'r> {
    texts: TextPool<'r>,
    /// The number of the text, for each counted row or for each group.
    pub numbers: Vec<u32>,
}

enum TextPool<'r> {
    Decoded(&'r Interner),
    Own(Interner),
}

impl Numbered<'_> {
    /// The number of `text`, which is added if it is new.
    pub(super) fn intern(&mut self, text: &str) -> u32 {
        if let TextPool::Decoded(texts) = self.texts {
            self.texts = TextPool::Own(texts.clone());
        }
        match &mut self.texts {
            TextPool::Own(texts) => texts.intern(text),
            TextPool::Decoded(_) => unreachable!("the decoded texts were just replaced by a copy"),
        }
    }

    /// The dictionary, which has the text of each number.
    pub fn texts(&self) -> &Interner {
        match &self.texts {
            TextPool::Decoded(texts) => texts,
            TextPool::Own(texts) => texts,
        }
    }
}

/// A text column of the batch.
pub(super) enum TextColumn<'r> {
    Numbered(&'r Interned),
    Plain(&'r Texts),
}

/// The texts of `column`.
pub(super) fn text_column(column: Column, rows: &Rows) -> TextColumn<'_> {
    match column {
        Column::Event => TextColumn::Numbered(&rows.event),
        Column::Country => TextColumn::Numbered(&rows.country),
        Column::DeviceOs => TextColumn::Numbered(&rows.device_os),
        Column::DeviceId => TextColumn::Plain(&rows.device_id),
        Column::UserId => TextColumn::Plain(&rows.user_id),
        Column::Session => TextColumn::Plain(&rows.session),
        Column::ParamStr => TextColumn::Plain(&rows.param_str),
    }
}

/// The text at a path of `props`.
pub(super) fn prop<'r>(rows: &'r Rows, path: &PropPath, row: RowId) -> Cow<'r, str> {
    props::scalar(rows.props.get(row), path.steps())
}

/// Dictionary-encodes a dimension of the units that count.
pub(super) fn numbered<'r>(dimension: &Dimension, rows: &'r Rows, counted: &[RowId]) -> Numbered<'r> {
    let own = |text: &dyn Fn(RowId) -> Cow<'r, str>| {
        let mut texts = Interner::default();
        let numbers = counted.iter().map(|row| texts.intern(&text(*row))).collect();
        Numbered { texts: TextPool::Own(texts), numbers }
    };
    match dimension {
        Dimension::Prop(path) => own(&|row| prop(rows, path, row)),
        Dimension::Column(column) => match text_column(*column, rows) {
            TextColumn::Plain(texts) => own(&|row| texts.get(row).into()),
            TextColumn::Numbered(column) => Numbered {
                texts: TextPool::Decoded(&column.texts),
                numbers: counted.iter().map(|row| column.numbers[*row as usize]).collect(),
            },
        },
    }
}
