//! Kafka and ClickHouse for one test, with a special settings profile for the ClickHouse user that inserts.

use std::fmt::Write as _;
use std::fs;

use devstack::Stack;
use devstack::clickhouse::LOCAL_PASSWORD;

use crate::world::World;

/// The variables with which a service logs in as the user that inserts.
pub const LOADER: [(&str, &str); 2] =
    [("CLICKHOUSE_USER", "loader"), ("CLICKHOUSE_PASSWORD", LOCAL_PASSWORD)];

/// Running servers with a settings profile, and a migrated world on them.
pub struct Profiled {
    /// The servers.
    pub stack: Stack,
    /// The world.
    pub world: World,
}

impl Profiled {
    /// Servers on which the user of [`LOADER`] has the settings profile `defaults`. A request may override a setting.
    pub async fn new(name: &'static str, defaults: &[(&str, &str)]) -> Self {
        let mut stack = Stack::for_test(name).unwrap();
        write_profile(&stack, defaults);
        stack.start().await.unwrap();
        let world = World::unmigrated(name, stack.kafka.brokers(), stack.clickhouse.url());
        world.migrate().await;
        Self { stack, world }
    }
}

/// Writes the profile into the users file, which ClickHouse reads when it starts.
fn write_profile(stack: &Stack, defaults: &[(&str, &str)]) {
    let path = stack.directory.path().join("clickhouse/users.xml");
    let users = fs::read_to_string(&path).unwrap();
    let mut profile = String::from("<profiles><of_loader>");
    for (name, value) in defaults {
        write!(profile, "<{name}>{value}</{name}>").unwrap();
    }
    profile.push_str("</of_loader>");
    assert!(users.contains("<profiles>") && users.contains("<loader>"), "{users}");
    let users = users.replacen("<profiles>", &profile, 1);
    fs::write(path, users.replacen("<loader>", "<loader><profile>of_loader</profile>", 1)).unwrap();
}
