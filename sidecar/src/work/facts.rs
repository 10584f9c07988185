//! Reads what a stored file says: print time and material of G-code, size and volume of a model, and a picture of either.

use odin_meta::{inspect, Inspected, Limits, Picture};
use serde_json::{json, Value};
use tokio::runtime::Handle;

use super::claims::Job;
use super::jobs::{refusal, Live, Trouble};
use super::shop::Shop;
use crate::files::{FileError, StoredFile, Written};

pub async fn carry_out(shop: &Shop, job: &Job, _live: &Live) -> Result<Value, Trouble> {
    let kind = job.text("kind").to_owned();
    let file = shop.files.open(job.text("sha256"), job.org).await?;
    let mut source = StoredFile::new(shop.files.clone(), file, Handle::current());
    let read =
        tokio::task::spawn_blocking(move || inspect(&kind, &mut source, &Limits::default())).await;
    let inspected = match read {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(odin_meta::Error::Io(e))) if e.get_ref().is_some_and(|e| e.is::<FileError>()) => {
            return Err(Trouble::Again(e.to_string()));
        }
        Ok(Err(e)) => {
            return Err(Trouble::Final(refusal(
                "file_unreadable",
                422,
                e.to_string(),
            )))
        }
        Err(_) => {
            return Err(Trouble::Final(refusal(
                "file_unreadable",
                422,
                "the reader gave up on this file",
            )))
        }
    };
    let (facts, picture) = match inspected {
        Inspected::Sliced(mut facts) => {
            let picture = facts.picture.take();
            (json!(facts), picture)
        }
        Inspected::Model(facts, picture) => (json!(facts), picture),
    };
    let mut answer = json!({"status": "complete", "result": {"facts": facts}, "facts": facts});
    if let Some(picture) = picture {
        let (written, format) = save(shop, job, &picture).await?;
        answer["files"] = json!([{
            "as": "thumbnail", "origin": "thumbnail", "upload": written.upload, "sha256": written.sha256,
            "path": format!("thumbnails/{}.{format}", &written.sha256[..16]),
        }]);
    }
    Ok(answer)
}

/// A picture goes into the store beside its file.
pub async fn save(
    shop: &Shop,
    job: &Job,
    picture: &Picture,
) -> Result<(Written, &'static str), Trouble> {
    let mut writer = shop.files.begin(&job.id, job.fence, &job.role).await?;
    writer.write(&picture.bytes).await?;
    Ok((writer.end().await?, picture.format))
}
