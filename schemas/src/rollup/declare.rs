//! Parses and checks a file like `rollups.toml`; every error says in which line of the file the mistake is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use super::definition::Rollup;
use super::dimension::{Column, Condition, Dimension};
use super::grain::Grain;
use super::layout;
use super::measure::Measure;
use crate::field::{Field, FieldType};
use crate::prop_path::PropPath;
use crate::reserved_names;

/// A declaration that cannot be used: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read rollups: {file}:{line}: {reason}")]
pub struct DeclareError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and how to correct it.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rollup: Vec<Declared>,
    #[serde(default)]
    field: Vec<DeclaredField>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredField {
    name: Spanned<String>,
    path: Spanned<String>,
    #[serde(rename = "type")]
    kind: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    name: Spanned<String>,
    grain: Spanned<String>,
    dimensions: Vec<Spanned<String>>,
    #[serde(default, rename = "where")]
    conditions: BTreeMap<Spanned<String>, OneOrMore>,
    measures: BTreeMap<Spanned<String>, Spanned<String>>,
    retention: Option<Spanned<String>>,
}

/// The values of one field of `where`: `"vote"` or `["click", "impression"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// What is wrong with the declarations, and the byte offset of the mistake in the text.
struct Mistake {
    at: usize,
    reason: String,
}

pub(super) fn parse(file: &str, text: &str) -> Result<(Vec<Rollup>, Vec<Field>), DeclareError> {
    let error = |Mistake { at, reason }| {
        let line = 1 + text[..at].matches('\n').count();
        DeclareError { file: file.to_owned(), line, reason }
    };
    let declared: File = toml::from_str(text).map_err(|e| {
        error(Mistake {
            at: e.span().map_or(0, |span| span.start),
            reason: e.message().trim_end().replace('\n', ", "),
        })
    })?;
    let mut columns = BTreeSet::new();
    let field = |declared: &DeclaredField| {
        if columns.len() == MAX_FIELDS {
            return Err(mistake(&declared.name, format!("a file can declare at most {MAX_FIELDS} fields")));
        }
        if !columns.insert(declared.name.get_ref().clone()) {
            return Err(mistake(
                &declared.name,
                format!("there is already a field `{}`", declared.name.get_ref()),
            ));
        }
        field(declared)
    };
    let fields: Vec<_> = declared.field.iter().map(field).collect::<Result<_, _>>().map_err(error)?;
    let mut retentions = BTreeSet::new();
    let mut names: BTreeSet<String> = reserved_names::TABLES.map(str::to_owned).into();
    let rollup = |declared: Declared| {
        if reserved_names::TABLE_KEYWORDS.contains(&declared.name.get_ref().as_str()) {
            let word = declared.name.get_ref();
            return Err(mistake(
                &declared.name,
                format!("`{word}` is a keyword of SQL that cannot name a table"),
            ));
        }
        if !names.insert(declared.name.get_ref().clone()) {
            return Err(mistake(
                &declared.name,
                format!("there is already a table, view or rollup `{}`", declared.name.get_ref()),
            ));
        }
        if let Some(retention) = &declared.retention {
            retentions.insert(days(retention)?);
            if retentions.len() > layout::RETENTIONS {
                const MOST: usize = layout::RETENTIONS;
                return Err(mistake(
                    retention,
                    format!("a file can declare at most {MOST} different retentions; use one of those above"),
                ));
            }
        }
        resolve(declared, &fields)
    };
    let rollups = declared.rollup.into_iter().map(rollup).collect::<Result<_, _>>().map_err(error)?;
    Ok((rollups, fields))
}

/// Maximum number of fields that can be declared: each is a column of every raw row.
const MAX_FIELDS: usize = 64;

fn field(declared: &DeclaredField) -> Result<Field, Mistake> {
    Ok(Field {
        name: checked_name(&declared.name)?,
        path: path(&declared.path, declared.path.get_ref())?,
        kind: one_of(&declared.kind, "type", FieldType::ALL.map(|kind| (kind.name().to_owned(), kind)))?,
    })
}

fn resolve(declared: Declared, fields: &[Field]) -> Result<Rollup, Mistake> {
    let name = checked_name(&declared.name)?;
    let grain = one_of(&declared.grain, "grain", Grain::ALL.map(|g| (g.name().to_owned(), g)))?;
    let mut columns: BTreeSet<String> = reserved_names::COLUMNS.map(str::to_owned).into();
    let mut column = |name: String, at: usize| {
        if reserved_names::COLUMN_KEYWORDS.contains(&name.as_str()) {
            return Err(Mistake {
                at,
                reason: format!("`{name}` is a keyword of SQL that cannot name a column"),
            });
        }
        let free = columns.insert(name.clone());
        if free { Ok(()) } else { Err(Mistake { at, reason: format!("there is already a column `{name}`") }) }
    };
    let mut dimensions = Vec::new();
    for word in &declared.dimensions {
        let dimension = dimension(word)?;
        column(dimension.column_name(), word.span().start)?;
        if dimensions.len() == layout::DIMENSIONS {
            return Err(mistake(word, format!("a rollup has at most {} dimensions", layout::DIMENSIONS)));
        }
        dimensions.push(dimension);
    }
    let mut conditions = Vec::new();
    for (field, values) in declared.conditions {
        let values = match values {
            OneOrMore::One(value) => vec![value],
            OneOrMore::More(values) => values,
        };
        if values.is_empty() {
            return Err(mistake(
                &field,
                format!(
                    "`{}` has no value to compare with; write a string or a list of strings",
                    field.get_ref()
                ),
            ));
        }
        conditions.push(Condition { field: dimension(&field)?, values });
    }
    let mut measures = Vec::new();
    for (name, measure) in &declared.measures {
        column(name.get_ref().clone(), name.span().start)?;
        let kind = one_of(measure, "measure", Measure::all(fields).map(|m| (m.to_string(), m)))?;
        if let Some(beside) = kind.rows_column(name.get_ref()) {
            column(beside, name.span().start)?;
        }
        measures.push((checked_name(name)?, kind));
    }
    if measures.is_empty() {
        return Err(mistake(
            &declared.name,
            format!(
                "rollup `{}` has no measure; write for example `measures = {{ events = \"count\" }}`",
                declared.name.get_ref()
            ),
        ));
    }
    let retention_days = declared.retention.as_ref().map(days).transpose()?;
    let rollup = Rollup { name, grain, dimensions, conditions, measures, retention_days };
    if let Some((name, measure)) = rollup.first_without_column() {
        const MOST: usize = layout::MEASURES;
        return Err(mistake(
            &declared.measures[name.as_str()],
            format!(
                "`{measure}` is one too many: a rollup has at most {MOST} measures of each kind: sum(…) and \
                 count(prop_…) together, min(…), max(…), uniq_exact(…)"
            ),
        ));
    }
    match &declared.retention {
        Some(retention) if rollup.grain == Grain::None => {
            Err(mistake(retention, "a bucket of all time does not expire; remove the retention".to_owned()))
        }
        _ => Ok(rollup),
    }
}

/// A dimension: a column of the raw table, or `props.` and a path.
fn dimension(word: &Spanned<String>) -> Result<Dimension, Mistake> {
    let Some(path) = word.get_ref().strip_prefix("props.") else {
        let column = one_of(word, "dimension", Column::ALL.map(|c| (c.name().to_owned(), c)));
        return column
            .map(Dimension::Column)
            .map_err(|Mistake { at, reason }| Mistake { at, reason: reason + ", props.<path>" });
    };
    self::path(word, path).map(Dimension::Prop)
}

fn path(at: &Spanned<String>, path: &str) -> Result<PropPath, Mistake> {
    let steps: Vec<_> = path.split('.').map(str::to_owned).collect();
    if steps.iter().all(|step| is_name(step)) {
        Ok(PropPath::new(steps))
    } else {
        Err(mistake(
            at,
            format!(
                "`{path}` is not a path of names with dots between them: each name must start with a-z and have only \
                 a-z, 0-9 and _, at most 64 characters"
            ),
        ))
    }
}

/// Returns the name if it has a form that SQL accepts without quotes, else a mistake. The name may still be a keyword.
fn checked_name(name: &Spanned<String>) -> Result<String, Mistake> {
    let text = name.get_ref();
    if is_name(text) {
        Ok(text.clone())
    } else {
        Err(mistake(
            name,
            format!(
                "`{text}` is not a name: it must start with a-z and have only a-z, 0-9 and _, at most 64 characters"
            ),
        ))
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Returns the choice whose name is `word`, else a mistake that lists the names of all choices. `what` says what is
/// chosen, for example `measure`.
fn one_of<T>(
    word: &Spanned<String>,
    what: &str,
    choices: impl IntoIterator<Item = (String, T)>,
) -> Result<T, Mistake> {
    let mut names = Vec::new();
    for (name, choice) in choices {
        if name == *word.get_ref() {
            return Ok(choice);
        }
        names.push(name);
    }
    Err(mistake(word, format!("`{}` is not a {what}; there are {}", word.get_ref(), names.join(", "))))
}

fn days(text: &Spanned<String>) -> Result<u32, Mistake> {
    const MAX: u32 = Rollup::MAX_RETENTION_DAYS;
    let days = text
        .get_ref()
        .strip_suffix('d')
        .and_then(|days| days.parse().ok())
        .filter(|days| (1..=MAX).contains(days));
    days.ok_or_else(|| {
        mistake(
            text,
            format!("`{}` is not a retention; write a number of days, from 1d to {MAX}d", text.get_ref()),
        )
    })
}

fn mistake<T>(at: &Spanned<T>, reason: String) -> Mistake {
    Mistake { at: at.span().start, reason }
}
