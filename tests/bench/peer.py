"""The peer of the benchmark: the same two tools by the Python MCP SDK and asyncpg, calling the same dispatcher with the same SQL.

    PEER_DSN=... PEER_CREDENTIAL=... peer.py PORT
"""

import json
import os
import sys
from contextlib import asynccontextmanager

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


async def call(tool, arguments):
    answer = json.loads(await server.pool.fetchval(CALL, CREDENTIAL, tool, json.dumps(arguments)))
    if answer["status"] != "complete":
        raise RuntimeError(answer["error"]["detail"])
    return answer["result"]


@server.tool()
async def get_part(id: int) -> dict:
    """Reads one part."""
    return await call("get_part", {"id": id})


@server.tool()
async def add_part(name: str, n: int) -> dict:
    """Adds a part."""
    return await call("add_part", {"name": name, "n": n})


if __name__ == "__main__":
    uvicorn.run(server.streamable_http_app(json_response=True, stateless_http=True), port=int(sys.argv[1]), log_level="error", access_log=False)
