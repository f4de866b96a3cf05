//! Which ClickHouse server answers.
//!
//! Markers tell what is stored on the server that has them. Where the address leads to several servers, as a name with
//! several addresses or a balancer does, the markers of one say nothing about another. So each look at markers also reads
//! the id of the server (`serverUUID()`, a file beside its data), and inserts have it in their condition.
//!
//! Invariant: a process that has seen a second server asks and inserts nothing more.

use std::sync::OnceLock;

use tokio::sync::SetOnce;

/// The address leads to more than one server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "clickhouse is server `{first}` and also server `{other}`: CLICKHOUSE_URL must lead to one server, for example to \
     the pod and not to a service over several; if the server was replaced, start the aggregator again"
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
    /// Notes which server has answered.
    ///
    /// # Errors
    /// It is not the one that answered first.
    pub fn answered(&self, id: &str) -> Result<(), AnotherServer> {
        let first = self.first.get_or_init(|| id.to_owned());
        if first != id {
            // A third server changes nothing.
            let _known = self.several.set(AnotherServer { first: first.clone(), other: id.to_owned() });
        }
        self.check()
    }

    /// Whether only one server has answered.
    ///
    /// # Errors
    /// Another one has, too.
    pub fn check(&self) -> Result<(), AnotherServer> {
        self.several.get().map_or(Ok(()), |several| Err(several.clone()))
    }

    /// The id of the server that answered first; `None` before any answer.
    pub fn first(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }

    /// Returns once a second server has answered.
    pub async fn several(&self) -> AnotherServer {
        self.several.wait().await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_ends_the_work_although_the_first_answers_again() {
        let servers = Servers::default();
        assert_eq!((servers.answered("a"), servers.answered("a"), servers.check()), (Ok(()), Ok(()), Ok(())));
        let several = AnotherServer { first: "a".to_owned(), other: "b".to_owned() };
        assert_eq!(servers.answered("b"), Err(several.clone()));
        assert_eq!((servers.answered("a"), servers.check()), (Err(several.clone()), Err(several.clone())));
        assert_eq!(servers.first(), Some("a"));
        assert!(several.to_string().starts_with("clickhouse is server `a` and also server `b`: "));
    }
}
