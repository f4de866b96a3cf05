//! Configuration files of Kafka and ClickHouse, rendered from templates.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// Writes `template` to `path`, with each `{{name}}` replaced by its value.
pub(crate) fn render(template: &str, values: &[(&str, &str)], path: &Path) -> anyhow::Result<()> {
    let text = values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    assert!(!text.contains("{{"), "every placeholder of {} has a value", path.display());
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
