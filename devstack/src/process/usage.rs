//! CPU time and memory of a process. On a noisy machine, they vary less than elapsed time does.

use std::fs;

use anyhow::Context;

/// User and system CPU seconds that all threads of process `pid` have used so far.
///
/// The source is `/proc/<pid>/stat`, whose fields 14 and 15 count clock ticks (proc(5)).
pub fn seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The second field is the name of the program in parentheses. The name may contain spaces and parentheses, but no
    // later field has a parenthesis, so the last `)` ends the name.
    let after_name = stat.rsplit_once(')').with_context(|| format!("find the program's name in {path}"))?.1;
    let mut fields = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let mut ticks =
        || fields.next().and_then(Result::ok).with_context(|| format!("read the times in {path}"));
    Ok((ticks()? + ticks()?) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Peak resident memory of process `pid` in MiB: `VmHWM` of `/proc/<pid>/status`.
pub fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .with_context(|| format!("find VmHWM in {path}"))?;
    let kib: f64 =
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("read VmHWM in {path}"))?;
    Ok(kib / 1024.0)
}
