//! What every protocol speaks to the farm: one trait, one vocabulary of states, and faults that say whose they were.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{json, Value};

use super::spool::Spooled;

/// The farm's own states; each driver maps its server's words to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Unknown,
    Offline,
    Idle,
    Preparing,
    Printing,
    Paused,
    Error,
}

impl State {
    /// A print is on the machine, whatever it does at the moment.
    pub fn is_busy(self) -> bool {
        matches!(self, State::Preparing | State::Printing | State::Paused)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Offline => "offline",
            State::Idle => "idle",
            State::Preparing => "preparing",
            State::Printing => "printing",
            State::Paused => "paused",
            State::Error => "error",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Completed,
    Cancelled,
    Failed,
}

/// How a print ended, as the server shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ended {
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
}

/// What a printer reports at one moment. Names are those of odin.printer_state.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub state: State,
    pub raw: Option<String>,
    pub stage: Option<String>,
    pub tool_c: Option<f64>,
    pub tool_target_c: Option<f64>,
    pub bed_c: Option<f64>,
    pub bed_target_c: Option<f64>,
    pub chamber_c: Option<f64>,
    pub progress_pct: Option<f64>,
    pub remaining_seconds: Option<i64>,
    pub file: Option<String>,
    pub layer: Option<i64>,
    pub total_layers: Option<i64>,
    pub fan_pct: Option<f64>,
    pub speed_pct: Option<f64>,
    pub lights_on: Option<bool>,
    /// What the machine itself says is in its slots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotReport>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// How the print in `file` ended, while the server still shows it.
    #[serde(skip)]
    pub outcome: Option<Outcome>,
    /// At rest, but its server takes no new print for some seconds yet.
    #[serde(skip)]
    pub settling: bool,
    #[serde(skip)]
    pub seconds: Option<i64>,
}

/// One slot as the machine sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlotReport {
    pub slot: i64,
    pub material: Option<String>,
    pub color: Option<String>,
}

impl Report {
    pub fn ended(&self, outcome: Outcome) -> Ended {
        Ended {
            outcome,
            file: self.file.clone(),
            message: self.error_message.clone(),
            progress: self.progress_pct,
            seconds: self.seconds,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RemoteFile {
    pub path: String,
    pub size_bytes: Option<i64>,
    /// Seconds since 1970.
    pub date: Option<i64>,
    pub estimated_print_time_s: Option<f64>,
}

/// One thing for a machine to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Start {
        file: String,
        seconds: f64,
        /// Which plate of a sliced file with several; only Bambu Lab's have any.
        plate: u32,
        /// Which slot of the printer feeds which filament of the file; empty when the farm does not know.
        slots: Vec<i64>,
    },
    /// Choose a stored file, without printing it.
    Select {
        file: String,
    },
    Pause,
    Resume,
    Stop,
    Heat {
        heater: Heater,
        target: f64,
    },
    Home {
        axes: Vec<char>,
    },
    Move {
        x: Option<f64>,
        y: Option<f64>,
        z: Option<f64>,
        speed: Option<f64>,
    },
    Gcode {
        lines: Vec<String>,
    },
    Light {
        on: bool,
    },
    Fan {
        percent: f64,
    },
    /// Percent of the speed the file was sliced for.
    Speed {
        percent: f64,
    },
    /// Leave out objects of the running print, by the names or numbers the file gives them.
    Skip {
        objects: Vec<String>,
    },
    /// Tell the machine what somebody has put into one of its slots.
    Slot {
        slot: i64,
        filament: Filament,
    },
    Connect {
        port: Option<String>,
        baudrate: Option<i64>,
    },
    Disconnect,
}

/// What is on a spool, as machines are told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filament {
    pub material: String,
    /// RRGGBB.
    pub color: String,
    pub low_c: i64,
    pub high_c: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heater {
    Tool(u8),
    Bed,
}

/// Why something did not work. `code` is one of odin.error_codes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    pub code: &'static str,
    pub detail: String,
    /// The request may have reached the machine, so that its effect is open.
    pub maybe_sent: bool,
}

impl Fault {
    fn new(code: &'static str, detail: impl Into<String>) -> Fault {
        Fault {
            code,
            detail: detail.into(),
            maybe_sent: false,
        }
    }
    /// Nobody answers; nothing was sent.
    pub fn unreachable(detail: impl Into<String>) -> Fault {
        Fault::new("printer_unreachable", detail)
    }
    /// The connection broke or went silent after the request had left.
    pub fn broken(detail: impl Into<String>) -> Fault {
        Fault {
            maybe_sent: true,
            ..Fault::new("printer_unreachable", detail)
        }
    }
    pub fn refused(detail: impl Into<String>) -> Fault {
        Fault::new("printer_refused", detail)
    }
    pub fn auth(detail: impl Into<String>) -> Fault {
        Fault::new("printer_auth", detail)
    }
    /// The server answered something no driver expects.
    pub fn odd(detail: impl Into<String>) -> Fault {
        Fault::new("printer_fault", detail)
    }
    pub fn not_ready(detail: impl Into<String>) -> Fault {
        Fault::new("printer_not_ready", detail)
    }
    pub fn no_file(detail: impl Into<String>) -> Fault {
        Fault::new("file_not_on_printer", detail)
    }
    pub fn unsupported(detail: impl Into<String>) -> Fault {
        Fault::new("not_supported", detail)
    }
    pub fn unconfirmed(detail: impl Into<String>) -> Fault {
        Fault::new("command_unconfirmed", detail)
    }
    pub fn in_doubt(detail: impl Into<String>) -> Fault {
        Fault::new("command_in_doubt", detail)
    }
    pub fn to_json(&self) -> Value {
        json!({"code": self.code, "detail": self.detail})
    }
}

/// One printer over one protocol. Methods may run at the same time: a stop is watched while it is under way.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Ask the machine what it does now.
    async fn status(&self) -> Result<Report, Fault>;

    /// Wait for the machine to say something by itself; for ever where it never does.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// The printer has said that its list of files changed since this was asked last.
    fn files_moved(&self) -> bool {
        false
    }

    /// Seconds between questions: while it works, and at rest.
    fn pace(&self) -> (f64, f64);

    /// What rarely changes: versions, connection.
    async fn facts(&self) -> Result<Value, Fault>;

    /// Who answers there, in a sentence; or precisely what is wrong.
    async fn probe(&self) -> Result<String, Fault>;

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault>;

    /// Store a file under a name that nothing else has. Doing it twice must do no harm.
    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault>;

    /// Do it, once. `Ok` means accepted; only `status` says that it happened.
    async fn act(&self, act: &Act) -> Result<Value, Fault>;

    /// What the server's own records say about a print of this file. `None`: it was certainly never printed.
    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault>;
}

/// A printer that cannot be opened: it says why, whatever is asked.
pub struct Closed(pub Fault);

#[async_trait]
impl Driver for Closed {
    async fn status(&self) -> Result<Report, Fault> {
        Err(self.0.clone())
    }
    fn pace(&self) -> (f64, f64) {
        (30.0, 30.0)
    }
    async fn facts(&self) -> Result<Value, Fault> {
        Err(self.0.clone())
    }
    async fn probe(&self) -> Result<String, Fault> {
        Err(self.0.clone())
    }
    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        Err(self.0.clone())
    }
    async fn upload(&self, _: &str, _: &Spooled) -> Result<(), Fault> {
        Err(self.0.clone())
    }
    async fn act(&self, _: &Act) -> Result<Value, Fault> {
        Err(self.0.clone())
    }
    async fn record_of(&self, _: &str) -> Result<Option<Ended>, Fault> {
        Err(self.0.clone())
    }
}
