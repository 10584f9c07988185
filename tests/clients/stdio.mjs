// A client that starts its server: node stdio.mjs COMMAND ARGUMENTS... The key is put into ODIN_KEY for the command.
// Speaks plain JSON lines of 2025-06-18, as desktop hosts do.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { drive } from './drive.mjs';

const command = process.argv.slice(2);

await drive(async (key) => {
  const child = spawn(command[0], command.slice(1), {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ODIN_KEY: key, ODIN_AUTH: `Bearer ${key}` },
  });
  const waiting = new Map();
  let gone;
  const left = new Promise((_, reject) => (gone = reject));
  left.catch(() => {});
  child.on('exit', (code) => gone(new Error(`${command[0]} ended with ${code}`)));
  createInterface({ input: child.stdout }).on('line', (line) => {
    const message = JSON.parse(line);
    waiting.get(message.id)?.(message);
  });
  let id = 0;
  const send = (message) => child.stdin.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n');
  const ask = async (method, params) => {
    const mine = ++id;
    const answer = new Promise((resolve) => waiting.set(mine, resolve));
    send({ id: mine, method, params });
    const timeout = new Promise((_, reject) => setTimeout(reject, 240000, new Error(`no answer to ${method}`)).unref());
    const message = await Promise.race([answer, left, timeout]);
    if (message.error) throw new Error(message.error.message);
    return message.result;
  };
  await ask('initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'odin-tests', version: '1' } });
  send({ method: 'notifications/initialized' });
  return {
    list: async () => (await ask('tools/list', {})).tools,
    call: (name, args) => ask('tools/call', { name, arguments: args }),
    close: async () => child.stdin.end(),
  };
});
