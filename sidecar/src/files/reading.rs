//! The one place where bytes of stored files are read, whether they are in PostgreSQL or in a bucket. A file may move between
//! the two while it is read: then the next piece comes from the other side.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use super::objects::{Object, ObjectError, Objects};
use super::{FileError, CHUNK};
use crate::db::{Db, DbError};

const WORKER_FILE: &str = "SELECT odin.worker_file($1, $2)";
const WORKER_READ: &str = "SELECT odin.worker_read_file($1, $2, $3, $4)";
const GATEWAY_FILE: &str = "SELECT odin.gateway_file($1)";
const GATEWAY_READ: &str = "SELECT odin.gateway_file_read($1, $2, $3)";
/// The farm's code for bytes that SQL cannot reach (file_outside).
const OUTSIDE: &str = "OD608";
/// A question to a bucket costs a way there and back: worth more bytes than one to the database.
const OUTSIDE_STEP: usize = 4 * CHUNK;
/// There and back again, and once more.
const MOST_MOVES: usize = 3;

/// By which right a file is read.
#[derive(Clone, Debug)]
pub enum Door {
    /// A worker, by hash; the org where it is known.
    Worker { sha256: String, org: Option<i64> },
    /// A request, by the ticket of a link.
    Ticket(String),
}

/// A file that is being read.
pub struct Reading {
    db: Db,
    objects: Objects,
    door: Door,
    pub bytes: u64,
    /// `None`: in the database.
    place: Mutex<Option<Object>>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Reading {
    /// For a worker.
    pub async fn open(
        db: &Db,
        objects: &Objects,
        sha256: &str,
        org: Option<i64>,
    ) -> Result<Self, FileError> {
        let sha256 = sha256.to_owned();
        let door = Door::Worker { sha256, org };
        let about = look(db, &door).await?;
        Reading::known(db, objects, door, &about)
    }

    /// For whoever has asked about the file already.
    pub fn known(db: &Db, objects: &Objects, door: Door, about: &Value) -> Result<Self, FileError> {
        Ok(Reading {
            place: Mutex::new(placed(objects, about)?),
            bytes: about["bytes"].as_u64().ok_or(FileError::Missing)?,
            db: db.clone(),
            objects: objects.clone(),
            door,
        })
    }

    fn place(&self) -> Option<Object> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }

    pub fn is_outside(&self) -> bool {
        self.place().is_some()
    }

    /// How much to ask for at once.
    pub fn step(&self) -> usize {
        if self.is_outside() {
            OUTSIDE_STEP
        } else {
            CHUNK
        }
    }

    /// Bytes from any place; less than asked for only at the end.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Bytes, FileError> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut moves = 0;
        loop {
            let gone = match self.place() {
                Some(object) => match self.objects.get(&object, offset, length).await {
                    Err(ObjectError::Missing(bucket)) => {
                        FileError::Object(ObjectError::Missing(bucket))
                    }
                    other => return other.map_err(FileError::Object),
                },
                None => match self.inside(offset, length).await {
                    Err(DbError::Sql { state, .. }) if state == OUTSIDE => FileError::Missing,
                    other => {
                        let bytes = other?.filter(|bytes| !bytes.is_empty());
                        return bytes.map(Bytes::from).ok_or(FileError::Missing);
                    }
                },
            };
            let found = placed(&self.objects, &look(&self.db, &self.door).await?)?;
            let stays = match (&found, &self.place()) {
                (Some(now), Some(before)) => now.is(before),
                _ => false,
            };
            moves += 1;
            if stays || moves > MOST_MOVES {
                return Err(gone);
            }
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    async fn inside(&self, offset: u64, length: usize) -> Result<Option<Vec<u8>>, DbError> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        match &self.door {
            Door::Worker { sha256, org } => {
                self.db
                    .bytes(WORKER_READ, &[sha256, &offset, &length, org])
                    .await
            }
            Door::Ticket(ticket) => {
                self.db
                    .bytes(GATEWAY_READ, &[ticket, &offset, &length])
                    .await
            }
        }
    }
}

fn placed(objects: &Objects, about: &Value) -> Result<Option<Object>, FileError> {
    match &about["object"] {
        Value::Null => Ok(None),
        row => objects.object(row).map(Some).map_err(FileError::Object),
    }
}

async fn look(db: &Db, door: &Door) -> Result<Value, FileError> {
    let asked = match door {
        Door::Worker { sha256, org } => db.quick(WORKER_FILE, &[sha256, org]).await,
        Door::Ticket(ticket) => db.quick(GATEWAY_FILE, &[ticket]).await,
    };
    match asked {
        // SQL's NULL is no JSON value.
        Err(DbError::Internal(_)) => Err(FileError::Missing),
        Ok(answer) if answer["ok"] == false => Err(FileError::Missing),
        other => Ok(other?),
    }
}
