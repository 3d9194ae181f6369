//! What a process uses, as the kernel counts it.

use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::error::Error;

/// Processor time of a process and all threads that it ever had, seconds. Finer than the ticks of /proc: a hundred reports
/// a second are less than one.
pub fn processor_seconds(pid: i32) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let time = clock_gettime(clock_getcpuclockid(Pid::from_raw(pid))?)?;
    Ok(time.num_nanoseconds() as f64 / 1e9)
}

/// Memory of a process that is not swapped out, KiB.
#[allow(dead_code)] // one of the two programs does not ask
pub fn resident_kib(pid: i32) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(resident.trim().trim_end_matches(" kB").parse()?)
}
