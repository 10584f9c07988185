//! A file of the farm's store on this sidecar's disk while it goes to a printer: checked once, sent as often as needed,
//! without holding a database connection.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use futures::Stream;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::driver::Fault;
use crate::db::Db;

// One jsonb value per question is what this pool speaks; base64 costs a third more on a local wire.
const READ: &str = "SELECT to_jsonb(encode(odin.worker_read_file($1, $2, $3), 'base64'))";
const CHUNK: i32 = 4 * 1024 * 1024;
const SEND: usize = 64 * 1024;

pub struct Spooled {
    file: Arc<std::fs::File>,
    pub size: u64,
    pub sha256: String,
}

impl Spooled {
    /// Fetch a file by its hash. What arrives with another hash is not sent to any machine.
    pub async fn fetch(db: &Db, sha256: &str) -> Result<Spooled, Fault> {
        let mut file =
            anonymous().map_err(|e| Fault::odd(format!("no room for a temporary file: {e}")))?;
        let mut hash = Sha256::new();
        let mut size: u64 = 0;
        loop {
            let offset = i64::try_from(size).unwrap_or(i64::MAX);
            let answer = db
                .quick(READ, &[&sha256, &offset, &CHUNK])
                .await
                .map_err(|e| Fault::odd(format!("the file store cannot be read: {e}")))?;
            let chunk = decode(&answer)?;
            if chunk.is_empty() {
                break;
            }
            hash.update(&chunk);
            file.write_all(&chunk)
                .map_err(|e| Fault::odd(format!("no room for a temporary file: {e}")))?;
            size += chunk.len() as u64;
            if chunk.len() < CHUNK as usize {
                break;
            }
        }
        let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
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

fn decode(answer: &Value) -> Result<Vec<u8>, Fault> {
    let Some(text) = answer.as_str() else {
        return Ok(Vec::new());
    };
    let plain: String = text.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(plain)
        .map_err(|e| Fault::odd(format!("the file store answered something unreadable: {e}")))
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
