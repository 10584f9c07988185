//! Thingiverse's interface: search, one thing, its files. The token goes only to the site itself, never to where it sends
//! us for a download, and never into a message.

use http::header::{HeaderName, HeaderValue, AUTHORIZATION, RETRY_AFTER};
use http::HeaderMap;
use serde_json::{json, Value};
use url::Url;

use crate::egress::{Egress, EgressError, Limits, Reply};

/// What PrintMCP took for printable, and what slicers read.
const MODELS: [&str; 7] = ["stl", "obj", "3mf", "step", "stp", "amf", "ply"];
const MOST_DESCRIPTION: usize = 500;

#[derive(Debug)]
pub enum SourceError {
    Egress(EgressError),
    /// The farm's error object.
    Said(Value),
    /// The site is in trouble; later it may not be.
    Later(String),
}

impl From<EgressError> for SourceError {
    fn from(error: EgressError) -> Self {
        SourceError::Egress(error)
    }
}

pub struct Thingiverse<'a> {
    pub egress: &'a Egress,
    pub base: &'a Url,
    pub token: &'a str,
}

/// One file of a thing.
#[derive(Debug, Clone, PartialEq)]
pub struct ThingFile {
    pub id: Option<i64>,
    pub name: String,
    pub bytes: Option<u64>,
    pub url: Option<String>,
}

impl ThingFile {
    pub fn is_model(&self) -> bool {
        let kind = self.name.rsplit_once('.').map(|(_, kind)| kind);
        kind.is_some_and(|kind| MODELS.iter().any(|m| m.eq_ignore_ascii_case(kind)))
    }
}

/// What is kept with every file of a thing.
#[derive(Debug)]
pub struct Thing {
    pub about: Value,
    pub files: Vec<ThingFile>,
}

impl Thingiverse<'_> {
    pub async fn search(&self, query: &str, limit: i64, page: i64) -> Result<Value, SourceError> {
        let mut url = self.address(&["search", query])?;
        url.query_pairs_mut()
            .append_pair("type", "things")
            .append_pair("per_page", &limit.to_string())
            .append_pair("page", &page.to_string());
        let answer = self.ask(url).await?;
        let hits = answer["hits"]
            .as_array()
            .or(answer.as_array())
            .ok_or_else(odd)?;
        let results: Vec<Value> = hits
            .iter()
            .take(usize::try_from(limit).unwrap_or(30))
            .map(|hit| {
                json!({
                    "id": hit["id"].as_i64(), "name": hit["name"].as_str(), "creator": hit["creator"]["name"].as_str(),
                    "url": hit["public_url"].as_str(), "thumbnail": hit["thumbnail"].as_str().or(hit["preview_image"].as_str()),
                    "like_count": hit["like_count"].as_i64(), "is_nsfw": hit["is_nsfw"].as_bool(),
                })
            })
            .collect();
        let total = answer["total"]
            .as_i64()
            .unwrap_or_else(|| i64::try_from(results.len()).unwrap_or(i64::MAX));
        Ok(
            json!({"query": query, "total": total, "count": results.len(), "page": page, "results": results}),
        )
    }

    pub async fn thing(&self, id: i64) -> Result<Thing, SourceError> {
        let id = id.to_string();
        let thing = self.ask(self.address(&["things", &id])?).await?;
        let files = self.ask(self.address(&["things", &id, "files"])?).await?;
        let files = files.as_array().ok_or_else(odd)?;
        let files: Vec<ThingFile> = files.iter().map(file).collect();
        let about = json!({
            "id": thing["id"].as_i64().ok_or_else(odd)?, "name": thing["name"].as_str(), "creator": thing["creator"]["name"].as_str(),
            "license": thing["license"].as_str(), "url": thing["public_url"].as_str(),
            "description": thing["description"].as_str().map(plain_text), "file_count": files.len(),
            "files": files.iter().map(|f| json!({"file_id": f.id, "name": f.name, "size_bytes": f.bytes, "download_url": f.url})).collect::<Vec<_>>(),
        });
        Ok(Thing { about, files })
    }

    /// Opens a download. Thingiverse sends us on to where it keeps files; the token stays behind.
    pub async fn open(&self, url: &str, limits: Limits) -> Result<Reply, SourceError> {
        let own = Url::parse(url).is_ok_and(|url| url.origin() == self.base.origin())
            && self.base.has_host();
        let headers = if own {
            vec![self.bearer()?]
        } else {
            Vec::new()
        };
        let reply = self.egress.open(url, &headers, limits).await?;
        if reply.status.is_success() {
            Ok(reply)
        } else {
            Err(refused(reply.status.as_u16(), &reply.headers))
        }
    }

    fn address(&self, parts: &[&str]) -> Result<Url, SourceError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| odd())?
            .pop_if_empty()
            .extend(parts);
        Ok(url)
    }

    fn bearer(&self) -> Result<(HeaderName, HeaderValue), SourceError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.token)).map_err(|_| {
            said(
                "source_refused",
                502,
                "the token holds characters that no header can carry",
            )
        })?;
        value.set_sensitive(true);
        Ok((AUTHORIZATION, value))
    }

    async fn ask(&self, url: Url) -> Result<Value, SourceError> {
        let headers = [self.bearer()?];
        let answer = self
            .egress
            .get(url.as_str(), &headers, Limits::SMALL)
            .await?;
        if !answer.status.is_success() {
            return Err(refused(answer.status.as_u16(), &answer.headers));
        }
        serde_json::from_slice(&answer.body).map_err(|_| odd())
    }
}

fn said(code: &str, status: u16, detail: &str) -> SourceError {
    SourceError::Said(json!({"code": code, "status": status, "retriable": false, "detail": detail}))
}

fn odd() -> SourceError {
    SourceError::Later("Thingiverse answered with something that is not its interface".to_owned())
}

/// What a status means, in words that say what to do.
fn refused(status: u16, headers: &HeaderMap) -> SourceError {
    match status {
        401 => said("source_refused", 502, "Authentication failed (401): Thingiverse does not accept the org's token; an administrator sets a new one with set_source_token"),
        403 => said("source_refused", 502, "Permission denied (403): the org's Thingiverse token may not do this"),
        404 => said("source_not_found", 404, "Not found (404): Thingiverse has no such thing or file"),
        429 => {
            let wait = headers
                .get(RETRY_AFTER)
                .and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok())
                .unwrap_or(60);
            SourceError::Said(json!({
                "code": "rate_limited", "status": 429, "retriable": true, "retry_after": wait.min(3600),
                "detail": "Rate limited (429): Thingiverse has had enough requests with this token for now",
            }))
        }
        500.. => SourceError::Later(format!("Thingiverse is in trouble (status {status})")),
        _ => said("source_refused", 502, &format!("Thingiverse refused the request with status {status}")),
    }
}

fn file(row: &Value) -> ThingFile {
    ThingFile {
        id: row["id"].as_i64(),
        name: row["name"].as_str().unwrap_or("unnamed").to_owned(),
        bytes: row["size"].as_u64(),
        url: ["download_url", "direct_url", "url"]
            .iter()
            .find_map(|n| row[*n].as_str())
            .map(str::to_owned),
    }
}

/// Without tags, entities and runs of blanks, and not longer than anybody reads.
fn plain_text(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        text.push(' ');
        rest = rest[open..]
            .find('>')
            .map_or("", |end| &rest[open + end + 1..]);
    }
    text.push_str(rest);
    for (entity, sign) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, sign);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MOST_DESCRIPTION).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_text() {
        assert_eq!(
            plain_text("<p>A <b>small</b>&nbsp;box</p><script\n>1 &lt; 2</script"),
            "A small box 1 < 2"
        );
        assert_eq!(plain_text(&"é".repeat(900)).chars().count(), 500);
    }

    #[test]
    fn models_by_name() {
        let named = |name: &str| ThingFile {
            id: None,
            name: name.to_owned(),
            bytes: None,
            url: None,
        };
        assert!(named("a.STL").is_model() && named("b.3mf").is_model());
        assert!(!named("photo.jpg").is_model() && !named("stl").is_model());
    }
}
