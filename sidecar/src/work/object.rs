//! Moves the bytes of files between PostgreSQL and the org's bucket, and removes objects that nothing needs. Bytes leave
//! PostgreSQL only after the object was read back whole with the right hash, in the transaction that ends the task.

use bytes::{Bytes, BytesMut};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use super::claims::Job;
use super::jobs::{Live, Trouble};
use super::shop::Shop;
use crate::db::DbError;
use crate::files::objects::{Object, ObjectError};
use crate::files::{Stored, CHUNK};
use crate::hex::hex;

const OBJECT: &str = "SELECT odin.worker_object($1, $2)";
const UPLOAD: &str = "SELECT to_jsonb(odin.worker_object_upload($1, $2, $3))";
const BACK: &str = "SELECT to_jsonb(odin.worker_object_chunk($1, $2, $3, $4))";

/// One part is in memory at a time. S3 takes no smaller ones than 5 MiB, and at most 10,000 of them.
const PART: u64 = 16 * CHUNK as u64;
const MOST_PARTS: u64 = 9_000;
/// Reading back, and bringing back.
const STEP: usize = 4 * CHUNK;

impl From<ObjectError> for Trouble {
    /// Whatever a bucket says may be over in a while, or after a call of set_object_store.
    fn from(error: ObjectError) -> Self {
        Trouble::Again(error.to_string())
    }
}

impl From<DbError> for Trouble {
    fn from(error: DbError) -> Self {
        Trouble::Again(error.to_string())
    }
}

pub async fn carry_out(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    tokio::select! {
        answer = moved(shop, job, live) => answer,
        () = live.cancel.cancelled() => Err(Trouble::Stopped),
    }
}

struct Move<'a> {
    shop: &'a Shop,
    job: &'a Job,
    live: &'a Live,
    object: Object,
    sha256: String,
    bytes: u64,
}

async fn moved(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    let db = shop.files.db();
    let about = db.quick(OBJECT, &[&job.id, &job.fence]).await?;
    let act = job.text("act");
    if about["nothing"] == true {
        return Ok(json!({"status": "complete", "result": {"act": act, "nothing": true}}));
    }
    let object = shop.files.objects().object(&about)?;
    let way = Move {
        shop,
        job,
        live,
        object,
        sha256: about["sha256"].as_str().unwrap_or_default().to_owned(),
        bytes: about["bytes"].as_u64().unwrap_or_default(),
    };
    // What an earlier try left open in the bucket is nobody's.
    if let Some(upload) = about["upload_id"].as_str() {
        match shop.files.objects().abort(&way.object, upload).await {
            // Some servers have their own word for an upload that is over.
            Ok(()) | Err(ObjectError::Said(_)) => {}
            Err(e) => return Err(e.into()),
        }
        way.note(None).await?;
    }
    match act {
        "out" => way.out().await?,
        "back" => way.back().await?,
        _ => shop.files.objects().remove(&way.object).await?,
    }
    Ok(json!({"status": "complete", "result": {"act": act, "bytes": way.bytes}}))
}

impl Move<'_> {
    async fn note(&self, upload: Option<&str>) -> Result<(), Trouble> {
        let db = self.shop.files.db();
        let params: crate::db::Params<'_> = &[&self.job.id, &self.job.fence, &upload];
        db.quick(UPLOAD, params).await?;
        Ok(())
    }

    async fn out(&self) -> Result<(), Trouble> {
        let file = self.shop.files.open(&self.sha256, self.job.org).await?;
        let objects = self.shop.files.objects();
        if file.bytes <= PART {
            let bytes = self.part(&file, 0, file.bytes).await?;
            objects.put(&self.object, bytes).await?;
        } else {
            let upload = objects.begin(&self.object).await?;
            self.note(Some(&upload)).await?;
            if let Err(trouble) = self.parts(&file, &upload).await {
                // Best effort: the next try knows of it too.
                let _ = objects.abort(&self.object, &upload).await;
                return Err(trouble);
            }
            self.note(None).await?;
        }
        self.read_back().await
    }

    async fn part(&self, file: &Stored, from: u64, length: u64) -> Result<Bytes, Trouble> {
        let mut part = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        while (part.len() as u64) < length {
            let step = usize::try_from(length - part.len() as u64).unwrap_or(STEP);
            let at = from + part.len() as u64;
            let read = self.shop.files.read(file, at, step.min(STEP)).await?;
            part.extend_from_slice(&read);
        }
        Ok(part.freeze())
    }

    async fn parts(&self, file: &Stored, upload: &str) -> Result<(), Trouble> {
        let objects = self.shop.files.objects();
        let size = PART.max(file.bytes.div_ceil(MOST_PARTS));
        let mut tags = Vec::new();
        let mut at = 0;
        while at < file.bytes {
            let length = size.min(file.bytes - at);
            let bytes = self.part(file, at, length).await?;
            let number = u16::try_from(tags.len() + 1).unwrap_or(u16::MAX);
            let tag = objects.part(&self.object, upload, number, bytes).await?;
            tags.push(tag);
            at += length;
            self.told(at, 0, "sending");
        }
        objects.complete(&self.object, upload, &tags).await?;
        Ok(())
    }

    fn told(&self, done: u64, from: u64, what: &str) {
        let half = done as f64 * 50.0 / self.bytes.max(1) as f64;
        self.live.progress(from as f64 + half, what);
    }

    /// The whole object as the bucket has it; an error where it is not the file.
    async fn read_back(&self) -> Result<(), Trouble> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < self.bytes {
            let length = usize::try_from(self.bytes - at).unwrap_or(STEP).min(STEP);
            let objects = self.shop.files.objects();
            let bytes = objects.get(&self.object, at, length).await?;
            hash.update(&bytes);
            at += length as u64;
            self.told(at, 50, "checking");
        }
        self.same(hash)
    }

    fn same(&self, hash: Sha256) -> Result<(), Trouble> {
        if hex(&hash.finalize()) == self.sha256 {
            return Ok(());
        }
        Err(Trouble::Again(format!(
            "the object in {} does not have the hash of its file",
            self.object.place()
        )))
    }

    /// Pieces go into the database as they come; they count only when the task has ended well.
    async fn back(&self) -> Result<(), Trouble> {
        let mut hash = Sha256::new();
        let mut at = 0;
        let mut number = 0i32;
        while at < self.bytes {
            let length = usize::try_from(self.bytes - at).unwrap_or(STEP).min(STEP);
            let objects = self.shop.files.objects();
            let bytes = objects.get(&self.object, at, length).await?;
            hash.update(&bytes);
            for chunk in bytes.chunks(CHUNK) {
                let params: crate::db::Params<'_> =
                    &[&self.job.id, &self.job.fence, &number, &chunk];
                self.shop.files.db().quick(BACK, params).await?;
                number += 1;
            }
            at += length as u64;
            self.told(at * 2, 0, "fetching");
        }
        self.same(hash)
    }
}
