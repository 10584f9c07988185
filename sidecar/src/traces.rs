//! Spans to an OpenTelemetry collector, when OTEL_EXPORTER_OTLP_ENDPOINT names one: OTLP over HTTP, in batches, and never in
//! the way of a request. What a span says is what the log says: no key, no argument, no result.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{connect::HttpConnector, Client};
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::Resource;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::Layer;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();
/// A collector that does not answer is given up after this.
const LIMIT: Duration = Duration::from_secs(10);
const MOST_ANSWER: usize = 64 * 1024;

/// The layer that exports spans; `None` where no collector is configured. Must be made inside the runtime.
pub fn layer<S>() -> Result<Option<impl Layer<S>>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let configured = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    if !configured.iter().any(set) || disabled() {
        return Ok(None);
    }
    // The endpoint, headers and timeout come from the standard variables.
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new()?)
        .build()
        .map_err(|e| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {e}"))?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(crate::mcp::SERVER_NAME);
    }
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.with_attribute(version).build())
        .build();
    let tracer = provider.tracer(crate::mcp::SERVER_NAME);
    // A second start in one process (tests) keeps the first.
    let _ = PROVIDER.set(provider);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        // Our own spans: libraries have others.
        .with_filter(filter_fn(|of| {
            of.is_span() && of.target().starts_with("odin_farm")
        }));
    Ok(Some(layer))
}

/// The standard switch that turns everything off.
fn disabled() -> bool {
    std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// What has not been sent yet is sent now.
pub fn flush() {
    if let Some(provider) = PROVIDER.get() {
        if let Err(e) = provider.shutdown_with_timeout(Duration::from_secs(3)) {
            tracing::warn!(error = %e, "the last spans were not taken");
        }
    }
}

struct Parent<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Make the caller's span the parent of ours.
pub fn continue_trace(span: &tracing::Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    let (Some(traceparent), Some(_)) = (traceparent, PROVIDER.get()) else {
        return;
    };
    let parent = Parent {
        traceparent,
        tracestate,
    };
    // A span that nobody records has no parent either.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&parent));
}

/// The id of the trace that is being recorded, if one is.
pub fn trace_id() -> Option<String> {
    PROVIDER.get()?;
    let context = tracing::Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// The way to the collector. The exporter's thread is not the runtime's, so the talking is done there.
#[derive(Debug)]
struct Collector {
    client: Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: tokio::runtime::Handle,
}

impl Collector {
    fn new() -> Result<Collector, String> {
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|e| e.to_string())?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Collector {
            client: Client::builder(TokioExecutor::new()).build(tls),
            runtime: tokio::runtime::Handle::try_current().map_err(|e| e.to_string())?,
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let talk = async move {
            let response = client.request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MOST_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        self.runtime
            .spawn(async move { tokio::time::timeout(LIMIT, talk).await? })
            .await?
    }
}
