// The TypeScript SDK, version 1 (2025-11-25), over streamable HTTP.
import { createRequire } from 'node:module';
import { drive } from './drive.mjs';

const require = createRequire(process.env.NODE_MODULES + '/');
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');

await drive(async (key) => {
  const client = new Client({ name: 'odin-tests', version: '1' }, { capabilities: {} });
  const requestInit = { headers: { Authorization: `Bearer ${key}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(process.env.ODIN_TEST_MCP), { requestInit }));
  return {
    list: async () => (await client.listTools()).tools,
    call: (name, args) => client.callTool({ name, arguments: args }),
    close: () => client.close(),
  };
});
