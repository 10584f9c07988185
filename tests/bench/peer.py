"""The peer of the benchmark: the same tools by the Python MCP SDK and asyncpg, calling the same dispatcher with the same SQL.

    PEER_DSN=... PEER_CREDENTIAL=... peer.py PORT

It answers with structured content beside the text, as ours does, and is given what makes it quick: uvloop and httptools, JSON answers instead of
streams, no sessions, a pool of as many connections, no log.
"""

import json
import os
import sys
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import uvicorn
from mcp.server.mcpserver import MCPServer

CALL = "SELECT odin.gateway_call($1, $2, $3::text::jsonb, '{\"face\": \"mcp\"}')"
CREDENTIAL = os.environ["PEER_CREDENTIAL"]


@asynccontextmanager
async def database(server):
    async with asyncpg.create_pool(os.environ["PEER_DSN"], min_size=16, max_size=16) as pool:
        server.pool = pool
        yield {}


server = MCPServer("peer", lifespan=database, log_level="ERROR")


async def call(tool, **arguments):
    answer = json.loads(await server.pool.fetchval(CALL, CREDENTIAL, tool, json.dumps(arguments)))
    if answer["status"] != "complete":
        raise RuntimeError(answer["error"]["detail"])
    return answer["result"]


@server.tool()
async def get_part(id: int) -> dict[str, Any]:
    """Reads one part."""
    return await call("get_part", id=id)


@server.tool()
async def add_part(name: str, n: int) -> dict[str, Any]:
    """Adds a part."""
    return await call("add_part", name=name, n=n)


@server.tool()
async def list_queue(limit: int = 100) -> dict[str, Any]:
    """Lists the jobs that wait."""
    return await call("list_queue", limit=limit)


@server.tool()
async def get_job(id: int) -> dict[str, Any]:
    """Shows one job in full."""
    return await call("get_job", id=id)


@server.tool()
async def queue_job(model_id: int) -> dict[str, Any]:
    """Queues a model to be printed."""
    return await call("queue_job", model_id=model_id)


if __name__ == "__main__":
    app = server.streamable_http_app(json_response=True, stateless_http=True)
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, loop="uvloop", http="httptools")
