//! All rollups and fields of a deployment.

use super::declare::{self, DeclareError};
use super::definition::Rollup;
use crate::field::Field;

/// All rollups and fields of a deployment, in the order of their file. Two values are equal if they declare the same
/// rollups and fields.
#[derive(Debug, Clone)]
pub struct Rollups {
    all: Vec<Rollup>,
    fields: Vec<Field>,
    source: String,
}

impl PartialEq for Rollups {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all && self.fields == other.fields
    }
}

impl Eq for Rollups {}

impl Rollups {
    /// The rollups that are compiled in, from `schemas/rollups.toml`.
    pub fn built_in() -> Self {
        Self::parse("rollups.toml", include_str!("../../rollups.toml")).expect("the built-in file is tested")
    }

    /// Parses declarations. An error names `file`, the line, and what is wrong in that line.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclareError> {
        let (all, fields) = declare::parse(file, text)?;
        Ok(Self { all, fields, source: text.to_owned() })
    }

    /// The text of the file that declares the rollups.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The rollups, in the order of their file.
    pub fn iter(&self) -> std::slice::Iter<'_, Rollup> {
        self.all.iter()
    }

    /// The fields of `props` that are columns of the raw table.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The rollup of this name.
    pub fn get(&self, name: &str) -> Option<&Rollup> {
        self.all.iter().find(|rollup| rollup.name == name)
    }
}
