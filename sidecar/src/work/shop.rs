//! What this sidecar can do for tasks, and with which tools.

use serde_json::Value;

use super::claims::Job;
use super::facts;
use super::jobs::{refusal, Live, Trouble};
use super::slice;
use crate::files::Files;
use crate::slicers::Slicers;

pub struct Shop {
    pub files: Files,
    pub slicers: Slicers,
}

impl Shop {
    /// The answer that ends the task: {"status": "complete", "result", "files", ...}.
    pub async fn carry_out(&self, job: &Job, live: &Live) -> Result<Value, Trouble> {
        match job.kind.as_str() {
            "facts" => facts::carry_out(self, job, live).await,
            "slice" => slice::carry_out(self, job, live).await,
            other => Err(Trouble::Final(refusal(
                "internal_error",
                500,
                format!("no worker does {other}"),
            ))),
        }
    }
}
