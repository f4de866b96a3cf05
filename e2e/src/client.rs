//! A plain HTTP client for the ports of a service.

use std::time::Duration;

use serde_json::Value;

/// A client for one port of a service.
pub struct Http {
    base: String,
    client: reqwest::Client,
}

/// The answer to a request, with its whole body.
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub text: String,
}

impl HttpResponse {
    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The code of a problem document.
    ///
    /// # Panics
    /// If the answer does not have the form that all errors have: a problem document with all its members and headers.
    #[track_caller]
    pub fn problem(&self) -> String {
        let problem = self.json();
        let text = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(problem["status"], self.status, "{}", self.text);
        assert_eq!(text("type"), format!("/problems/{}", text("code")), "{}", self.text);
        for member in ["code", "title", "detail", "hint"] {
            assert!(!text(member).is_empty(), "{member} of {}", self.text);
        }
        assert_eq!(text("request_id"), self.header("x-request-id"), "{}", self.text);
        assert!(!self.header("x-request-id").is_empty());
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(
            self.status == 503 || self.status == 429,
            !self.header("retry-after").is_empty(),
            "{}",
            self.text
        );
        text("code")
    }

    /// The text of a header; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Http {
    /// A client for `base`: `http://…` without a slash at the end.
    pub fn new(base: String) -> Self {
        Self { base, client: reqwest::Client::new() }
    }

    /// A client whose requests fail if they take longer than `timeout`.
    pub fn with_timeout(base: String, timeout: Duration) -> Self {
        Self { base, client: reqwest::Client::builder().timeout(timeout).build().unwrap() }
    }

    /// The part of the address before the path: `http://…`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request and reads the answer. Panics if there is no answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> HttpResponse {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    /// Like [`Http::send`], but returns an error if there is no answer.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> reqwest::Result<HttpResponse> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.base)).body(body.into());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(HttpResponse { status, headers, text: answer.text().await? })
    }

    /// The sum of a metric over all labels; `None` if the service does not answer or has no such metric.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        metric_in(&self.try_send("GET", "/metrics", &[], "").await.ok()?.text, name)
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> HttpResponse {
        self.send("GET", path, &[], "").await
    }

    /// Sends a POST request without a body.
    pub async fn post(&self, path: &str) -> HttpResponse {
        self.send("POST", path, &[], "").await
    }

    /// Posts lines as NDJSON to `/v1/events`.
    pub async fn post_lines(&self, lines: &[String]) -> HttpResponse {
        let body = lines.join("\n");
        self.send("POST", "/v1/events", &[("content-type", "application/x-ndjson")], body).await
    }
}

/// The sum of a metric over all labels on a metrics page; `None` if the page does not have the metric.
pub(crate) fn metric_in(page: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.rsplit_once(' ').map_or(0.0, |(_, value)| value.parse::<f64>().unwrap());
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    page.lines().filter(of_name).map(value).reduce(|sum, value| sum + value).map(|sum| sum as u64)
}
