//! What a reader accepts: media types (`Accept`) and encodings (`Accept-Encoding`), RFC 9110.

use crate::rendered::Encoding;

/// The items of a list, each with its weight (1000 times `q`): from 0, which means not accepted, to 1000.
fn preferences(list: &str) -> impl Iterator<Item = (&str, u16)> {
    list.split(',').map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(0.0));
        (name, (weight.clamp(0.0, 1.0) * 1000.0) as u16)
    })
}

/// The item of a list with the greatest weight, among the items that `known` accepts; of items with equal weight, the
/// first.
pub(super) fn preferred<T>(list: &str, known: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut best: Option<(T, u16)> = None;
    for (name, weight) in preferences(list) {
        if weight > best.as_ref().map_or(0, |(_, best)| *best)
            && let Some(item) = known(name)
        {
            best = Some((item, weight));
        }
    }
    best.map(|(item, _)| item)
}

/// The encoding that the header `Accept-Encoding` prefers: zstd if zstd and gzip have the same weight, no compression
/// if the header accepts neither.
pub(super) fn accepted_encoding(list: &str) -> Encoding {
    let weight = |encoding: &str| {
        let named = preferences(list).find(|(name, _)| name.eq_ignore_ascii_case(encoding));
        named.or_else(|| preferences(list).find(|(name, _)| *name == "*")).map_or(0, |(_, weight)| weight)
    };
    match (weight("zstd"), weight("gzip")) {
        (0, 0) => Encoding::Identity,
        (zstd, gzip) if zstd >= gzip => Encoding::Zstd,
        _ => Encoding::Gzip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_that_is_preferred_most_is_sent() {
        assert_eq!(accepted_encoding("gzip, deflate, br, zstd"), Encoding::Zstd);
        assert_eq!(accepted_encoding("gzip;q=1.0, zstd;q=0.5"), Encoding::Gzip);
        assert_eq!(accepted_encoding("GZIP"), Encoding::Gzip);
        assert_eq!(accepted_encoding("*"), Encoding::Zstd);
        assert_eq!(accepted_encoding("*, zstd;q=0"), Encoding::Gzip);
        for none in ["", "br", "identity", "gzip;q=0", "gzip;q=x"] {
            assert_eq!(accepted_encoding(none), Encoding::Identity, "{none}");
        }
    }

    #[test]
    fn the_media_type_that_is_preferred_most_and_known_is_sent() {
        let known = |name: &str| ["text/csv", "application/json"].into_iter().find(|known| *known == name);
        assert_eq!(preferred("text/html, text/csv;q=0.5", known), Some("text/csv"));
        assert_eq!(preferred("text/csv;q=0.5, application/json", known), Some("application/json"));
        assert_eq!(preferred("text/csv, application/json", known), Some("text/csv"));
        assert_eq!(preferred("text/csv;q=0, */*", known), None);
    }
}
