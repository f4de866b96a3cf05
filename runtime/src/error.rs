//! An error with its causes as one text, for logs and for `/readyz`.

use std::error::Error;

/// The messages of an error and of its causes, separated by `: `.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
