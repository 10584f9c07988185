//! A stored file as `Read` and `Seek`, for readers that know nothing of databases. One piece is in memory at a time.

use std::io::{Error, Read, Result, Seek, SeekFrom};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{Files, Stored};

pub struct StoredFile {
    files: Files,
    file: Stored,
    handle: Handle,
    at: u64,
    /// Where it begins, and its bytes.
    piece: Option<(u64, Bytes)>,
}

impl StoredFile {
    /// To be used on a thread that may block (spawn_blocking).
    pub fn new(files: Files, file: Stored, handle: Handle) -> Self {
        StoredFile {
            files,
            file,
            handle,
            at: 0,
            piece: None,
        }
    }
}

impl Read for StoredFile {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.at >= self.file.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let held =
            |(from, bytes): &(u64, Bytes)| (*from..*from + bytes.len() as u64).contains(&self.at);
        if !self.piece.as_ref().is_some_and(held) {
            let step = self.file.step();
            let from = self.at - self.at % step as u64;
            let read = self.files.read(&self.file, from, step);
            let bytes = self.handle.block_on(read).map_err(Error::other)?;
            self.piece = Some((from, bytes));
        }
        let Some((from, bytes)) = &self.piece else {
            return Ok(0);
        };
        let from = (self.at - from) as usize;
        let rest = bytes.get(from..).unwrap_or_default();
        if rest.is_empty() {
            return Err(Error::other("the stored file is shorter than it says"));
        }
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for StoredFile {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => i128::from(n),
            SeekFrom::End(n) => i128::from(self.file.bytes) + i128::from(n),
            SeekFrom::Current(n) => i128::from(self.at) + i128::from(n),
        };
        self.at =
            u64::try_from(target).map_err(|_| Error::other("a place before the beginning"))?;
        Ok(self.at)
    }
}
