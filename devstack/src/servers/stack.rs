//! Kafka and ClickHouse together, with one data directory.

use anyhow::Context;
use runtime::vars::Vars;

use super::clickhouse::ClickHouse;
use super::kafka::{Kafka, KafkaPorts};
use crate::paths::DataDirectory;
use crate::ports;

/// The servers to use instead of local ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalServers {
    /// `host:port`, comma-separated: `KAFKA_BROKERS`.
    pub kafka: Option<String>,
    /// An HTTP address: `CLICKHOUSE_URL`.
    pub clickhouse: Option<String>,
}

impl ExternalServers {
    /// Reads `KAFKA_BROKERS` and `CLICKHOUSE_URL`.
    pub fn from_vars(vars: &Vars) -> Self {
        let given = |name| Some(vars.string_or(name, "")).filter(|value| !value.is_empty());
        Self { kafka: given("KAFKA_BROKERS"), clickhouse: given("CLICKHOUSE_URL") }
    }
}

/// The ports of local servers.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    kafka: KafkaPorts,
    clickhouse_http: u16,
    clickhouse_native: u16,
}

impl Ports {
    /// The usual ports (19092 to 19094, 18123 and 19000); for a port that is taken, the next free one.
    pub fn preferred() -> anyhow::Result<Self> {
        let from = |port| ports::from(port).with_context(|| format!("find a free port from {port} on"));
        Ok(Self {
            kafka: KafkaPorts { plain: from(19092)?, controller: from(19093)?, login: from(19094)? },
            clickhouse_http: from(18123)?,
            clickhouse_native: from(19000)?,
        })
    }

    /// Any free ports.
    pub fn free() -> anyhow::Result<Self> {
        let free = || ports::free().context("find a free port");
        Ok(Self {
            kafka: KafkaPorts { plain: free()?, controller: free()?, login: free()? },
            clickhouse_http: free()?,
            clickhouse_native: free()?,
        })
    }
}

/// Kafka and ClickHouse, each local or external, and a data directory that no other stack uses. Local servers keep
/// their data there.
#[derive(Debug)]
pub struct Stack {
    /// The Kafka brokers.
    pub kafka: Kafka,
    /// The ClickHouse server.
    pub clickhouse: ClickHouse,
    /// The directory for data and logs.
    pub directory: DataDirectory,
}

impl Stack {
    /// Kafka and ClickHouse with their addresses, not yet started. [`Stack::start`] starts both; a test may start each
    /// on its own.
    pub fn prepare(directory: DataDirectory, ports: Ports, given: &ExternalServers) -> anyhow::Result<Self> {
        let kafka = match &given.kafka {
            Some(brokers) => Kafka::external(brokers),
            None => Kafka::prepare(directory.subdirectory("kafka")?, ports.kafka)?,
        };
        let clickhouse = match &given.clickhouse {
            Some(url) => ClickHouse::external(url),
            None => {
                let home = directory.subdirectory("clickhouse")?;
                ClickHouse::prepare(home, ports.clickhouse_http, ports.clickhouse_native)?
            }
        };
        Ok(Self { kafka, clickhouse, directory })
    }

    /// A stack of local servers for the test `name`: empty, on free ports, not yet started.
    pub fn for_test(name: &str) -> anyhow::Result<Self> {
        Self::prepare(DataDirectory::for_test(name)?, Ports::free()?, &ExternalServers::default())
    }

    /// Starts Kafka and ClickHouse, and waits until they answer.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        tokio::try_join!(self.clickhouse.start(), self.kafka.start())?;
        Ok(())
    }

    /// Stops ClickHouse and then Kafka cleanly. The services must have stopped before this call, so that nothing writes
    /// to ClickHouse.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let clickhouse = self.clickhouse.stop().await;
        self.kafka.stop().await?;
        clickhouse
    }
}
