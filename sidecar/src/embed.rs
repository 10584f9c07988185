//! Vectors from an OpenAI-compatible endpoint (Ollama, llama.cpp, vLLM, ...): passages in batches, and the question of a call.
//! Without an endpoint the farm searches by words; a question is never held up for long by one that does not answer.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::header::{HeaderName, HeaderValue, AUTHORIZATION, CONTENT_TYPE};
use serde_json::{json, Value};

use crate::egress::{Egress, EgressError, EgressOptions, Limits};

const BATCH_WITHIN: Duration = Duration::from_secs(120);
/// After a failure questions go without a vector for this long.
const PAUSE: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 256;

/// Where vectors come from.
#[derive(Args, Clone, Default)]
pub struct EmbedOptions {
    /// OpenAI-compatible interface that makes vectors, for example http://10.0.0.5:11434/v1; its host must be allowed by egress
    #[arg(id = "embed_url", long = "embed-url", env = "ODIN_EMBED_URL")]
    pub url: Option<String>,
    /// The embedding model to ask it for
    #[arg(id = "embed_model", long = "embed-model", env = "ODIN_EMBED_MODEL")]
    pub model: Option<String>,
    /// File holding the key of that interface, if it wants one; otherwise ODIN_EMBED_KEY
    #[arg(
        id = "embed_key_file",
        long = "embed-key-file",
        env = "ODIN_EMBED_KEY_FILE"
    )]
    pub key_file: Option<PathBuf>,
    /// Passages sent at once
    #[arg(
        id = "embed_batch",
        long = "embed-batch",
        env = "ODIN_EMBED_BATCH",
        default_value_t = 32
    )]
    pub batch: usize,
    /// How long a question waits for its vector before it is answered by words, in seconds
    #[arg(
        id = "embed_wait",
        long = "embed-wait",
        env = "ODIN_EMBED_WAIT",
        default_value_t = 3
    )]
    pub wait: u64,
}

impl std::fmt::Debug for EmbedOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedOptions")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    #[error("{0}")]
    Way(#[from] EgressError),
    #[error("the embedding endpoint answered {status}{said}")]
    Status { status: u16, said: String },
    #[error("the embedding endpoint answered with {0}")]
    Odd(&'static str),
}

impl EmbedError {
    /// These texts are the trouble, not the endpoint.
    pub fn is_about_the_texts(&self) -> bool {
        matches!(self, EmbedError::Status { status, .. } if matches!(status, 400 | 413 | 422))
    }
}

pub struct Embedder {
    egress: Egress,
    url: String,
    pub model: String,
    pub batch: usize,
    question_within: Duration,
    headers: Vec<(HeaderName, HeaderValue)>,
    memory: Mutex<Memory>,
}

/// Questions asked lately, and until when none is asked.
#[derive(Default)]
struct Memory {
    recent: VecDeque<(String, Value)>,
    quiet_until: Option<Instant>,
}

impl Embedder {
    /// `None` when no endpoint is set up.
    pub fn new(
        options: &EmbedOptions,
        egress: &EgressOptions,
    ) -> Result<Option<Arc<Self>>, String> {
        let (url, model) = match (&options.url, &options.model) {
            (None, None) => return Ok(None),
            (Some(url), Some(model)) => (url, model),
            _ => return Err("ODIN_EMBED_URL and ODIN_EMBED_MODEL belong together".to_owned()),
        };
        let key = match &options.key_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|e| {
                format!("cannot read the embedding key file {}: {e}", path.display())
            })?),
            None => std::env::var("ODIN_EMBED_KEY").ok(),
        };
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if let Some(key) = key.as_deref().map(str::trim).filter(|k| !k.is_empty()) {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| "the embedding key holds characters that no header can carry")?;
            value.set_sensitive(true);
            headers.push((AUTHORIZATION, value));
        }
        Ok(Some(Arc::new(Embedder {
            egress: Egress::new(egress)?,
            url: format!("{}/embeddings", url.trim_end_matches('/')),
            model: model.clone(),
            batch: options.batch.clamp(1, 256),
            question_within: Duration::from_secs(options.wait.max(1)),
            headers,
            memory: Mutex::default(),
        })))
    }

    /// One vector for each text, all of the same length.
    pub async fn vectors(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.ask(texts, BATCH_WITHIN).await
    }

    async fn ask(&self, texts: &[&str], within: Duration) -> Result<Vec<Vec<f32>>, EmbedError> {
        let body = json!({"model": self.model, "input": texts, "encoding_format": "float"});
        let limits = Limits {
            bytes: 64 * 1024 * 1024,
            within,
        };
        let answer = self
            .egress
            .post(
                &self.url,
                &self.headers,
                Bytes::from(body.to_string()),
                limits,
            )
            .await?;
        if !answer.status.is_success() {
            return Err(EmbedError::Status {
                status: answer.status.as_u16(),
                said: complaint(&answer.body),
            });
        }
        let value: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| EmbedError::Odd("something that is not JSON"))?;
        read(&value, texts.len())
    }

    /// What a call brings along of its question: {"model", "vector"}, or {"problem"}.
    pub async fn question(&self, text: &str) -> Value {
        {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, known)) = memory.recent.iter().find(|(t, _)| t == text) {
                return known.clone();
            }
            if memory
                .quiet_until
                .is_some_and(|until| Instant::now() < until)
            {
                return json!({"problem": "the embedding endpoint did not answer a moment ago."});
            }
        }
        let asked = self.ask(&[text], self.question_within).await;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Ok(mut vectors) => {
                let found =
                    json!({"model": self.model, "vector": vectors.pop().unwrap_or_default()});
                memory.recent.push_front((text.to_owned(), found.clone()));
                memory.recent.truncate(REMEMBERED);
                found
            }
            Err(e) => {
                tracing::warn!(error = %e, "a question goes without a vector");
                memory.quiet_until = Some(Instant::now() + PAUSE);
                json!({"problem": format!("{e}.")})
            }
        }
    }
}

/// The texts of a call whose answer is better with a vector.
pub fn question_of<'a>(tool: &'a str, arguments: &'a Value) -> Option<&'a str> {
    let (tool, arguments) = match tool {
        "call_tool" => (arguments["name"].as_str()?, &arguments["arguments"]),
        tool => (tool, arguments),
    };
    let name = match tool {
        "knowledge_retriever" | "search_tools" => "query",
        "find_similar_failures" => "description",
        _ => return None,
    };
    arguments[name]
        .as_str()
        .filter(|text| !text.trim().is_empty() && text.len() <= 8_000)
}

fn read(answer: &Value, wanted: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
    let rows = answer["data"]
        .as_array()
        .filter(|rows| rows.len() == wanted)
        .ok_or(EmbedError::Odd("another number of vectors than of texts"))?;
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); wanted];
    for (i, row) in rows.iter().enumerate() {
        let place = row["index"].as_u64().map_or(i, |n| n as usize);
        let numbers: Option<Vec<f32>> = row["embedding"]
            .as_array()
            .and_then(|list| list.iter().map(|n| n.as_f64().map(|n| n as f32)).collect());
        match (found.get_mut(place), numbers) {
            (Some(slot), Some(numbers)) => *slot = numbers,
            _ => return Err(EmbedError::Odd("something that is not a list of vectors")),
        }
    }
    let length = found.first().map_or(0, Vec::len);
    let good = |v: &Vec<f32>| {
        v.len() == length && v.iter().all(|n| n.is_finite()) && v.iter().any(|n| *n != 0.0)
    };
    if length == 0 || !found.iter().all(good) {
        return Err(EmbedError::Odd("vectors that cannot be compared"));
    }
    Ok(found)
}

/// What the server says is wrong, short and in one line.
fn complaint(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let text = said["error"]["message"]
        .as_str()
        .or(said["error"].as_str())
        .unwrap_or_default();
    let text: String = text.chars().filter(|c| !c.is_control()).take(160).collect();
    match text.is_empty() {
        true => String::new(),
        false => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_their_index_and_checked() {
        let answer = json!({"data": [{"index": 1, "embedding": [0.5, 1]}, {"index": 0, "embedding": [1, 0]}]});
        assert_eq!(
            read(&answer, 2).unwrap(),
            vec![vec![1.0, 0.0], vec![0.5, 1.0]]
        );
        for bad in [
            json!({"data": []}),
            json!({"data": [{"embedding": [1]}, {"embedding": [1, 2]}]}),
            json!({"data": [{"embedding": [0, 0]}, {"embedding": [1, 2]}]}),
            json!({"data": [{"embedding": ["a"]}, {"embedding": [1]}]}),
            json!({"data": [{"index": 7, "embedding": [1]}, {"embedding": [1]}]}),
            json!({"error": "x"}),
        ] {
            assert!(read(&bad, 2).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_question_of_a_call() {
        assert_eq!(
            question_of("knowledge_retriever", &json!({"query": "x"})),
            Some("x")
        );
        let wrapped =
            json!({"name": "find_similar_failures", "arguments": {"description": "warped"}});
        assert_eq!(question_of("call_tool", &wrapped), Some("warped"));
        assert_eq!(question_of("queue_job", &json!({"query": "x"})), None);
        assert_eq!(question_of("search_tools", &json!({})), None);
    }
}
