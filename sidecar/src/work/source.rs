//! Questions to model sites and files from the web: asked through egress, stored with what the site says about the design.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{json, Value};

use super::claims::Job;
use super::jobs::{refusal, Live, Trouble};
use super::shop::Shop;
use crate::egress::{Limits, Reply};
use crate::files::Written;
use crate::sources::thingiverse::{SourceError, ThingFile, Thingiverse};

const SECRET: &str = "SELECT odin.worker_source_secret($1, $2, $3)";
/// As long as PrintMCP gave a download.
const DOWNLOAD: Duration = Duration::from_secs(300);
/// A thing with more files than this is an archive, not a model.
const MOST_FILES: usize = 200;

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Egress(error) => error.into(),
            SourceError::Said(error) => Trouble::Final(error),
            SourceError::Later(why) => Trouble::Again(why),
        }
    }
}

/// Whoever cancels is not kept waiting by a site.
pub async fn carry_out(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    tokio::select! {
        answer = asked(shop, job, live) => answer,
        () = live.cancel.cancelled() => Err(Trouble::Stopped),
    }
}

async fn asked(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    let act = job.text("act");
    if act == "fetch" {
        return fetch(shop, job, live).await;
    }
    let token = token(shop, job, "thingiverse").await?;
    let site = Thingiverse {
        egress: &shop.egress,
        base: &shop.thingiverse,
        token: &token,
    };
    let number = |name: &str| job.arguments[name].as_i64().unwrap_or(1);
    let result = match act {
        "thingiverse_search" => {
            site.search(job.text("query"), number("limit"), number("page"))
                .await?
        }
        "thingiverse_get" => site.thing(number("thing_id")).await?.about,
        "thingiverse_download" => return download(shop, job, live, &site).await,
        other => {
            let detail = format!("no worker does {other}");
            return Err(Trouble::Final(refusal("internal_error", 500, detail)));
        }
    };
    Ok(json!({"status": "complete", "result": result}))
}

async fn token(shop: &Shop, job: &Job, source: &str) -> Result<String, Trouble> {
    let missing = |detail: &str| Trouble::Final(refusal("source_token_missing", 409, detail));
    let answer = shop
        .files
        .db()
        .quick(SECRET, &[&job.id, &job.fence, &source])
        .await
        .map_err(|e| Trouble::Again(e.to_string()))?;
    let sealed = answer["sealed"]
        .as_str()
        .ok_or_else(|| missing("the org has no token for this site any more"))?;
    let keyring = shop.keyring.as_ref().ok_or_else(|| {
        missing("this worker has no ODIN_SECRET_KEY, so it cannot open the org's token")
    })?;
    let text = keyring.open(source, sealed).ok_or_else(|| {
        missing("the org's token was sealed with another ODIN_SECRET_KEY; set it again")
    })?;
    let secret: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(secret["token"].as_str().unwrap_or_default().to_owned())
}

async fn download(
    shop: &Shop,
    job: &Job,
    live: &Live,
    site: &Thingiverse<'_>,
) -> Result<Value, Trouble> {
    let id = job.arguments["thing_id"].as_i64().unwrap_or_default();
    let thing = site.thing(id).await?;
    let (wanted, mut skipped) = choose(&thing.files, job)?;
    let folder = job.text("dest_dir");
    let about = &thing.about;
    let (mut taken, mut names) = (HashSet::new(), Vec::new());
    let mut stored = Vec::new();
    let mut trouble = None;
    for (n, file) in wanted.iter().enumerate() {
        live.progress(
            n as f64 * 100.0 / wanted.len() as f64,
            &format!("fetching {}", file.name),
        );
        match one(shop, job, site, file).await {
            Ok((written, bytes)) => {
                let path = format!("{folder}/{}", own_name(&file.name, &mut taken));
                names.push(json!({"name": file.name, "path": path, "size_bytes": bytes}));
                stored.push(json!({
                    "as": path, "origin": "download", "upload": written.upload, "sha256": written.sha256, "path": path,
                    "license": about["license"], "author": about["creator"], "source_url": about["url"],
                }));
            }
            // One bad file does not take the others with it; a site in trouble is tried again as a whole.
            Err(Trouble::Final(error)) => {
                skipped.push(json!({"name": file.name, "reason": error["detail"]}));
                trouble = Some(error);
            }
            Err(other) => return Err(other),
        }
    }
    if stored.is_empty() {
        return Err(Trouble::Final(trouble.unwrap_or_else(|| {
            refusal("source_not_found", 404, "all downloads failed")
        })));
    }
    Ok(json!({
        "status": "complete", "files": stored,
        "result": {
            "thing_id": id, "name": about["name"], "license": about["license"], "author": about["creator"], "source_url": about["url"],
            "dest_dir": folder, "downloaded_count": names.len(), "files": names, "skipped": skipped,
        },
    }))
}

/// Which files of a thing are meant, and why the others are not.
fn choose(files: &[ThingFile], job: &Job) -> Result<(Vec<ThingFile>, Vec<Value>), Trouble> {
    let none = |detail: String| Err(Trouble::Final(refusal("source_not_found", 404, detail)));
    if files.is_empty() {
        return none("the thing has no downloadable files".to_owned());
    }
    if let Some(id) = job.arguments["file_id"].as_i64() {
        return match files.iter().find(|f| f.id == Some(id)) {
            Some(file) => Ok((vec![file.clone()], Vec::new())),
            None => none(format!("file_id: the thing has no file {id}")),
        };
    }
    let all = job.arguments["include_all_files"] == true;
    let (wanted, rest): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|f| all || f.is_model());
    let mut skipped: Vec<Value> = rest
        .iter()
        .map(|f| json!({"name": f.name, "reason": "not a printable model"}))
        .collect();
    for file in wanted.iter().skip(MOST_FILES) {
        skipped.push(json!({"name": file.name, "reason": format!("more than {MOST_FILES} files; ask for it by file_id")}));
    }
    if wanted.is_empty() {
        return none(
            "the thing has no printable model files; include_all_files takes the others".to_owned(),
        );
    }
    Ok((wanted.into_iter().take(MOST_FILES).collect(), skipped))
}

async fn one(
    shop: &Shop,
    job: &Job,
    site: &Thingiverse<'_>,
    file: &ThingFile,
) -> Result<(Written, u64), Trouble> {
    let Some(url) = &file.url else {
        let detail = "the site gives no address for it";
        return Err(Trouble::Final(refusal("source_not_found", 404, detail)));
    };
    let mut writer = shop.files.begin(&job.id, job.fence, &job.role).await?;
    let limits = Limits {
        bytes: writer.most(),
        within: DOWNLOAD,
    };
    let reply = site.open(url, limits).await?;
    let bytes = pour(reply, &mut writer, |_| {}).await?;
    Ok((writer.end().await?, bytes))
}

/// A body into the store, piece by piece.
async fn pour(
    mut reply: Reply,
    writer: &mut crate::files::Writer,
    told: impl Fn(u64),
) -> Result<u64, Trouble> {
    let mut bytes = 0;
    while let Some(piece) = reply.piece().await? {
        bytes += piece.len() as u64;
        writer.write(&piece).await?;
        told(bytes);
    }
    if bytes == 0 {
        let detail = "the site sent an empty file";
        return Err(Trouble::Final(refusal("source_not_found", 404, detail)));
    }
    Ok(bytes)
}

async fn fetch(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    let mut writer = shop.files.begin(&job.id, job.fence, &job.role).await?;
    let limits = Limits {
        bytes: writer.most(),
        within: DOWNLOAD,
    };
    let reply = shop.egress.open(job.text("url"), &[], limits).await?;
    let host = reply.url.host_str().unwrap_or_default().to_owned();
    match reply.status.as_u16() {
        200 => {}
        status @ 500.. => return Err(Trouble::Again(format!("{host} answered with {status}"))),
        status => {
            let detail = format!("url: {host} answered with {status}");
            return Err(Trouble::Final(refusal("source_not_found", 404, detail)));
        }
    }
    let whole = reply.announced();
    let bytes = pour(reply, &mut writer, |bytes| {
        if let Some(whole) = whole {
            live.progress(bytes as f64 * 100.0 / whole as f64, "fetching");
        }
    })
    .await?;
    let written = writer.end().await?;
    let path = job.text("path");
    Ok(json!({
        "status": "complete",
        "result": {"name": path, "bytes": bytes, "files": [{"name": path, "path": path, "size_bytes": bytes}]},
        "files": [{
            "as": path, "origin": "download", "upload": written.upload, "sha256": written.sha256, "path": path,
            "license": job.arguments["license"], "author": job.arguments["author"], "source_url": job.arguments["source_url"],
        }],
    }))
}

/// The site's name for a file as a name inside the store: one part, no tricks, not twice.
fn own_name(name: &str, taken: &mut HashSet<String>) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last
        .chars()
        .filter(|c| !c.is_control())
        .take(120)
        .collect::<String>()
        .trim_matches([' ', '.'])
        .to_owned();
    let clean = if clean.is_empty() {
        "file".to_owned()
    } else {
        clean
    };
    let (stem, kind) = match clean.rsplit_once('.') {
        Some((stem, kind)) => (stem.to_owned(), format!(".{kind}")),
        None => (clean.clone(), String::new()),
    };
    let mut own = clean;
    let mut n = 2;
    while !taken.insert(own.to_lowercase()) {
        own = format!("{stem} ({n}){kind}");
        n += 1;
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_folder() {
        let mut taken = HashSet::new();
        let mut own = |name: &str| own_name(name, &mut taken);
        assert_eq!(own("../../etc/passwd"), "passwd");
        assert_eq!(own("..\\x\\a.stl"), "a.stl");
        assert_eq!(own("A.STL"), "A (2).STL");
        assert_eq!(own(".."), "file");
        assert_eq!(own("b\n\u{0}.stl"), "b.stl");
    }
}
