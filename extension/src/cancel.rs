//! A call that is being cancelled is not cancelled again: its end has to reach the trail. Before PostgreSQL 17 the server sends a cancel request's
//! signal twice, and on a busy machine the second comes when the first has been dealt with.

use crate::context::current_call;
use pgrx::callbacks::{register_xact_callback, PgXactCallbackEvent};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// From here on a cancel waits for the end of the transaction, or of the call where more follows it. Only the dispatcher's own code may ask for it:
/// as the owner, or inside a call. A terminate is obeyed as ever.
#[pg_extern]
fn hold_cancel() {
    // SAFETY: reads this backend's own state and the role cache.
    let owner =
        unsafe { pg_sys::GetUserId() == pg_sys::get_role_oid(c"odin_owner".as_ptr(), true) };
    if !(owner || current_call().is_some()) {
        return;
    }
    // SAFETY: this backend's own counter. Every error sets it to zero, that of a tool which came too late among them: then it is held anew.
    unsafe {
        if pg_sys::QueryCancelHoldoffCount == 0 {
            pg_sys::QueryCancelHoldoffCount = 1;
        }
    }
    if HELD.replace(true) {
        return;
    }
    register_xact_callback(PgXactCallbackEvent::Commit, || {
        if release() {
            // SAFETY: the statement it was meant for is over.
            unsafe { pg_sys::QueryCancelPending = 0 };
        }
    });
    register_xact_callback(PgXactCallbackEvent::Abort, || {
        release();
    });
}

/// A person's transaction goes on after the call, and can be cancelled again.
#[pg_extern]
fn release_cancel() {
    release();
}

fn release() -> bool {
    let held = HELD.replace(false);
    // SAFETY: as above; after an error there is nothing left to take back.
    unsafe {
        if held && pg_sys::QueryCancelHoldoffCount > 0 {
            pg_sys::QueryCancelHoldoffCount -= 1;
        }
    }
    held
}
