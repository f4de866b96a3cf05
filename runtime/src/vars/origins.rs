//! Origins of web pages, in a variable such as `CORS_ORIGINS`.

use http::HeaderValue;

use super::VarError;

/// The origins in `text`, the value of the variable `name`. They are separated by commas.
///
/// # Errors
/// One of them is not written as browsers write origins, so no request would ever match it.
pub fn origins(name: &'static str, text: &str) -> Result<Vec<HeaderValue>, VarError> {
    let invalid = |reason| VarError::Invalid { name, value: text.to_owned(), reason };
    text.split(',').map(str::trim).map(origin).collect::<Result<_, _>>().map_err(invalid)
}

/// Checks that `text` is written as a browser writes an origin: scheme, host, and a port unless it is the default one.
/// The scheme may be that of an app, such as `capacitor://localhost`.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        !host.is_empty()
            && !host.contains(['/', '*', '?', '#', '@', ' '])
            && (default_port.is_empty() || !host.ends_with(default_port))
            && text == text.to_ascii_lowercase()
    });
    HeaderValue::from_str(text).ok().filter(|_| is_origin).ok_or_else(|| {
        format!(
            "`{text}` is not an origin as browsers send it; write for example `https://example.com`, or only `*`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_no_browser_sends_is_refused() {
        let good = "https://a.example, http://localhost:3000, https://a.example:80, capacitor://localhost";
        assert_eq!(origins("X", good).unwrap().len(), 4);
        for bad in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.example#b",
            "https://user@a.example",
            "https://*.example",
            "*,https://a.example",
            "https://A.example",
            "HTTPS://a.example",
            "https://a.example:443",
            "http://a.example:80",
        ] {
            assert!(origins("X", bad).unwrap_err().to_string().contains("is not an origin"), "{bad}");
        }
    }
}
