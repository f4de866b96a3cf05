//! Detects that `CLICKHOUSE_URL` leads to more than one ClickHouse server.
//!
//! Markers show only what is stored on the server that has them. An address may lead to several servers, for example
//! through a host name with several addresses or a load balancer, and the markers of one server prove nothing about
//! another. So each query that returns [`Markers`](crate::apply::markers::Markers) also reads the id of the server
//! (`serverUUID()`, which ClickHouse keeps in a file next to its data), and the condition of each insert contains this
//! id.
//!
//! Invariant: once a process has seen a second server, it runs no more statements through
//! [`Store`](crate::apply::store::Store), and it stops. An insert that it still sends can store rows only on the first
//! server, because the condition of the insert contains the id of that server.

use std::sync::OnceLock;

use tokio::sync::SetOnce;

/// The address leads to more than one server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "clickhouse answered as server `{first}` and later as server `{other}`: CLICKHOUSE_URL must lead to one server, \
     for example to a pod and not to a service in front of several pods; if the server was replaced, restart the \
     aggregator"
)]
pub struct AnotherServer {
    /// The id of the server that answered first.
    pub first: String,
    /// The id of a server that answered later.
    pub other: String,
}

/// The servers that have answered.
#[derive(Debug, Default)]
pub struct Servers {
    first: OnceLock<String>,
    several: SetOnce<AnotherServer>,
}

impl Servers {
    /// Records the id of a server that has answered.
    ///
    /// # Errors
    /// More than one server has answered.
    pub fn answered(&self, id: &str) -> Result<(), AnotherServer> {
        let first = self.first.get_or_init(|| id.to_owned());
        if first != id {
            // `set` fails if a second server is recorded already. It is enough to record one.
            let _known = self.several.set(AnotherServer { first: first.clone(), other: id.to_owned() });
        }
        self.check()
    }

    /// Checks that only one server has answered.
    ///
    /// # Errors
    /// More than one server has answered.
    pub fn check(&self) -> Result<(), AnotherServer> {
        self.several.get().map_or(Ok(()), |several| Err(several.clone()))
    }

    /// The id of the server that answered first; `None` before any answer.
    pub fn first(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }

    /// Returns once a second server has answered.
    pub async fn wait_for_second(&self) -> AnotherServer {
        self.several.wait().await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_an_error_even_if_the_first_answers_again() {
        let servers = Servers::default();
        assert_eq!((servers.answered("a"), servers.answered("a"), servers.check()), (Ok(()), Ok(()), Ok(())));
        let several = AnotherServer { first: "a".to_owned(), other: "b".to_owned() };
        assert_eq!(servers.answered("b"), Err(several.clone()));
        assert_eq!((servers.answered("a"), servers.check()), (Err(several.clone()), Err(several.clone())));
        assert_eq!(servers.first(), Some("a"));
        assert!(
            several.to_string().starts_with("clickhouse answered as server `a` and later as server `b`: ")
        );
    }
}
