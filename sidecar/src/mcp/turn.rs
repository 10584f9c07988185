//! One request of an older client: its method runs in the task that serves the connection. rmcp's loop carries only what is
//! said besides the answer: a loop, a task and a channel for each answer cost a plain call more than the call itself.

use std::future::{pending, ready, Future};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, GetExtensions, GetMeta, InitializeRequestParams,
    JsonRpcRequest, ServerJsonRpcMessage,
};
use rmcp::service::{serve_directly_with_ct, RequestContext, RoleServer, Service};
use rmcp::transport::Transport;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handler::Handler;

type Out = mpsc::UnboundedSender<ServerJsonRpcMessage>;

/// Says what the loop is given to say, and hears nothing: requests come by themselves.
struct Mouth(Out);

impl Transport<RoleServer> for Mouth {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready(self.0.send(message).map_err(gone))
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        pending().await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Run the method. Progress and logs go `out` before its answer.
async fn serve(
    handler: Handler,
    asked: JsonRpcRequest<ClientRequest>,
    peer: InitializeRequestParams,
    out: Out,
    stop: CancellationToken,
) {
    let JsonRpcRequest {
        id, mut request, ..
    } = asked;
    let loops = stop.child_token();
    // The loop ends with this future.
    let service = serve_directly_with_ct(handler.clone(), Mouth(out.clone()), Some(peer), loops);
    let mut context = RequestContext::new(id.clone(), service.peer().clone());
    context.ct = stop.child_token();
    context.meta = std::mem::take(request.get_meta_mut());
    context.extensions = std::mem::take(request.extensions_mut());
    let answer = match handler.handle_request(request, context).await {
        Ok(result) => ServerJsonRpcMessage::response(result, id),
        Err(error) => ServerJsonRpcMessage::error(error, Some(id)),
    };
    // Whoever asked may be gone.
    let _ = out.send(answer);
}

/// A request being served. In these revisions a client that disconnects has not cancelled: dropped before its end, it goes on
/// by itself.
pub struct Turn {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Turn {
    /// What it says goes `out`, its answer last. `held` lasts as long as the work does.
    pub fn new(
        handler: Handler,
        asked: JsonRpcRequest<ClientRequest>,
        peer: InitializeRequestParams,
        out: Out,
        stop: CancellationToken,
        held: impl Send + 'static,
    ) -> Turn {
        let work = async move {
            let _held = held;
            serve(handler, asked, peer, out, stop).await;
        };
        Turn {
            work: Some(Box::pin(work)),
        }
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = &mut self.work {
            std::task::ready!(work.as_mut().poll(cx));
            self.work = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
