// The TypeScript SDK, version 2: argument "legacy" or "auto" (2026-07-28 first).
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { drive } from './drive.mjs';

const require = createRequire(process.env.NODE_MODULES + '/');
const { Client, StreamableHTTPClientTransport } = await import(pathToFileURL(require.resolve('@modelcontextprotocol/client')));
const mode = process.argv[2];

await drive(async (key) => {
  const options = mode === 'auto' ? { versionNegotiation: { mode: 'auto' } } : {};
  const client = new Client({ name: 'odin-tests', version: '1' }, options);
  const requestInit = { headers: { Authorization: `Bearer ${key}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(process.env.ODIN_TEST_MCP), { requestInit }));
  return {
    list: async () => (await client.listTools()).tools,
    call: (name, args) => client.callTool({ name, arguments: args }),
    close: () => client.close(),
  };
});
