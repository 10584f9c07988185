//! A file of the farm's store on this sidecar's disk while it goes to a printer: checked once, sent as often as needed,
//! without holding a database connection.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use sha2::{Digest, Sha256};

use super::driver::Fault;
use crate::files::Files;
use crate::hex::hex;

const CHUNK: usize = 4 * 1024 * 1024;
const SEND: usize = 64 * 1024;

pub struct Spooled {
    file: Arc<std::fs::File>,
    pub size: u64,
    pub sha256: String,
}

impl Spooled {
    /// Fetch a file by its hash. What arrives with another hash is not sent to any machine.
    pub async fn fetch(files: &Files, sha256: &str) -> Result<Spooled, Fault> {
        let mut file =
            anonymous().map_err(|e| Fault::odd(format!("no room for a temporary file: {e}")))?;
        let unread = |e| Fault::odd(format!("the file store cannot be read: {e}"));
        let stored = files.open(sha256, None).await.map_err(unread)?;
        let mut hash = Sha256::new();
        let mut size: u64 = 0;
        while size < stored.bytes {
            let chunk = files.read(&stored, size, CHUNK).await.map_err(unread)?;
            hash.update(&chunk);
            file.write_all(&chunk)
                .map_err(|e| Fault::odd(format!("no room for a temporary file: {e}")))?;
            size += chunk.len() as u64;
        }
        let found = hex(&hash.finalize());
        if found != sha256 {
            return Err(Fault::odd(format!(
                "the file store gave {size} bytes that are not the file {}…",
                &sha256[..sha256.len().min(12)]
            )));
        }
        Ok(Spooled {
            file: Arc::new(file),
            size,
            sha256: found,
        })
    }

    /// The bytes, piece by piece; each call starts from the beginning.
    pub fn stream(&self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        let file = self.file.clone();
        futures::stream::try_unfold(0u64, move |offset| {
            let file = file.clone();
            async move {
                let piece = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; SEND];
                    // read_at: two streams of one file must not move each other's place.
                    let n = file.read_at(&mut piece, offset)?;
                    piece.truncate(n);
                    Ok::<_, std::io::Error>(piece)
                })
                .await
                .map_err(std::io::Error::other)??;
                let next = offset + piece.len() as u64;
                Ok((!piece.is_empty()).then(|| (Bytes::from(piece), next)))
            }
        })
    }
}

/// A file without a name: gone when the process is.
fn anonymous() -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("odin-{}", crate::random_id()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
