// What the REST tests share: requests, checks, the fixture's facts. Node's own fetch; nothing to install.
import { readFileSync } from "node:fs";

export const base = process.env.ODIN_BASE_URL;
export const facts = Object.fromEntries(
  readFileSync(process.env.ODIN_TEST_FACTS, "utf8").trim().split("\n").map((line) => line.split(" ")));
export const keys = { viewer: facts.demo_viewer_key, operator: facts.demo_operator_key, admin: facts.demo_admin_key };
export const id = (name) => Number(facts[name]);

let passed = 0;
let failed = 0;

/** One test. What it throws is its failure. */
export async function test(name, work) {
  try {
    await work();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (e) {
    failed += 1;
    console.log(`NOT OK  ${name}\n        ${String(e.stack ?? e).split("\n").slice(0, 4).join("\n        ")}`);
  }
}

export function result(kind) {
  console.log(`odin-result: ${kind} passed=${passed} failed=${failed}`);
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
}

export function equal(got, wanted, what = "") {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what} got ${a?.slice(0, 300)}, wanted ${b}`);
}

export function assert(truth, what) {
  if (!truth) throw new Error(typeof what === "string" ? what : JSON.stringify(what)?.slice(0, 400));
}

/** A request; the answer's body is read as JSON where it is JSON. */
export async function ask(method, path, { key = keys.operator, body, headers = {}, basic } = {}) {
  const send = { ...headers };
  if (basic) send.authorization = `Basic ${Buffer.from(basic).toString("base64")}`;
  else if (key) send["x-api-key"] = key;
  const options = { method, headers: send };
  if (body !== undefined) {
    options.body = typeof body === "string" ? body : JSON.stringify(body);
    send["content-type"] ??= "application/json";
  }
  const response = await fetch(`${base}/api/v1/${path}`, options);
  const text = await response.text();
  const type = response.headers.get("content-type") ?? "";
  return { status: response.status, headers: response.headers, text, body: type.startsWith("application/json") ? JSON.parse(text) : text };
}

/** A refusal must have the one envelope, whatever went wrong. */
export function refused(answer, status, code) {
  const { error, detail } = answer.body;
  equal([answer.status, error?.code], [status, code], answer.text.slice(0, 300));
  equal([error.status, typeof error.retriable, detail], [status, "boolean", error.detail]);
  assert(error.request_id === answer.headers.get("x-request-id"), "request id");
}

/** Ask again until it holds, for what a machine does in its own time. */
export async function until(what, look, seconds = 180) {
  let last;
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    last = await look();
    if (last?.ok) return last.value;
    await new Promise((done) => setTimeout(done, 250));
  }
  throw new Error(`${what} did not come in ${seconds} s; last seen: ${JSON.stringify(last?.value)?.slice(0, 300)}`);
}
