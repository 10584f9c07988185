// What every client has to manage: list, call, get an error, be refused with a bad key. Exits 0 only if all four went well.
import assert from 'node:assert/strict';

export async function drive(connect) {
  const client = await connect(process.env.ODIN_TEST_KEY);
  const tools = await client.list();
  assert.ok(tools.some((tool) => tool.name === 'greet'), 'greet is listed');
  const greeting = await client.call('greet', { name: 'World' });
  assert.equal(greeting.content[0].text, 'Hello, World!');
  const structured = await client.call('search_tools', { query: 'find tools' });
  assert.ok(structured.structuredContent.count >= 1, 'structured content is there');
  const failed = await client.call('test_error_handling', {});
  assert.equal(failed.isError, true);
  await client.close();
  await assert.rejects(async () => {
    const stranger = await connect('odin_not_a_key');
    await stranger.list();
  }, 'a bad key is refused');
  process.exit(0);
}
