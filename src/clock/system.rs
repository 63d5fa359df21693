//! What this machine's kernel says of its clock: uptime, boot id, wall time, whether it is synchronised, and its steps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rtime_clock::adjtime::{Timex, adjtimex};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use uuid::Uuid;

use super::keeper::Sample;
use crate::reading::{BootId, Heard};

/// What adjtimex(2) returns while the clock is not synchronised (TIME_ERROR; the kernel derives it from STA_UNSYNC).
const TIME_ERROR: i32 = 5;

/// The clocks are read again, at most so often, while their readings lie further apart than this.
const SAMPLES: usize = 5;
const CLOSE_MS: u64 = 2;

/// No hour of this program's life is further away than this: the step timer never fires by itself.
const FAR_FUTURE_S: i64 = 1 << 40;

/// The id of this boot.
pub fn boot_id() -> io::Result<BootId> {
    #[cfg(feature = "failpoints")]
    if let Some(boot) = super::injected::now().and_then(|clock| clock.boot) {
        return Ok(boot);
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Uuid::parse_str(text.trim()).map(BootId).map_err(io::Error::other)
}

/// Milliseconds since this boot, suspended time included (CLOCK_BOOTTIME).
pub fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let uptime_ms = (now.tv_sec as u64) * 1_000 + (now.tv_nsec as u64) / 1_000_000;
    #[cfg(feature = "failpoints")]
    if let Some(clock) = super::injected::now() {
        return uptime_ms.saturating_add_signed(clock.uptime_ms);
    }
    uptime_ms
}

/// Now, as a reading's stamp.
pub fn heard_now(boot: BootId) -> Heard {
    match boot {
        BootId::WALL => Heard { boot, ms: wall_ms().max(0) as u64 },
        _ => Heard { boot, ms: uptime_ms() },
    }
}

/// The wall clock in Unix milliseconds, right or wrong.
pub fn wall_ms() -> i64 {
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    #[cfg(feature = "failpoints")]
    if let Some(clock) = super::injected::now() {
        return wall_ms.saturating_add(clock.wall_ms);
    }
    wall_ms
}

/// Uptime, wall clock and the kernel's word on it, taken together: where this process was halted between two of them,
/// they are taken again.
pub fn sample() -> Sample {
    let mut best = (u64::MAX, Sample { uptime_ms: 0, wall_ms: 0, synchronised: false });
    for _ in 0..SAMPLES {
        // A kernel that does not answer is taken as not synchronised: the cautious side. Asked first: a clock that is
        // synchronised between the two is seen the next time.
        let synchronised = adjtimex(&mut Timex::new()).is_ok_and(|state| state != TIME_ERROR);
        #[cfg(feature = "failpoints")]
        let synchronised = super::injected::now().map_or(synchronised, |clock| clock.synchronised);
        let (before, wall_ms, after) = (uptime_ms(), wall_ms(), uptime_ms());
        let apart = after.saturating_sub(before);
        if apart < best.0 {
            best = (apart, Sample { uptime_ms: before + apart / 2, wall_ms, synchronised });
        }
        if apart <= CLOSE_MS {
            break;
        }
    }
    best.1
}

/// Wakes when somebody steps the wall clock.
#[derive(Debug)]
pub struct StepWatch {
    timer: AsyncFd<OwnedFd>,
}

impl StepWatch {
    /// Arms a timer in the far future that the kernel cancels when the wall clock is set.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        arm(&timer)?;
        // Deprecated for types whose descriptor may change under the reactor; an OwnedFd's does not, and the successor is
        // an unsafe function, which this crate forbids.
        #[allow(deprecated)]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(StepWatch { timer })
    }

    /// Returns after the next step.
    pub async fn stepped(&mut self) -> io::Result<()> {
        #[cfg(feature = "failpoints")]
        if super::injected::now().is_some() {
            return super::injected::changed().await;
        }
        let mut ready = self.timer.readable_mut().await?;
        // ECANCELED tells of the step, and reading it clears the condition; arming again makes the next one seen.
        let _cancelled = rustix::io::read(ready.get_inner(), &mut [0u8; 8]);
        ready.clear_ready();
        arm(self.timer.get_ref())
    }
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: FAR_FUTURE_S, tv_nsec: 0 },
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
    Ok(())
}

/// The wall time of something heard in this boot, by the wall clock as it is now: for recordings and people, not for rows.
pub fn wall_of(boot: BootId, heard: Heard) -> u64 {
    match heard.boot {
        BootId::WALL => heard.ms,
        of if of == boot => (wall_ms().max(0) as u64).saturating_sub(uptime_ms().saturating_sub(heard.ms)),
        _ => heard.ms,
    }
}
