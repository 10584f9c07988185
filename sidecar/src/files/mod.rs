//! The file store as the sidecar uses it: chunks go into PostgreSQL and come from there or from a bucket, hashed on the way;
//! no disk, no state.

pub mod objects;
pub mod reading;
pub mod routes;
mod source;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::db::{Db, DbError};
use crate::hex::hex;

use objects::{ObjectError, Objects};
use reading::Reading;
pub use source::StoredFile;

/// What one row of the store holds; every chunk but the last has this size.
pub const CHUNK: usize = 1024 * 1024;

const WORKER_BEGIN: &str = "SELECT odin.worker_upload_begin($1, $2, $3)";
const WORKER_CHUNK: &str = "SELECT odin.worker_upload_chunk($1, $2, $3, $4)";

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("there is no such file in the store")]
    Missing,
    #[error("the stored bytes do not have the hash of the file")]
    Corrupt,
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("{0}")]
    Object(ObjectError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Cuts a stream of any pieces into chunks of the store's size.
#[derive(Default)]
pub struct Chunker {
    buffer: BytesMut,
}

impl Chunker {
    /// Full chunks that are complete with `bytes`.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<Bytes> {
        let mut full = Vec::new();
        while !bytes.is_empty() {
            let n = bytes.len().min(CHUNK - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.buffer.len() == CHUNK {
                full.push(self.buffer.split().freeze());
            }
        }
        full
    }

    /// What is left at the end.
    pub fn rest(&mut self) -> Option<Bytes> {
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

/// A file of the store that a task works on.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sha256: String,
    pub bytes: u64,
    reading: Arc<Reading>,
}

impl Stored {
    /// How much to ask for at once.
    pub fn step(&self) -> usize {
        self.reading.step()
    }
}

/// The store for background work.
#[derive(Clone)]
pub struct Files {
    db: Db,
    objects: Objects,
}

impl Files {
    pub fn new(db: Db, objects: Objects) -> Self {
        Files { db, objects }
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub async fn open(
        &self,
        sha256: &str,
        org: impl Into<Option<i64>>,
    ) -> Result<Stored, FileError> {
        let reading = Reading::open(&self.db, &self.objects, sha256, org.into()).await?;
        Ok(Stored {
            sha256: sha256.to_owned(),
            bytes: reading.bytes,
            reading: Arc::new(reading),
        })
    }

    pub async fn read(
        &self,
        file: &Stored,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, FileError> {
        file.reading.read(offset, length).await
    }

    /// Copy a file to the disk of this sidecar, for a program that reads only that. Checked against its hash.
    pub async fn copy_to(&self, file: &Stored, path: &std::path::Path) -> Result<(), FileError> {
        use tokio::io::AsyncWriteExt;
        let mut out = tokio::fs::File::create(path).await?;
        let mut hash = Sha256::new();
        let mut offset = 0;
        while offset < file.bytes {
            let piece = self.read(file, offset, 4 * CHUNK).await?;
            if piece.is_empty() {
                return Err(FileError::Corrupt);
            }
            hash.update(&piece);
            out.write_all(&piece).await?;
            offset += piece.len() as u64;
        }
        out.flush().await?;
        if hex(&hash.finalize()) != file.sha256 {
            return Err(FileError::Corrupt);
        }
        Ok(())
    }

    /// Begin a file of a task. It becomes one only when the task's end is recorded.
    pub async fn begin(&self, task: &str, fence: i64, role: &str) -> Result<Writer, FileError> {
        let answer = self
            .db
            .quick(WORKER_BEGIN, &[&task, &fence, &json!({})])
            .await?;
        Ok(Writer {
            db: self.db.clone(),
            upload: answer["upload"].as_i64().ok_or(FileError::Missing)?,
            role: role.to_owned(),
            most: answer["max_bytes"].as_u64().ok_or(FileError::Missing)?,
            chunks: 0,
            hash: Sha256::new(),
            chunker: Chunker::default(),
        })
    }
}

/// A file on its way into the store.
pub struct Writer {
    db: Db,
    upload: i64,
    role: String,
    most: u64,
    chunks: i32,
    hash: Sha256,
    chunker: Chunker,
}

impl Writer {
    /// Larger than this the org allows no file.
    pub fn most(&self) -> u64 {
        self.most
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.hash.update(bytes);
        for chunk in self.chunker.push(bytes) {
            self.send(&chunk).await?;
        }
        Ok(())
    }

    async fn send(&mut self, chunk: &Bytes) -> Result<(), FileError> {
        let params: crate::db::Params<'_> =
            &[&self.upload, &self.role, &self.chunks, &chunk.as_ref()];
        self.db.quick(WORKER_CHUNK, params).await?;
        self.chunks += 1;
        Ok(())
    }

    /// What worker_finish needs to make a file of it.
    pub async fn end(mut self) -> Result<Written, FileError> {
        if let Some(chunk) = self.chunker.rest() {
            self.send(&chunk).await?;
        }
        Ok(Written {
            upload: self.upload,
            sha256: hex(&self.hash.finalize()),
        })
    }
}

pub struct Written {
    pub upload: i64,
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_chunks() {
        let mut chunker = Chunker::default();
        assert!(chunker.push(&[1; 10]).is_empty());
        let full = chunker.push(&vec![2; 2 * CHUNK]);
        assert_eq!(
            full.iter().map(Bytes::len).collect::<Vec<_>>(),
            [CHUNK, CHUNK]
        );
        assert_eq!(full[0][..11], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
        assert_eq!(chunker.rest().map(|b| b.len()), Some(10));
        assert_eq!(chunker.rest(), None);
    }
}
