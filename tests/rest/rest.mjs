// The REST face by itself: calls, envelopes, keys, people, lists, caching, limits, browsers.
import { ask, assert, base, equal, facts, id, keys, refused, result, test } from "./lib.mjs";

const person = (name) => `${name}:a secret of ${name}`;

await test("a tool by its name", async () => {
  const got = await ask("POST", "tools/farm_summary");
  equal(got.status, 200);
  equal(got.body.printer_count, 3);
  const same = await ask("POST", "tools/farm_summary", { headers: { authorization: `Bearer ${keys.viewer}` }, key: null });
  equal(same.body.printer_count, 3);
});

await test("the list of tools is the key's own", async () => {
  const all = (await ask("GET", "tools?all=true", { key: keys.admin })).body;
  const few = (await ask("GET", "tools?all=true", { key: keys.viewer })).body;
  equal(all.count, all.tools.length);
  assert(all.tools.some((t) => t.name === "cancel_job") && !few.tools.some((t) => t.name === "cancel_job"), "cancel_job");
  assert((await ask("GET", "tools")).body.count <= all.count, "listed toolsets only");
  const one = await ask("GET", "tools/queue_job");
  equal(one.body.inputSchema.required, ["model_id"]);
  refused(await ask("GET", "tools/cancel_job", { key: keys.viewer }), 404, "tool_not_found");
  refused(await ask("GET", "tools/nothing"), 404, "tool_not_found");
});

await test("the document lists what the caller may call, and refers to nothing missing", async () => {
  const [wide, narrow] = await Promise.all(["admin", "viewer"].map(async (k) => (await ask("GET", "openapi.json", { key: keys[k] })).body));
  equal(wide.openapi, "3.1.0");
  assert(wide.paths["/api/v1/tools/cancel_job"] && !narrow.paths["/api/v1/tools/cancel_job"], "cancel_job");
  const tools = (await ask("GET", "tools?all=true", { key: keys.admin })).body.tools;
  for (const tool of tools) {
    const operation = wide.paths[`/api/v1/tools/${tool.name}`]?.post;
    assert(operation, tool.name);
    const { properties, required } = operation.requestBody.content["application/json"].schema;
    equal([Object.keys(properties), required], [Object.keys(tool.inputSchema.properties), tool.inputSchema.required], tool.name);
  }
  const ids = Object.values(wide.paths).flatMap((path) => Object.values(path).map((o) => o.operationId));
  equal(ids.length, new Set(ids).size, "operation ids");
  for (const [, ref] of JSON.stringify(wide).matchAll(/"\$ref":"(#[^"]+)"/g)) {
    assert(ref.slice(2).split("/").reduce((at, part) => at?.[part], wide), ref);
  }
});

await test("every route of ODIN's client leads to a tool that is there", async () => {
  const paths = (await ask("GET", "openapi.json", { key: keys.admin })).body.paths;
  const wanted = ["get printers", "get printers/{id}", "get jobs", "get jobs/{id}", "get alerts", "get spools", "get filament-library", "get maintenance/tasks",
    "get orders", "post jobs", "post jobs/{job_id}/cancel", "post jobs/{job_id}/approve", "post jobs/{job_id}/reject", "post printers/{printer_id}/pause",
    "post printers/{printer_id}/resume", "patch alerts/{alert_id}/read", "patch alerts/{alert_id}/dismiss", "post filament-slots", "patch spools/{spool_id}/use", "post maintenance/logs"];
  equal(wanted.filter((w) => !paths[`/api/v1/${w.split(" ")[1]}`]?.[w.split(" ")[0]]), []);
});

await test("every failure has the envelope", async () => {
  refused(await ask("GET", "printers", { key: null }), 401, "not_authenticated");
  refused(await ask("GET", "printers", { key: "odin_nobody" }), 401, "not_authenticated");
  refused(await ask("GET", "nothing"), 404, "not_found");
  refused(await ask("GET", "jobs/999999"), 404, "job_not_found");
  refused(await ask("GET", "jobs/none"), 422, "validation_failed");
  refused(await ask("GET", "printers?status=asleep"), 422, "validation_failed");
  refused(await ask("GET", "printers?colour=red"), 422, "validation_failed");
  refused(await ask("POST", "jobs", { body: {} }), 422, "validation_failed");
  refused(await ask("POST", "jobs", { body: "{" }), 400, "validation_failed");
  refused(await ask("POST", "jobs", { body: [1] }), 422, "validation_failed");
  refused(await ask("POST", "jobs", { body: { model_id: 1, notes: "a\u0000b" } }), 422, "validation_failed");
  refused(await ask("GET", "jobs/%00"), 422, "validation_failed");
  refused(await ask("GET", "jobs?status=%ff"), 422, "validation_failed");
  refused(await ask("POST", "tools/nothing"), 404, "tool_not_found");
  refused(await ask("POST", `jobs/${id("job")}/cancel`, { key: keys.viewer }), 403, "scope_denied");
  refused(await ask("POST", `jobs/${id("job")}/cancel`, { body: { job_id: 77 } }), 422, "validation_failed");
  refused(await ask("POST", "jobs", { body: "x", headers: { "content-type": "multipart/form-data; boundary=x" } }), 415, "idempotency_unsupported");
  const wrong = await ask("DELETE", "jobs");
  refused(wrong, 405, "http_error");
  equal(wrong.headers.get("allow"), "GET, HEAD, POST");
  const challenge = (await ask("GET", "printers", { key: null })).headers.get("www-authenticate");
  assert(challenge.startsWith("Bearer"), challenge);
});

await test("a large body is refused before it is read", async () => {
  refused(await ask("POST", "jobs", { body: JSON.stringify({ model_id: 1, notes: "x".repeat(5_000_000) }) }), 413, "request_too_large");
});

await test("same key, same call: done once", async () => {
  const call = { body: { model_id: id("model"), notes: "once" }, headers: { "idempotency-key": "rest-once" } };
  const [first, again] = [await ask("POST", "jobs", call), await ask("POST", "jobs", call)];
  equal([first.status, again.status, first.body.id], [201, 201, again.body.id]);
  equal([first.headers.get("x-idempotent-replay"), again.headers.get("x-idempotent-replay")], [null, "true"]);
  equal(again.body._idempotent_replay, true);
  refused(await ask("POST", "jobs", { ...call, body: { model_id: id("model"), notes: "other" } }), 409, "idempotency_conflict");
  // The same key over another door of the same call is the same call.
  const tool = await ask("POST", "tools/queue_job", call);
  equal(tool.body.id, first.body.id);
});

await test("a preview changes nothing, in all of ODIN's words, and is never guessed", async () => {
  const count = async () => (await ask("POST", "tools/farm_summary")).body.queue_depth;
  const before = await count();
  for (const word of ["true", "1", "yes", "ON"]) {
    const got = await ask("POST", "jobs", { body: { model_id: id("model") }, headers: { "x-dry-run": word } });
    equal([got.body.dry_run, got.body.would_execute?.action], [true, "queue_job"], word);
  }
  const both = await ask("POST", "jobs", { body: { model_id: id("model"), dry_run: false }, headers: { "x-dry-run": "true" } });
  equal(both.body.dry_run, true, "the careful word counts");
  refused(await ask("POST", "jobs", { body: { model_id: id("model") }, headers: { "x-dry-run": "perhaps" } }), 422, "validation_failed");
  equal(await count(), before);
  refused(await ask("POST", "tokens", { basic: person("rest_admin"), body: { name: "p" }, headers: { "x-dry-run": "true" } }), 501, "dry_run_unsupported");
});

await test("a preview's token commits what was shown, and nothing else", async () => {
  const seen = await ask("POST", "jobs", { body: { model_id: id("model"), notes: "seen" }, headers: { "x-dry-run": "true" } });
  const headers = { "x-preview-token": seen.body.preview_token };
  refused(await ask("POST", "jobs", { body: { model_id: id("model"), notes: "another" }, headers }), 409, "preview_stale");
  equal((await ask("POST", "jobs", { body: { model_id: id("model"), notes: "seen" }, headers })).status, 201);
});

await test("a list without a limit is whole, with one it has pages", async () => {
  const whole = (await ask("GET", "jobs")).body;
  assert(whole.length >= 4, whole.length);
  const seen = [];
  let path = "jobs?limit=2&fields=id,status";
  while (path) {
    const page = await ask("GET", path);
    assert(page.body.length <= 2, "two at most");
    for (const row of page.body) equal(Object.keys(row).sort(), ["id", "status"]);
    seen.push(...page.body.map((job) => job.id));
    path = page.headers.get("link")?.match(/^<\/api\/v1\/(.*)>; rel="next"$/)?.[1];
  }
  equal(seen, whole.map((job) => job.id));
  refused(await ask("GET", "jobs?limit=2&cursor=nonsense"), 422, "validation_failed");
});

await test("filters filter", async () => {
  const materials = new Set((await ask("GET", "spools?filament_type=PETG")).body.map((s) => s.filament_type));
  equal([...materials], ["PETG"]);
  equal((await ask("GET", "alerts?severity=critical")).body.every((a) => (a.severity ?? a.alert_severity) === "critical"), true);
  refused(await ask("GET", "alerts?is_read=true"), 422, "validation_failed");
  equal((await ask("GET", "printers?status=error")).body, []);
});

await test("an unchanged answer is not sent twice", async () => {
  const first = await ask("GET", `jobs/${id("job")}`);
  const tag = first.headers.get("etag");
  const again = await ask("GET", `jobs/${id("job")}`, { headers: { "if-none-match": tag } });
  equal([again.status, again.text, again.headers.get("etag")], [304, "", tag]);
  await ask("POST", "tools/update_job", { body: { job_id: id("job"), notes: `changed ${Date.now()}` } });
  equal((await ask("GET", `jobs/${id("job")}`, { headers: { "if-none-match": tag } })).status, 200);
});

await test("HEAD, compression, request ids", async () => {
  const head = await fetch(`${base}/api/v1/printers`, { method: "HEAD", headers: { "x-api-key": keys.viewer, "x-request-id": "my-own-id" } });
  equal([head.status, await head.text(), head.headers.get("x-request-id")], [200, "", "my-own-id"]);
  const packed = await ask("GET", "openapi.json", { headers: { "accept-encoding": "gzip" } });
  equal([packed.headers.get("content-encoding"), packed.body.openapi], ["gzip", "3.1.0"]);
});

await test("a page of a browser is answered only if it was configured", async () => {
  const call = (origin, method = "GET") => fetch(`${base}/api/v1/version`, { method, headers: { origin } });
  const allow = "access-control-allow-origin";
  equal((await call("https://console.example.org")).headers.get(allow), "https://console.example.org");
  equal((await call("http://localhost:3000")).headers.get(allow), null);
  equal((await call("https://evil.example.org")).status, 403);
  const preflight = await call("https://console.example.org", "OPTIONS");
  equal([preflight.status, preflight.headers.get(allow)], [204, "https://console.example.org"]);
  equal((await call("http://localhost:3000", "OPTIONS")).headers.get("access-control-allow-methods"), null);
});

await test("too many calls are told when to come back", async () => {
  const made = await ask("POST", "tokens", { basic: person("rest_admin"), body: { name: "slow", rate_per_minute: 2 } });
  equal(made.status, 201, made.text);
  const answers = [];
  for (let i = 0; i < 4; i += 1) answers.push(await ask("GET", "summary", { key: made.body.token }));
  const late = answers.find((a) => a.status === 429);
  refused(late, 429, "rate_limited");
  assert(Number(late.headers.get("retry-after")) >= 1, "Retry-After");
  equal((await ask("DELETE", `tokens/${made.body.id}`, { basic: person("rest_admin") })).body.revoked, true);
  refused(await ask("GET", "me", { key: made.body.token }), 401, "not_authenticated");
});

await test("keys are made by people, never by a key", async () => {
  for (const key of Object.values(keys)) {
    refused(await ask("POST", "tokens", { key, body: { name: "mine" } }), 403, "human_only");
    refused(await ask("GET", "tokens", { key }), 403, "human_only");
    refused(await ask("DELETE", "tokens/1", { key }), 403, "human_only");
    refused(await ask("POST", "consents/1/approve", { key }), 403, "human_only");
  }
  const nobody = await ask("POST", "tokens", { key: null, body: { name: "mine" } });
  refused(nobody, 401, "not_authenticated");
  assert(nobody.headers.get("www-authenticate").startsWith("Basic"), "how people come in");
});

await test("a person mints within his own rights", async () => {
  const viewer = await ask("POST", "tokens", { basic: person("rest_viewer"), body: { name: "mine", scopes: ["agent:read"], expires_days: 7 } });
  equal([viewer.status, viewer.headers.get("cache-control")], [201, "no-store"], viewer.text);
  const me = (await ask("GET", "me", { key: viewer.body.token })).body;
  equal([me.role, me.scopes, me.key_name], ["rest_viewer", ["agent:read"], "mine"]);
  refused(await ask("POST", "tokens", { basic: person("rest_viewer"), body: { name: "more", scopes: ["agent:write"] } }), 403, "permission_denied");
  refused(await ask("POST", "tokens", { basic: person("rest_viewer"), body: { name: "his", role: "demo_admin" } }), 403, "permission_denied");
  const other = await ask("POST", "tokens", { basic: person("rest_admin"), body: { name: "for the shop", role: "demo_operator", scopes: ["agent:write"] } });
  equal([other.status, other.body.role], [201, "demo_operator"]);
  const rotated = await ask("POST", `tokens/${other.body.id}/rotate`, { basic: person("rest_admin"), body: { overlap_minutes: 0 } });
  equal([rotated.status, rotated.body.replaces], [201, other.body.id]);
  refused(await ask("GET", "me", { key: other.body.token }), 401, "not_authenticated");
  equal((await ask("GET", "me", { key: rotated.body.token })).body.role, "demo_operator");
  const list = await ask("GET", "tokens", { basic: person("rest_viewer") });
  equal(list.body.tokens.map((t) => t.role_name).every((r) => r === "rest_viewer"), true);
  assert(!list.text.includes(viewer.body.token), "never the secret");
});

await test("what a person sends is checked", async () => {
  const mint = (body) => ask("POST", "tokens", { basic: person("rest_admin"), body });
  refused(await mint({}), 422, "validation_failed");
  refused(await mint({ name: "x", scopes: ["everything"] }), 422, "validation_failed");
  refused(await mint({ name: "x", scopes: [1] }), 422, "validation_failed");
  refused(await mint({ name: "x", expires_days: 0 }), 422, "validation_failed");
  refused(await mint({ name: "x", allowed_ips: ["nowhere"] }), 422, "validation_failed");
  refused(await mint({ name: "x", colour: "red" }), 422, "validation_failed");
  refused(await ask("DELETE", "tokens/999999", { basic: person("rest_admin") }), 404, "not_found");
});

await test("only a checked password lets a person in, and never a superuser", async () => {
  refused(await ask("GET", "tokens", { basic: "rest_admin:wrong" }), 401, "not_authenticated");
  refused(await ask("GET", "tokens", { basic: person("nobody_at_all") }), 401, "not_authenticated");
  // The gateway's login needs no password in this cluster: then a password proves nothing.
  refused(await ask("GET", "tokens", { basic: "odin_gateway:anything" }), 403, "feature_disabled");
  refused(await ask("GET", "tokens", { basic: person("rest_super") }), 403, "permission_denied");
  refused(await ask("GET", "tokens", { basic: person("rest_stranger") }), 403, "permission_denied");
  refused(await ask("GET", "tokens", { basic: person("rest_admin"), headers: { "x-forwarded-for": "192.0.2.7" } }), 403, "permission_denied");
  refused(await ask("GET", "printers", { basic: person("rest_admin") }), 401, "not_authenticated");
});

await test("a person decides about a call that waits", async () => {
  const consents = (path = "") => ask(path ? "POST" : "GET", `consents${path}`, { basic: person("rest_admin") });
  const call = (body) => ask("POST", "tools/shop_risky", { key: keys.operator, body });
  const waits = await call({ what: "a", approval_reason: "the customer asked" });
  refused(waits, 403, "approval_required");
  equal([waits.body.error.why, waits.body.error.would_execute], ["the customer asked", { what: "a", action: "shop_risky" }]);
  const [open] = (await consents()).body.consents;
  equal([open.tool, open.state, open.id], ["shop_risky", "pending", waits.body.error.consent_id]);
  equal([open.arguments, open.why, open.preview.would_execute], [{ what: "a" }, "the customer asked", { what: "a", action: "shop_risky" }]);
  // Whatever its scope, a key decides nothing: neither the asker's own nor an administrator's.
  for (const key of Object.values(keys)) {
    for (const act of ["approve", "deny"]) refused(await ask("POST", `consents/${open.id}/${act}`, { key }), 403, "human_only");
    refused(await ask("GET", "consents", { key }), 403, "human_only");
  }
  equal((await consents()).body.consents.map((c) => c.state), ["pending"]);
  equal((await consents(`/${open.id}/approve`)).body.state, "approved");
  equal((await call({ what: "a" })).body.result, "did a");
  const second = await call({ what: "b" });
  const denied = await ask("POST", `consents/${second.body.error.consent_id}/deny`, { basic: person("rest_admin"), body: { reason: "not today" } });
  equal(denied.body.state, "denied", denied.text);
  const told = await call({ what: "b" });
  refused(told, 403, "approval_denied");
  assert(told.body.error.detail.includes("not today"), told.text);
  assert(told.body.error.retriable === false && told.body.error.hint.includes("not retry"), told.text);
  assert(Date.parse(told.body.error.denied_until) > Date.now(), told.text);
  const decided = (await ask("GET", "consents?state=denied", { basic: person("rest_admin") })).body.consents;
  equal([decided[0].decided_by, decided[0].decided_via, decided[0].reason], ["rest_admin", "rest", "not today"]);
  assert(decided[0].decided_at && decided[0].expires_at, JSON.stringify(decided));
  refused(await ask("POST", `consents/${open.id}/approve`, { basic: person("rest_viewer") }), 403, "permission_denied");
});

await test("long work is a task to come back to", async () => {
  const plain = await ask("POST", "tools/shop_slow", { body: {} });
  refused(plain, 406, "task_required");
  const made = await ask("POST", "tools/shop_slow", { body: {}, headers: { prefer: "respond-async" } });
  equal([made.status, made.headers.get("location")], [202, `/api/v1/tasks/${made.body.task.taskId}`]);
  const path = `tasks/${made.body.task.taskId}`;
  equal((await ask("GET", path)).body.task.taskId, made.body.task.taskId);
  refused(await ask("GET", path, { key: keys.admin }), 404, "task_not_found");
  assert(typeof (await ask("POST", `${path}/cancel`)).body.cancelled === "boolean", "cancelled");
  refused(await ask("GET", "tasks/none"), 404, "task_not_found");
});

await test("what cannot be previewed says so", async () => {
  refused(await ask("POST", "tools/shop_mail", { body: {}, headers: { "x-dry-run": "true" } }), 501, "dry_run_unsupported");
});

await test("the version is one that ODIN's client trusts, without a key", async () => {
  const got = await ask("GET", "version", { key: null });
  const [major, minor] = got.body.version.split(".").map(Number);
  assert(major > 1 || (major === 1 && minor >= 9), got.text);
  equal([got.body.product, typeof got.body.farm.registry_version], ["odin_farm", "number"]);
});

await test("who am I", async () => {
  const me = (await ask("GET", "me")).body;
  equal([me.role, me.org, me.scopes], ["demo_operator", "Demo Farm", ["agent:read", "agent:write"]]);
  assert(facts.demo_operator_key && !JSON.stringify(me).includes(facts.demo_operator_key), "no secret");
});

result("rest");
