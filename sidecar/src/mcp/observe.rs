//! One line, one span and one measurement per operation, named by the OpenTelemetry conventions for MCP.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use rmcp::service::{RequestContext, RoleServer};
use rmcp::ErrorData;
use tracing::field::Empty;
use tracing::Instrument;

use super::handler::Handler;
use super::message;
use crate::traces;

impl Handler {
    /// `work` comes in a box: rmcp's future of a request has room for every method's, and is moved whole from task to task.
    /// `failed` finds the error inside a result that the protocol counts as a success.
    pub async fn observed<T>(
        &self,
        method: &'static str,
        target: Option<&str>,
        cx: &RequestContext<RoleServer>,
        work: Pin<Box<impl Future<Output = Result<T, ErrorData>>>>,
        failed: impl Fn(&T) -> Option<String>,
    ) -> Result<T, ErrorData> {
        let started = Instant::now();
        let tool = target.filter(|_| method == "tools/call");
        let traceparent = cx.meta.get_traceparent();
        let trace_id = traceparent.and_then(message::trace_id);
        let version = cx.protocol_version().map(|v| v.to_string());
        let span = tracing::info_span!(
            "mcp",
            otel.name = match target {
                Some(target) => format!("{method} {target}"),
                None => method.to_owned(),
            },
            otel.kind = "server",
            otel.status_code = Empty,
            mcp.method.name = method,
            mcp.protocol.version = version,
            gen_ai.tool.name = tool,
            gen_ai.operation.name = tool.map(|_| "execute_tool"),
            gen_ai.prompt.name = target.filter(|_| method == "prompts/get"),
            jsonrpc.request.id = %cx.id,
            client.address = self.caller.ip.map(tracing::field::display),
            error.r#type = Empty,
            odin.request_id = %self.caller.request_id,
            odin.role = %self.caller.principal.role,
        );
        traces::continue_trace(&span, traceparent, cx.meta.get_tracestate());
        let result = work.instrument(span.clone()).await;
        let outcome = match &result {
            Ok(value) => failed(value),
            Err(e) => Some(e.code.0.to_string()),
        };
        let took = started.elapsed();
        let face = self.caller.face.as_str();
        let label = outcome.as_deref().unwrap_or("ok");
        self.app.metrics.operation(face, method, tool, label, took);
        if let Some(failed) = &outcome {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", failed);
        }
        span.in_scope(|| {
            tracing::info!(
                mcp.method.name = method,
                gen_ai.tool.name = tool,
                mcp.protocol.version = version,
                jsonrpc.request.id = %cx.id,
                trace_id,
                error.r#type = outcome,
                duration_ms = took.as_micros() as f64 / 1000.0,
                request_id = %self.caller.request_id,
                key = %self.caller.principal.key_name,
                role = %self.caller.principal.role,
                client.address = self.caller.ip.map(tracing::field::display),
                face,
                "request"
            );
        });
        result
    }
}
