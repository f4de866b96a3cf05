//! Kafka: one local broker, or the external brokers in `KAFKA_BROKERS`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::types::RDKafkaErrorCode;
use uuid::Uuid;

use super::template::render;
use crate::paths::cache;
use crate::process::{Process, guard};

/// Longest wait from the start of the broker to its first answer, and longest wait for the storage tool to exit.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the broker to exit after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for the answer to one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the certificate's file in the directory of a local broker.
const CERTIFICATE: &str = "certificate.pem";

/// User and password of a local broker.
pub const LOGIN: (&str, &str) = ("millrace", "local");

/// Kafka brokers: a local one, or external ones. Devstack neither starts nor stops external brokers.
#[derive(Debug)]
pub struct Kafka {
    brokers: String,
    local: Option<Broker>,
}

/// A local broker.
#[derive(Debug)]
struct Broker {
    directory: PathBuf,
    port: u16,
    login_port: u16,
    process: Option<Process>,
}

/// The ports of a local broker on the loopback interface.
#[derive(Debug, Clone, Copy)]
pub struct KafkaPorts {
    /// For clients without a login.
    pub plain: u16,
    /// For clients that log in as [`LOGIN`] with SASL/PLAIN over TLS.
    pub login: u16,
    /// For the broker's own controller.
    pub controller: u16,
}

impl Kafka {
    /// External brokers at these addresses.
    pub fn external(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), local: None }
    }

    /// A local broker, not yet started, with its data in `directory` and these ports.
    pub fn prepare(directory: PathBuf, ports: KafkaPorts) -> anyhow::Result<Self> {
        let KafkaPorts { plain: port, login, controller } = ports;
        let path = directory.to_str().context("read the data directory's path as UTF-8")?;
        let values = [
            ("port", port.to_string()),
            ("login_port", login.to_string()),
            ("login_user", LOGIN.0.to_owned()),
            ("login_password", LOGIN.1.to_owned()),
            ("controller_port", controller.to_string()),
            ("directory", path.to_owned()),
        ];
        let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
        render(
            include_str!("../../config/server.properties"),
            &values,
            &directory.join("server.properties"),
        )?;
        render(include_str!("../../config/log4j2.properties"), &[], &directory.join("log4j2.properties"))?;
        write_certificate(&directory)?;
        let local = Broker { directory, port, login_port: login, process: None };
        Ok(Self { brokers: format!("127.0.0.1:{port}"), local: Some(local) })
    }

    /// `host:port`, comma-separated, for `KAFKA_BROKERS`. It is known even while the broker is down.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The address of a local broker for clients that log in as [`LOGIN`] over TLS, and the certificate to trust.
    pub fn brokers_with_login(&self) -> anyhow::Result<(String, PathBuf)> {
        let local = self.local.as_ref().context("find the local broker: the brokers are external")?;
        Ok((format!("127.0.0.1:{}", local.login_port), local.directory.join(CERTIFICATE)))
    }

    /// Starts a local broker and waits until it answers. After a stop, the broker starts with the same ports and data
    /// again. External brokers must already answer.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let admin = self.admin()?;
        match &mut self.local {
            Some(broker) => broker.start(&admin).await,
            None => {
                ensure!(answers(&admin).await, "reach Kafka at {} (KAFKA_BROKERS): no answer", self.brokers);
                Ok(())
            }
        }
    }

    /// Stops a local broker cleanly. Does nothing for external brokers.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let running = self.local.as_mut().and_then(|broker| broker.process.take());
        match running {
            Some(mut process) => process.terminate(STOP_DEADLINE).await.map(drop),
            None => Ok(()),
        }
    }

    /// Kills a local broker with SIGKILL.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process()?.kill9();
        Ok(())
    }

    /// The process that [`Self::start`] started, for its id, its log or a signal to it. Returns an error before a
    /// start, after [`Self::stop`], and for external brokers.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        let running = self.local.as_mut().and_then(|broker| broker.process.as_mut());
        running.context("find the local broker: none is running")
    }

    /// A client for topics, groups and settings.
    pub fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        self.client_config().create().context("make a Kafka admin client")
    }

    /// Settings of a client of these brokers; the caller adds those of a producer or a consumer.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Makes a client reconnect to a restarted broker within 200 ms, instead of after up to 10 s.
        config.set("bootstrap.servers", &self.brokers).set("reconnect.backoff.max.ms", "200");
        config
    }

    /// The log end offset of each partition of a topic, in the order of the partitions. The log end offset is the
    /// offset that the next record gets. Blocks until the broker has answered, or until a request times out.
    pub fn log_ends(&self, topic: &str) -> anyhow::Result<Vec<u64>> {
        let admin = self.admin()?;
        let client = admin.inner();
        let found = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let found = found.with_context(|| format!("look up topic `{topic}`"))?;
        let partitions = found.topics().iter().flat_map(MetadataTopic::partitions);
        let mut partitions: Vec<_> = partitions.map(MetadataPartition::id).collect();
        partitions.sort_unstable();
        let end = |partition: i32| {
            let (_, end) = client.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
            Ok(u64::try_from(end)?)
        };
        let ends: anyhow::Result<_> = partitions.into_iter().map(end).collect();
        ends.with_context(|| format!("read the log end offsets of `{topic}`"))
    }

    /// Creates a topic with one replica and, as `stream-agg migrate` does, with timestamps from the broker. Does
    /// nothing if the topic exists.
    pub async fn create_topic(&self, name: &str, partitions: u16) -> anyhow::Result<()> {
        let topic = NewTopic::new(name, i32::from(partitions), TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime");
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let made = self.admin()?.create_topics([&topic], &options).await;
        let results = made.with_context(|| format!("create topic `{name}`"))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => bail!("create topic `{name}`: {code}"),
            None => bail!("create topic `{name}`: the broker answered without a result"),
        }
    }

    /// Raises the number of a topic's partitions to `partitions`.
    pub async fn add_partitions(&self, name: &str, partitions: u16) -> anyhow::Result<()> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let more = NewPartitions::new(name, usize::from(partitions));
        let made = self.admin()?.create_partitions([&more], &options).await;
        let results = made.with_context(|| format!("add partitions to topic `{name}`"))?;
        match results.into_iter().next() {
            Some(Err((_, code))) => bail!("add partitions to topic `{name}`: {code}"),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

impl Broker {
    async fn start(&mut self, admin: &AdminClient<DefaultClientContext>) -> anyhow::Result<()> {
        ensure!(
            self.process.as_mut().is_none_or(|p| p.exited().is_some()),
            "start Kafka: it is already running"
        );
        let jars = cache::kafka_jars()?;
        if !self.directory.join("data/meta.properties").exists() {
            self.format(&jars).await?;
        }
        let mut command = self.java(&jars, &["-Xmx512m", "-XX:+UseSerialGC"])?;
        command.arg("kafka.Kafka").arg(self.directory.join("server.properties"));
        let process = Process::start("Kafka", command, &self.directory.join("kafka.log"))?;
        // The child is stored in `self` before the wait. Otherwise, a cancelled wait would drop the child, and thereby
        // kill it, so that `stop` could not stop it cleanly.
        let process = self.process.insert(process);
        let what = format!("answer on port {}", self.port);
        process.wait_until(&what, START_DEADLINE, async || answers(admin).await).await?;
        Ok(())
    }

    /// Formats an empty data directory, because Kafka does not start on a directory without a cluster id.
    async fn format(&self, jars: &Path) -> anyhow::Result<()> {
        let mut command = self.java(jars, &["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])?;
        let id = Uuid::new_v4().to_string();
        command.args(["kafka.tools.StorageTool", "format", "--cluster-id", &id, "--config"]);
        command.arg(self.directory.join("server.properties"));
        let mut process =
            Process::start("Kafka's storage tool", command, &self.directory.join("format.log"))?;
        let status = process.wait_for_exit(START_DEADLINE).await?;
        ensure!(status.success(), "format Kafka's data directory: {status}; {}", process.log_tail());
        Ok(())
    }

    fn java(&self, jars: &Path, options: &[&str]) -> anyhow::Result<Command> {
        let mut command = guard::command(Path::new("java"))?;
        let property = |name: &str, value: &Path| {
            let mut argument = OsString::from(name);
            argument.push(value);
            argument
        };
        command
            .args(options)
            .arg(property("-Dlog4j2.configurationFile=", &self.directory.join("log4j2.properties")))
            .arg(property("-Djava.io.tmpdir=", &self.temporary()?))
            .arg("-cp")
            .arg(jars.join("*"));
        Ok(command)
    }

    /// Empties the directory for Kafka's temporary files and returns its path. The compression libraries unpack files
    /// into the directory at each start, and a killed process does not remove its files.
    fn temporary(&self) -> anyhow::Result<PathBuf> {
        let temporary = self.directory.join("tmp");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&temporary),
        }
        .with_context(|| format!("empty {}", temporary.display()))?;
        Ok(temporary)
    }
}

/// Writes a new certificate and key for a broker.
fn write_certificate(directory: &Path) -> anyhow::Result<()> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([String::from("127.0.0.1")])
            .context("make Kafka's certificate")?;
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    write(CERTIFICATE, cert.pem())?;
    // Kafka reads the key and the certificate from one file.
    write("identity.pem", signing_key.serialize_pem() + &cert.pem())
}

/// Whether a broker answers a metadata request.
async fn answers(admin: &AdminClient<DefaultClientContext>) -> bool {
    let client = admin.inner();
    // This call blocks its thread for at most 250 ms, which is harmless while a stack starts. A caller that does other
    // work at the same time starts Kafka on a thread of its own.
    client.fetch_metadata(None, Duration::from_millis(250)).is_ok_and(|found| !found.brokers().is_empty())
}
