"""The Python SDK over streamable HTTP: argument legacy, auto or 2026-07-28. And fastmcp: argument fastmcp."""

import asyncio
import os
import sys

import httpx2

MODE = sys.argv[1]
URL = os.environ["ODIN_TEST_MCP"]


def client(key):
    if MODE == "fastmcp":
        from fastmcp import Client

        return Client(URL, auth=key)
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=300)
    return Client(streamable_http_client(URL, http_client=http), mode=MODE)


async def call(session, name, arguments):
    if MODE == "fastmcp":
        return await session.call_tool(name, arguments, raise_on_error=False)
    return await session.call_tool(name, arguments)


async def main():
    async with client(os.environ["ODIN_TEST_KEY"]) as session:
        listed = await session.list_tools()
        tools = getattr(listed, "tools", listed)
        assert any(tool.name == "greet" for tool in tools), "greet is listed"
        greeting = await call(session, "greet", {"name": "World"})
        assert greeting.content[0].text == "Hello, World!", greeting
        found = await call(session, "search_tools", {"query": "find tools"})
        assert found.structured_content["count"] >= 1, found
        failed = await call(session, "test_error_handling", {})
        assert failed.is_error, failed
    try:
        async with client("odin_not_a_key") as stranger:
            await stranger.list_tools()
    except BaseException as error:  # exception groups too: any refusal is the right answer
        print("refused:", type(error).__name__)
        return
    raise SystemExit("a bad key was let in")


asyncio.run(asyncio.wait_for(main(), 500))
