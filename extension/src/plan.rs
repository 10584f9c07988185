//! The leaf behind plan_queue: the whole problem in, the whole plan out.

use pgrx::prelude::*;
use pgrx::JsonB;

/// {"rows", "homeless", "beyond", ...}, or {"problem": text} when the input makes no sense.
#[pg_extern(immutable, parallel_safe, name = "plan")]
fn plan_jobs(input: JsonB) -> JsonB {
    JsonB(match odin_core::plan(&input.0) {
        Ok(answer) => answer,
        Err(problem) => serde_json::json!({ "problem": problem }),
    })
}
