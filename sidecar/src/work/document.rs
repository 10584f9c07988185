//! Reads the text of a stored document. PDF is taken apart in a process of its own with limits: what a stranger wrote may
//! loop or eat memory there, and printers are not left alone for it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::claims::Job;
use super::jobs::{refusal, Live, Trouble};
use super::shop::Shop;
use crate::files::CHUNK;

const MOST_FILE: u64 = 64 * 1024 * 1024;
const MOST_TEXT: usize = 8 * 1024 * 1024;
const READ_WITHIN: Duration = Duration::from_secs(120);
const MOST_MEMORY: u64 = 2 * 1024 * 1024 * 1024;
/// Between pages.
const PAGE_END: &str = "\u{c}";

pub async fn carry_out(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    let file = shop.files.open(job.text("sha256"), job.org).await?;
    if file.bytes > MOST_FILE {
        return Err(unreadable(format!(
            "it has {} bytes; at most {MOST_FILE} are read",
            file.bytes
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(file.bytes).unwrap_or_default());
    while (bytes.len() as u64) < file.bytes {
        let piece = shop.files.read(&file, bytes.len() as u64, CHUNK).await?;
        if piece.is_empty() {
            return Err(Trouble::Again(
                "the stored file is shorter than it says".to_owned(),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    let text = match job.text("format") {
        "pdf" => {
            live.progress(20.0, "reading the PDF");
            tokio::select! {
                text = pdf_apart(&bytes) => text?,
                () = live.cancel.cancelled() => return Err(Trouble::Stopped),
            }
        }
        _ => plain(bytes)?,
    };
    if text.len() > MOST_TEXT {
        return Err(unreadable(format!(
            "its text is longer than {} MB; split it",
            MOST_TEXT / 1024 / 1024
        )));
    }
    let characters = text.chars().count();
    Ok(json!({
        "status": "complete",
        "result": {"document_id": job.arguments["document_id"], "state": "ready", "characters": characters},
        "effect": {"text": text},
    }))
}

fn unreadable(detail: impl Into<String>) -> Trouble {
    Trouble::Final(refusal("file_unreadable", 422, detail))
}

/// UTF-8, with or without a mark at its beginning. PostgreSQL keeps no NUL.
fn plain(bytes: Vec<u8>) -> Result<String, Trouble> {
    let text = String::from_utf8(bytes)
        .map_err(|_| unreadable("it is not UTF-8 text; save it as UTF-8"))?;
    Ok(text.trim_start_matches('\u{feff}').replace('\0', ""))
}

async fn pdf_apart(bytes: &[u8]) -> Result<String, Trouble> {
    let again = |e: std::io::Error| Trouble::Again(format!("the reader cannot be started: {e}"));
    let program = std::env::current_exe().map_err(again)?;
    let mut child = tokio::process::Command::new(program)
        .arg("read-pdf")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(again)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Trouble::Again(
            "the reader has no ends to talk to".to_owned(),
        ));
    };
    let talk = async {
        let feed = async {
            // A reader that gave up closes its end; what it said counts.
            let _ = input.write_all(bytes).await;
            drop(input);
        };
        let mut said = Vec::new();
        let mut output = output.take(MOST_TEXT as u64 + 1);
        let (_, read) = tokio::join!(feed, output.read_to_end(&mut said));
        read.map(|_| said)
    };
    let said = tokio::time::timeout(READ_WITHIN, talk)
        .await
        .map_err(|_| {
            unreadable(format!(
                "reading it took longer than {} s",
                READ_WITHIN.as_secs()
            ))
        })?
        .map_err(again)?;
    let ended = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
    match ended {
        Ok(Ok(status)) if status.success() => plain(said),
        _ => {
            let why = String::from_utf8_lossy(&said[..said.len().min(200)]).replace('\0', "");
            let why = why.lines().next().unwrap_or_default().trim().to_owned();
            Err(unreadable(match why.strip_prefix("problem: ") {
                Some(why) => format!("the PDF cannot be read: {why}"),
                None => "the PDF cannot be read: it is damaged, or not a PDF".to_owned(),
            }))
        }
    }
}

/// `odin-farm read-pdf`: a PDF on stdin, its text on stdout, pages ended by form feeds.
pub fn read_pdf() -> Result<(), String> {
    use std::io::{Read, Write};
    limit(libc::RLIMIT_AS, MOST_MEMORY);
    limit(libc::RLIMIT_CPU, READ_WITHIN.as_secs());
    limit(libc::RLIMIT_CORE, 0);
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MOST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    // The library panics on some damaged files.
    std::panic::set_hook(Box::new(|_| {}));
    let pages = std::panic::catch_unwind(|| pdf_extract::extract_text_from_mem_by_pages(&bytes));
    let mut out = std::io::stdout();
    match pages {
        Ok(Ok(pages)) => out.write_all(pages.join(PAGE_END).as_bytes()),
        Ok(Err(e)) => {
            let _ = writeln!(out, "problem: {e}");
            return Err("unreadable".to_owned());
        }
        Err(_) => return Err("unreadable".to_owned()),
    }
    .map_err(|e| e.to_string())
}

fn limit(what: libc::__rlimit_resource_t, most: u64) {
    let wanted = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: a plain system call on a value of ours; when it fails there is one guard less.
    unsafe {
        libc::setrlimit(what, &wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_utf8_without_marks_and_nuls() {
        assert_eq!(plain("\u{feff}Düse\0 1".into()).unwrap(), "Düse 1");
        assert!(plain(vec![0xff, 0xfe, 0x41]).is_err());
    }
}
