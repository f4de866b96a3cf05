//! What a configuration needs from the machine and from the network, for `--check-config`: memory, time to stop, ports,
//! and the addresses of other servers. Each service computes its needs from the constants and limits that its code
//! uses.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use serde_json::{Map, Value, json};

use crate::vars::VarError;

/// What a service needs with one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Each use of memory, with its maximum in bytes.
    pub memory: Vec<(&'static str, usize)>,
    /// The steps of a stop, in order, with the longest time of each.
    pub stop: Vec<(&'static str, Duration)>,
    /// The addresses on which the service listens, with their variables.
    pub listens: Vec<(&'static str, SocketAddr)>,
    /// The servers to which the service connects.
    pub connects: Vec<Address>,
}

/// An address of another server, from a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name of the variable.
    pub variable: &'static str,
    /// A name or an IP address; an IPv6 address is in brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// The address in a URL `http://host:port`; the port is 80 if the URL has none.
    ///
    /// # Errors
    /// The URL does not begin with `http://` and a host. `https` is not accepted, because our HTTP clients do not use
    /// TLS.
    pub fn of_url(variable: &'static str, url: &str) -> Result<Self, VarError> {
        let parsed = url.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
        let host = parsed.as_ref().and_then(Uri::host).filter(|host| !host.is_empty());
        match (host, &parsed) {
            (Some(host), Some(uri)) => {
                Ok(Self { variable, host: host.to_owned(), port: uri.port_u16().unwrap_or(80) })
            }
            _ => Err(VarError::Invalid {
                name: variable,
                value: url.to_owned(),
                reason: "write `http://host:port`".to_owned(),
            }),
        }
    }

    /// The addresses in a list `host:port,host:port`. An address without a port gets `default_port`; a protocol before
    /// an address, as in `SASL_SSL://host:port`, is left out.
    ///
    /// # Errors
    /// The list has another form.
    pub fn of_list(variable: &'static str, list: &str, default_port: u16) -> Result<Vec<Self>, VarError> {
        let one = |text: &str| {
            let (_, text) = text.split_once("://").unwrap_or(("", text));
            // An IPv6 address has colons and is written in brackets. If the text after the last colon ends with `]`,
            // this text is the end of an IPv6 address and not a port.
            let (host, port) = match text.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
                _ => (text, default_port),
            };
            let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
            is_host.then(|| Self { variable, host: host.to_owned(), port })
        };
        let all: Option<Vec<_>> = list.split(',').map(str::trim).map(one).collect();
        all.ok_or_else(|| VarError::Invalid {
            name: variable,
            value: list.to_owned(),
            reason: "write `host:port`, separated by commas".to_owned(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Needs {
    /// The maximum memory in bytes: the sum of all uses.
    pub fn memory_bytes(&self) -> usize {
        self.memory.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The longest time from the first SIGTERM to the end of the process.
    pub fn longest_stop(&self) -> Duration {
        self.stop.iter().map(|(_, time)| *time).sum()
    }

    /// A table for people that shows these needs, and `variables`: the name and the resolved value of each variable.
    pub fn table(&self, variables: &[(String, String)]) -> String {
        let duration = |time| humantime::format_duration(time).to_string();
        let mib = |bytes: usize| format!("{} MiB", bytes.div_ceil(1 << 20));
        let mut rows = Vec::new();
        rows.extend(self.memory.iter().map(|(what, bytes)| ("memory", (*what).to_owned(), mib(*bytes))));
        rows.push(("memory", "together".to_owned(), mib(self.memory_bytes())));
        rows.extend(self.stop.iter().map(|(what, time)| ("stop", (*what).to_owned(), duration(*time))));
        rows.push(("stop", "longest".to_owned(), duration(self.longest_stop())));
        rows.extend(self.listens.iter().map(|(name, at)| ("listens", (*name).to_owned(), at.to_string())));
        rows.extend(self.connects.iter().map(|at| ("connects", at.variable.to_owned(), at.to_string())));
        rows.extend(variables.iter().map(|(name, value)| ("variable", name.clone(), value.clone())));
        let width = rows.iter().map(|(_, what, _)| what.chars().count()).max().unwrap_or_default();
        rows.into_iter().fold(String::new(), |mut page, (kind, what, value)| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                page,
                "{kind:8}  {what:width$}  {}",
                if value.is_empty() { "(none)" } else { &value }
            );
            page
        })
    }

    /// The values of [`Needs::table`] as JSON, for programs.
    pub fn json(&self, variables: &[(String, String)]) -> Value {
        let listens = |(variable, at): &(&str, SocketAddr)| json!({ "variable": variable, "host": at.ip(), "port": at.port() });
        let connects = |Address { variable, host, port }: &Address| json!({ "variable": variable, "host": host, "port": port });
        let memory: Map<_, _> =
            self.memory.iter().map(|(what, bytes)| ((*what).to_owned(), json!(bytes))).collect();
        let stop: Map<_, _> =
            self.stop.iter().map(|(what, time)| ((*what).to_owned(), json!(time.as_secs_f64()))).collect();
        json!({
            "memory_bytes": self.memory_bytes(),
            "memory": memory,
            "longest_stop_seconds": self.longest_stop().as_secs_f64(),
            "stop": stop,
            "listens": self.listens.iter().map(listens).collect::<Vec<_>>(),
            "connects": self.connects.iter().map(connects).collect::<Vec<_>>(),
            "variables": variables.iter().cloned().map(|(name, value)| (name, json!(value))).collect::<Map<_, _>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            memory: vec![("bodies", 3 << 20), ("a cache", 1 << 20)],
            stop: vec![
                ("DRAIN_DELAY", Duration::from_millis(1500)),
                ("open requests", Duration::from_secs(10)),
            ],
            listens: vec![("LISTEN_ADDR", "[::]:80".parse().unwrap())],
            connects: Address::of_list("BROKERS", "k", 9092).unwrap(),
        }
    }

    #[test]
    fn the_table_is_aligned_and_has_the_sums() {
        let table = needs()
            .table(&[("TOPIC", "events"), ("SPOOL", "")].map(|(name, value)| (name.into(), value.into())));
        let expected = "\
memory    bodies         3 MiB
memory    a cache        1 MiB
memory    together       4 MiB
stop      DRAIN_DELAY    1s 500ms
stop      open requests  10s
stop      longest        11s 500ms
listens   LISTEN_ADDR    [::]:80
connects  BROKERS        k:9092
variable  TOPIC          events
variable  SPOOL          (none)
";
        assert_eq!(table, expected);
    }

    #[test]
    fn the_json_has_the_same_values_as_the_table() {
        let page = needs().json(&[("TOPIC".to_owned(), "events".to_owned())]);
        assert_eq!(page["memory_bytes"], 4 << 20);
        assert_eq!(page["memory"]["a cache"], 1 << 20);
        assert_eq!(page["longest_stop_seconds"], 11.5);
        assert_eq!(page["stop"]["open requests"], 10.0);
        assert_eq!(page["listens"], json!([{ "variable": "LISTEN_ADDR", "host": "::", "port": 80 }]));
        assert_eq!(page["connects"], json!([{ "variable": "BROKERS", "host": "k", "port": 9092 }]));
        assert_eq!(page["variables"], json!({ "TOPIC": "events" }));
    }

    #[test]
    fn a_url_that_our_http_clients_cannot_use_is_refused_by_name() {
        let url =
            |text| Address::of_url("URL", text).map(|at| at.to_string()).map_err(|error| error.to_string());
        assert_eq!(url("http://c:8123"), Ok("c:8123".to_owned()));
        assert_eq!(url("http://[::1]:8123/"), Ok("[::1]:8123".to_owned()));
        assert_eq!(url("http://c"), Ok("c:80".to_owned()));
        for wrong in ["c:8123", "https://c", "http://", "/c", ""] {
            let expected = format!("variable URL=`{wrong}` is not usable: write `http://host:port`");
            assert_eq!(url(wrong), Err(expected));
        }
    }

    #[test]
    fn a_list_has_an_address_for_each_server() {
        let list = |text| {
            let all = Address::of_list("LIST", text, 9092).map_err(|error| error.to_string())?;
            Ok::<_, String>(all.iter().map(Address::to_string).collect::<Vec<_>>())
        };
        assert_eq!(list("a:1, b").unwrap(), ["a:1", "b:9092"]);
        assert_eq!(list("SASL_SSL://a:1,[::1]:2,[::1]").unwrap(), ["a:1", "[::1]:2", "[::1]:9092"]);
        for wrong in ["", "a:1,", "a:b", "a:99999", "a b:1", ":1"] {
            assert!(list(wrong).unwrap_err().ends_with("write `host:port`, separated by commas"), "{wrong}");
        }
    }
}
