//! A tool's own time limit. `SET statement_timeout` inside a running statement changes nothing, so the
//! statement's timer itself is armed for the tool and put back after it.

// utils/timeout.h: not in pgrx's bindings. The first four ids are the same in PostgreSQL 15 to 18.
const STATEMENT_TIMEOUT: std::ffi::c_uint = 3;

extern "C-unwind" {
    fn enable_timeout_after(id: std::ffi::c_uint, delay_ms: std::ffi::c_int);
    fn disable_timeout(id: std::ffi::c_uint, keep_indicator: bool);
    fn get_timeout_active(id: std::ffi::c_uint) -> bool;
    fn get_timeout_finish_time(id: std::ffi::c_uint) -> i64;
}

/// The statement's timer as it was, to be put back.
pub struct Timer {
    earlier: Option<i64>,
    armed: bool,
}

impl Timer {
    /// Arm for `limit_ms` unless the statement's own limit comes sooner; 0 = no limit of the tool's.
    pub fn arm(limit_ms: i32) -> Timer {
        // SAFETY: STATEMENT_TIMEOUT is registered in every backend before SQL runs, and this is the
        // backend's only thread.
        unsafe {
            let earlier = get_timeout_active(STATEMENT_TIMEOUT)
                .then(|| get_timeout_finish_time(STATEMENT_TIMEOUT));
            let sooner = earlier.is_some_and(|end| remaining_ms(end) <= limit_ms);
            let armed = limit_ms > 0 && !sooner;
            if armed {
                enable_timeout_after(STATEMENT_TIMEOUT, limit_ms);
            }
            Timer { earlier, armed }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // SAFETY: as above.
        unsafe {
            match self.earlier {
                Some(end) => enable_timeout_after(STATEMENT_TIMEOUT, remaining_ms(end)),
                None => disable_timeout(STATEMENT_TIMEOUT, false),
            }
        }
    }
}

fn remaining_ms(end: i64) -> i32 {
    // SAFETY: reads the clock.
    let now = unsafe { pgrx::pg_sys::GetCurrentTimestamp() };
    ((end - now) / 1000).clamp(1, i64::from(i32::MAX)) as i32
}
