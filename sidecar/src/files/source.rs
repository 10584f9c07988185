//! A stored file as `Read` and `Seek`, for readers that know nothing of databases. One chunk is in memory at a time.

use std::io::{Error, Read, Result, Seek, SeekFrom};

use tokio::runtime::Handle;

use super::{Files, Stored, CHUNK};

pub struct StoredFile {
    files: Files,
    file: Stored,
    handle: Handle,
    at: u64,
    chunk: Option<(u64, Vec<u8>)>,
}

impl StoredFile {
    /// To be used on a thread that may block (spawn_blocking).
    pub fn new(files: Files, file: Stored, handle: Handle) -> Self {
        StoredFile {
            files,
            file,
            handle,
            at: 0,
            chunk: None,
        }
    }
}

impl Read for StoredFile {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.at >= self.file.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let number = self.at / CHUNK as u64;
        if self.chunk.as_ref().is_none_or(|(have, _)| *have != number) {
            let read = self.files.read(&self.file, number * CHUNK as u64, CHUNK);
            let bytes = self.handle.block_on(read).map_err(Error::other)?;
            self.chunk = Some((number, bytes));
        }
        let Some((_, bytes)) = &self.chunk else {
            return Ok(0);
        };
        let from = (self.at % CHUNK as u64) as usize;
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
