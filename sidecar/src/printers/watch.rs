//! A keeper's memory of its printer. All of it can be lost: the farm and the printer know better.

use std::time::Instant;

use super::driver::Report;

/// What the keeper remembers from one look to the next.
#[derive(Default)]
pub struct Watch {
    /// A print was on the machine when it was last seen, and which.
    pub busy: bool,
    pub file: Option<String>,
    /// A run whose fate is unknown: the server's records may tell.
    pub lost_file: Option<String>,
    pub last: Report,
    pub moved_at: Option<Instant>,
    pub stalled: bool,
    pub failures: u32,
    pub facts_at: Option<Instant>,
    pub files_at: Option<Instant>,
}

impl Watch {
    /// As the farm remembers the printer: which run is on it, and in which state.
    pub fn resume(run_file: Option<&str>, run_status: Option<&str>) -> Watch {
        let file = run_file.map(str::to_owned);
        match run_status.unwrap_or_default() {
            "printing" | "paused" => Watch {
                busy: true,
                file,
                ..Watch::default()
            },
            "unknown" => Watch {
                lost_file: file,
                ..Watch::default()
            },
            _ => Watch::default(),
        }
    }
}
