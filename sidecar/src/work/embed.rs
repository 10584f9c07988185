//! Back-fill of vectors: announces the endpoint's model, takes passages that wait, brings their vectors back, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::db::{Channel, Db, DbError, Listener};
use crate::embed::{EmbedError, Embedder};

const ANNOUNCE: &str = "SELECT odin.worker_embedder($1, $2)";
const BATCH: &str = "SELECT odin.worker_embed_batch($1, $2)";
const EMBEDDED: &str = "SELECT to_jsonb(odin.worker_embedded($1, $2))";
const FAILED: &str = "SELECT to_jsonb(odin.worker_embed_failed($1, $2, $3))";

const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Endpoint(#[from] EmbedError),
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("{0}")]
    Refused(String),
}

/// The model as the farm knows it, and when it was told last.
#[derive(Default)]
struct Known {
    dimensions: Option<usize>,
    model_id: Option<i64>,
    told: Option<Instant>,
}

pub async fn run(
    embedder: Arc<Embedder>,
    db: Db,
    listener: Arc<Listener>,
    stop: CancellationToken,
) {
    let mut wake = listener.subscribe();
    let mut known = Known::default();
    let mut failures = 0u32;
    loop {
        let wait = match pass(&embedder, &db, &mut known).await {
            Ok(true) => {
                failures = 0;
                Duration::ZERO
            }
            Ok(false) => {
                failures = 0;
                LOOK_ANYWAY
            }
            Err(e) => {
                // An outage is said once, then now and then.
                if failures.is_multiple_of(10) {
                    tracing::warn!(error = %e, model = embedder.model, "passages wait for their vectors");
                }
                failures += 1;
                known.told = None;
                LONGEST_WAIT.min(Duration::from_secs(2 << failures.min(5)))
            }
        };
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = woken(&mut wake), if failures == 0 && !wait.is_zero() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn woken(wake: &mut broadcast::Receiver<Channel>) {
    loop {
        match wake.recv().await {
            Ok(Channel::Work | Channel::Registry) | Err(broadcast::error::RecvError::Lagged(_)) => {
                return
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// One batch; true when there may be more.
async fn pass(embedder: &Embedder, db: &Db, known: &mut Known) -> Result<bool, Trouble> {
    let model_id = announce(embedder, db, known).await?;
    let most = i32::try_from(embedder.batch).unwrap_or(32);
    let Value::Array(batch) = db.quick(BATCH, &[&model_id, &most]).await? else {
        return Ok(false);
    };
    if batch.is_empty() {
        return Ok(false);
    }
    match embed(embedder, &batch).await {
        Ok(vectors) => keep(db, model_id, known, &batch, vectors).await?,
        // One of them is too long or otherwise unwelcome: each by itself.
        Err(e) if e.is_about_the_texts() && batch.len() > 1 => {
            for one in batch.chunks(1) {
                match embed(embedder, one).await {
                    Ok(vectors) => keep(db, model_id, known, one, vectors).await?,
                    Err(e) => give_up(db, one, &e).await?,
                }
            }
        }
        Err(e) => {
            give_up(db, &batch, &e).await?;
            return Err(e.into());
        }
    }
    Ok(true)
}

async fn announce(embedder: &Embedder, db: &Db, known: &mut Known) -> Result<i64, Trouble> {
    if let (Some(id), Some(told)) = (known.model_id, known.told) {
        if told.elapsed() < ANNOUNCE_EVERY {
            return Ok(id);
        }
    }
    let dimensions = match known.dimensions {
        Some(n) => n,
        None => embedder
            .vectors(&["a print farm"])
            .await?
            .first()
            .map_or(0, Vec::len),
    };
    known.dimensions = Some(dimensions);
    let wide = i32::try_from(dimensions).unwrap_or(i32::MAX);
    let answer = db.quick(ANNOUNCE, &[&embedder.model, &wide]).await?;
    let Some(id) = answer["model_id"].as_i64() else {
        let reason = answer["reason"]
            .as_str()
            .unwrap_or("the farm refused the model");
        return Err(Trouble::Refused(reason.to_owned()));
    };
    known.model_id = Some(id);
    known.told = Some(Instant::now());
    Ok(id)
}

async fn embed(embedder: &Embedder, batch: &[Value]) -> Result<Vec<Vec<f32>>, EmbedError> {
    let texts: Vec<&str> = batch
        .iter()
        .map(|row| row["text"].as_str().unwrap_or(" "))
        .collect();
    embedder.vectors(&texts).await
}

async fn keep(
    db: &Db,
    model_id: i64,
    known: &mut Known,
    batch: &[Value],
    vectors: Vec<Vec<f32>>,
) -> Result<(), Trouble> {
    if vectors.iter().any(|v| Some(v.len()) != known.dimensions) {
        // The endpoint serves another model under the same name now.
        *known = Known::default();
        return Err(Trouble::Refused(
            "the endpoint's vectors have another length than before".to_owned(),
        ));
    }
    let rows: Vec<Value> = batch
        .iter()
        .zip(vectors)
        .map(|(row, vector)| {
            let mut row = row.clone();
            row["vector"] = json!(vector);
            row
        })
        .collect();
    db.quick(EMBEDDED, &[&model_id, &Value::Array(rows)])
        .await?;
    Ok(())
}

/// These get no vector now: later if the endpoint was the trouble, much later if the text was.
async fn give_up(db: &Db, batch: &[Value], error: &EmbedError) -> Result<(), Trouble> {
    let chunks: Vec<i64> = batch
        .iter()
        .filter_map(|row| row["chunk"].as_i64())
        .collect();
    let said = error.to_string();
    let back = !error.is_about_the_texts();
    db.quick(FAILED, &[&chunks, &said, &back]).await?;
    Ok(())
}
