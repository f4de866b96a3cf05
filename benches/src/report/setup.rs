//! The machine, the date and the command of a run, so that its figures can be judged later.

use std::process::Command;
use std::time::SystemTime;
use std::{env, fs, thread};

use schemas::time::UnixMillis;

/// The page that is kept with the figures of this run.
///
/// The processor, the memory or the commit is `unknown` if it cannot be read.
pub fn page() -> String {
    let day = UnixMillis::from(SystemTime::now()).to_string()[..10].to_owned();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name");
    let memory = field("/proc/meminfo", "MemTotal");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let arguments: Vec<_> = env::args().skip(1).collect();
    format!(
        "# How this run was made\n\n\
         - date: {day}\n\
         - machine: {cores} cores of {model}, {memory} of memory; the load generator, Kafka, ClickHouse and\n  \
         the measured process share them\n\
         - load average of the minute before: {load}\n\
         - commit: {}\n\
         - command: `./dev bench {}`\n",
        commit(),
        arguments.join(" "),
    )
}

fn commit() -> String {
    let describe = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output();
    let text = describe.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    or_unknown(text.trim())
}

/// The value in the first line that begins with `name`, in a file of `/proc`.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    or_unknown(line.map_or("", |(_, value)| value.trim()))
}

fn or_unknown(text: &str) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
}
