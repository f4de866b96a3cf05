//! The canonical text of the declared rollups and fields: the file that declares them, without its comments and
//! formatting.
//!
//! Invariant: [`Rollups::parse`] reads equal rollups and fields from this text, and equal rollups and fields have equal
//! texts. The format is the same in all releases and does not depend on a library, so two processes of different
//! releases can compare the hashes of their texts to find out whether their declarations are equal.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use super::definition::Rollup;
use super::dimension::Condition;
use super::rollups::Rollups;

/// Writes all rollups and then all fields in the format of `rollups.toml`, separated by empty lines.
impl fmt::Display for Rollups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rollup) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}[[rollup]]\n{rollup}")?;
        }
        self.fields().iter().try_for_each(|field| write!(f, "\n[[field]]\n{field}"))
    }
}

/// Writes the declaration of the rollup without its first line, `[[rollup]]`.
impl fmt::Display for Rollup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "name = \"{}\"", self.name)?;
        writeln!(f, "grain = \"{}\"", self.grain.name())?;
        writeln!(f, "dimensions = [{}]", listed(self.dimensions.iter().map(|d| format!("\"{d}\""))))?;
        if !self.conditions.is_empty() {
            writeln!(f, "where = {{ {} }}", listed(self.conditions.iter().map(condition)))?;
        }
        let measures = self.measures.iter().map(|(name, measure)| format!("{name} = \"{measure}\""));
        writeln!(f, "measures = {{ {} }}", listed(measures))?;
        match self.retention_days {
            Some(days) => writeln!(f, "retention = \"{days}d\""),
            None => Ok(()),
        }
    }
}

impl Rollups {
    /// A hash of everything that is declared: equal in two processes with the same declarations.
    pub fn hash(&self) -> u64 {
        xxh3_64(self.to_string().as_bytes())
    }
}

fn condition(condition: &Condition) -> String {
    let values = condition.values.iter().map(|value| quoted(value));
    format!("\"{}\" = [{}]", condition.field, listed(values))
}

/// The text as a TOML string.
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_of_the_built_in_rollups_is_parsed_as_the_same_rollups() {
        let rollups = Rollups::built_in();
        assert_eq!(Rollups::parse("text", &rollups.to_string()), Ok(rollups));
    }

    #[test]
    fn a_rollup_is_written_as_it_is_declared() {
        let text = "[[rollup]]\nname = \"plays\"\ngrain = \"15m\"\ndimensions = [\"country\", \"props.plan\"]\n\
                    where = { \"event\" = [\"play\", \"view\"] }\nmeasures = { plays = \"count\" }\nretention = \"7d\"\n";
        assert_eq!(Rollups::parse("text", text).unwrap().to_string(), text);
    }

    #[test]
    fn a_field_is_written_as_it_is_declared() {
        let text = "[[rollup]]\nname = \"plays\"\ngrain = \"day\"\ndimensions = []\nmeasures = { n = \"count\" }\n\n\
                    [[field]]\nname = \"plan\"\npath = \"account.plan\"\ntype = \"string\"\n";
        assert_eq!(Rollups::parse("text", text).unwrap().to_string(), text);
        let other = Rollups::parse("text", &text.replace("string", "int")).unwrap();
        assert_ne!(other.hash(), Rollups::parse("text", text).unwrap().hash());
    }

    /// Processes of different releases compare hashes, so no release may compute another hash of the same declaration.
    #[test]
    fn the_hash_is_the_same_for_ever() {
        let text = "[[rollup]]\nname = \"plays\"\ngrain = \"day\"\ndimensions = []\nmeasures = { plays = \"count\" }\n";
        assert_eq!(format!("{:016x}", Rollups::parse("text", text).unwrap().hash()), "5a727d4ebe3eb6d9");
    }

    proptest! {
        #[test]
        fn any_value_of_a_condition_is_written_and_read_back(value in ".*", other in any::<String>()) {
            let rollups = |values: &str| {
                let text = format!(
                    "[[rollup]]\nname = \"a\"\ngrain = \"none\"\ndimensions = []\n\
                     where = {{ event = [{values}] }}\nmeasures = {{ n = \"count\" }}\n"
                );
                Rollups::parse("text", &text)
            };
            let declared = rollups(&format!("{}, {}", quoted(&value), quoted(&other))).unwrap();
            prop_assert_eq!(&declared.get("a").unwrap().conditions[0].values, &[value, other]);
            prop_assert_eq!(Rollups::parse("text", &declared.to_string()), Ok(declared));
        }
    }
}
