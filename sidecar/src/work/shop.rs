//! What this sidecar can do for tasks, and with which tools.

use std::sync::Arc;

use serde_json::Value;

use super::claims::Job;
use super::document;
use super::facts;
use super::jobs::{refusal, Live, Trouble};
use super::object;
use super::remote::Remotes;
use super::slice;
use super::source;
use crate::egress::Egress;
use crate::files::Files;
use crate::printers::secrets::Keyring;
use crate::slicers::Slicers;

pub struct Shop {
    pub files: Files,
    pub slicers: Slicers,
    pub remotes: Arc<Remotes>,
    pub egress: Egress,
    /// Where Thingiverse's interface is.
    pub thingiverse: url::Url,
    /// Opens the orgs' tokens.
    pub keyring: Option<Keyring>,
}

impl Shop {
    /// The answer that ends the task: {"status": "complete", "result", "files", ...}.
    pub async fn carry_out(&self, job: &Job, live: &Live) -> Result<Value, Trouble> {
        match job.kind.as_str() {
            "document" => document::carry_out(self, job, live).await,
            "facts" => facts::carry_out(self, job, live).await,
            "object" => object::carry_out(self, job, live).await,
            "remote" => self.remotes.carry_out(job, live).await,
            "slice" => slice::carry_out(self, job, live).await,
            "source" => source::carry_out(self, job, live).await,
            other => Err(Trouble::Final(refusal(
                "internal_error",
                500,
                format!("no worker does {other}"),
            ))),
        }
    }
}
