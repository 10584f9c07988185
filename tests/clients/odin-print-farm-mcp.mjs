// ODIN's own client, unmodified, over stdio, pointed at us: all 22 live tools have to do what they say.
//   node odin-print-farm-mcp.mjs PATH-OF-THE-PACKAGE   with ODIN_BASE_URL, ODIN_TEST_FACTS (tests/rest/fixture.sql)
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { ask, assert, base, equal, id, keys, result, test, until } from "../rest/lib.mjs";

/** The package as a client of MCP would start it, with more patience than its five seconds. */
function start(key) {
  const patience = new URL("../patience.mjs", import.meta.url).href;
  const child = spawn(process.execPath, ["--import", patience, `${process.argv[2]}/dist/index.js`], {
    env: { PATH: process.env.PATH, ODIN_TEST_PATIENT: "odin-print-farm-mcp/dist/", ODIN_BASE_URL: `${base}/`, ODIN_API_KEY: key }, stdio: ["pipe", "pipe", "inherit"] });
  const waiting = new Map();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const message = JSON.parse(line);
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  });
  let last = 0;
  const request = (method, params) => new Promise((done) => {
    last += 1;
    waiting.set(last, done);
    child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id: last, method, params })}\n`);
  });
  const notify = (method) => child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", method })}\n`);
  return { child, request, notify };
}

async function connect(key) {
  const client = start(key);
  await client.request("initialize", { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "test", version: "1" } });
  client.notify("notifications/initialized");
  const raw = async (name, args = {}) => (await client.request("tools/call", { name, arguments: args })).result;
  return {
    stop: () => client.child.kill(),
    tools: async () => (await client.request("tools/list", {})).result.tools,
    /** A success, as an object. */
    call: async (name, args) => {
      const got = await raw(name, args);
      assert(!got.isError, `${name}: ${got.content[0].text}`);
      return JSON.parse(got.content[0].text);
    },
    /** A refusal, as the error object an agent branches on. */
    refused: async (name, args) => {
      const got = await raw(name, args);
      assert(got.isError, `${name} was not refused: ${got.content[0].text}`);
      return JSON.parse(got.content[0].text).error;
    },
  };
}

const odin = await connect(keys.operator);
const queue = async () => (await odin.call("list_queue")).queue;
const rest = async (method, path, body) => {
  const got = await ask(method, path, { body });
  assert(got.status < 300, got.text);
  return got.body;
};

await test("it lists its tools", async () => {
  const names = (await odin.tools()).map((t) => t.name);
  equal([names.length, names.includes("queue_job"), names.includes("reference.calculate_print_cost")], [30, true, true]);
});

await test("farm_summary: true totals per real state", async () => {
  await until("every printer's first report", async () => {
    const summary = await odin.call("farm_summary");
    return { ok: !summary.printer_states.unknown, value: summary };
  });
  const summary = await odin.call("farm_summary");
  equal([summary.printer_count, summary.printer_states.idle], [3, 3]);
  // A machine may raise an alert between two looks.
  await until("the same totals both ways", async () => {
    const both = [await odin.call("farm_summary"), await rest("POST", "tools/farm_summary")];
    const [one, two] = both.map((s) => JSON.stringify([s.queue_depth, s.active_jobs, s.unread_alerts]));
    return { ok: one === two, value: [one, two] };
  });
});

await test("list_printers: the filter filters", async () => {
  equal((await odin.call("list_printers", { status_filter: "idle" })).printers.length, 3);
  for (const state of ["printing", "paused", "offline", "error"]) {
    equal((await odin.call("list_printers", { status_filter: state })).printers, [], state);
  }
});

await test("get_printer: telemetry, slots, active job", async () => {
  const printer = await odin.call("get_printer", { id: id("printer_a") });
  equal([printer.id, printer.status, printer.active_job], [id("printer_a"), "idle", null]);
  equal(printer.slots.map((s) => [s.slot_number, s.spool_id])[0], [1, id("spool_a")]);
  assert("nozzle_c" in printer.telemetry, printer.telemetry);
  equal((await odin.refused("get_printer", { id: 999999 })).code, "printer_not_found");
});

await test("list_filaments, list_spools: both filters filter", async () => {
  const { filaments } = await odin.call("list_filaments");
  assert(filaments.some((f) => f.filament_type === "PLA" && f.name === "Galaxy Black"), filaments);
  const spools = async (args) => (await odin.call("list_spools", args)).spools.map((s) => s.id);
  equal(await spools({}), [id("spool_a"), id("spool_b"), id("spool_petg")]);
  equal(await spools({ filament_type: "petg" }), [id("spool_petg")]);
  equal(await spools({ available_only: true }), [id("spool_petg")], "not loaded in a printer");
});

await test("queue_job: previewed without a trace, pinned to its printer", async () => {
  const before = (await queue()).length;
  const args = { model_id: id("model"), printer_id: id("printer_b"), quantity: 2, priority: 1, notes: "for the shelf" };
  const preview = await odin.call("queue_job", { ...args, dry_run: true });
  const keys = ["item_name", "model_id", "quantity", "priority", "duration_hours", "effective_filament_type", "initial_status", "requires_approval", "estimated_cost", "due_date"];
  equal([preview.dry_run, preview.would_execute.action, keys.filter((k) => !(k in preview.would_execute))], [true, "queue_job", []]);
  equal((await queue()).length, before);
  const job = await odin.call("queue_job", args);
  equal([job.printer_id, job.pinned, job.item_name, job.priority, job.status], [id("printer_b"), true, "for the shelf", 1, "pending"]);
  assert(job.next_actions.some((a) => a.tool === "get_job"), job.next_actions);
  const seen = await odin.call("get_job", { id: job.id });
  equal([seen.printer_id, seen.quantity, seen.notes], [id("printer_b"), 2, "for the shelf"]);
  equal((await queue())[0].id, job.id, "the urgent one is first");
  await odin.call("cancel_job", { job_id: job.id });
});

await test("a key makes it once; the repetition is marked", async () => {
  const args = { model_id: id("model"), idempotency_key: randomUUID() };
  const [first, again] = [await odin.call("queue_job", args), await odin.call("queue_job", args)];
  equal([again.id, first._idempotent_replay, again._idempotent_replay], [first.id, undefined, true]);
  const other = await odin.refused("queue_job", { ...args, quantity: 9 });
  equal([other.code, other.status, other.retriable], ["idempotency_conflict", 409, false]);
});

await test("list_jobs: every state of its list, and the limit", async () => {
  const jobs = async (args) => (await odin.call("list_jobs", args)).jobs;
  for (const state of ["pending", "submitted", "printing", "completed", "failed", "cancelled", "paused"]) {
    equal((await jobs({ status_filter: state })).filter((j) => j.status !== state), [], state);
  }
  assert((await jobs({ status_filter: "submitted" })).length === 2, "two are submitted");
  assert((await jobs({ status_filter: "queued" })).every((j) => ["pending", "scheduled"].includes(j.status)), "queued");
  equal((await jobs({ limit: 1 })).length, 1);
});

await test("approve_job and reject_job: notes and reason are kept", async () => {
  const preview = await odin.call("approve_job", { job_id: id("submitted_a"), dry_run: true });
  equal([preview.would_execute.action, preview.would_execute.job_id], ["approve_job", id("submitted_a")]);
  const approved = await odin.call("approve_job", { job_id: id("submitted_a"), notes: "fine" });
  equal([approved.job_id, approved.status], [id("submitted_a"), "pending"]);
  const job = await odin.call("get_job", { id: id("submitted_a") });
  equal([job.status, job.approval_notes, job.approved_by], ["pending", "fine", "demo_operator"]);
  const refused = await odin.call("reject_job", { job_id: id("submitted_b"), reason: "too thin" });
  equal([refused.job_id, refused.status, refused.reason], [id("submitted_b"), "rejected", "too thin"]);
  equal((await odin.call("get_job", { id: id("submitted_b") })).rejected_reason, "too thin");
  const twice = await odin.refused("approve_job", { job_id: id("submitted_b") });
  equal(twice.code, "invalid_state_transition");
});

await test("cancel_job: a waiting one at once, with its reason", async () => {
  const preview = await odin.call("cancel_job", { job_id: id("job"), reason: "no more", dry_run: true });
  equal([preview.would_execute.from_status, preview.would_execute.to_status], ["pending", "cancelled"]);
  equal((await odin.call("cancel_job", { job_id: id("job"), reason: "no more" })).status, "cancelled");
  equal((await odin.call("get_job", { id: id("job") })).cancel_reason, "no more");
  equal((await odin.refused("cancel_job", { job_id: id("job") })).code, "invalid_state_transition");
});

await test("pause_printer, resume_printer, and cancel_job of a printing job stops it", async () => {
  const printer = id("printer_a");
  const job = await odin.call("queue_job", { model_id: id("model"), printer_id: printer, notes: "long" });
  await rest("POST", "tools/start_job", { job_id: job.id, printer_id: printer });
  const state = (wanted) => until(`${wanted} at the printer`, async () => {
    const { status } = await odin.call("get_printer", { id: printer });
    return { ok: status === wanted, value: status };
  });
  await state("printing");
  const active = (await odin.call("get_printer", { id: printer })).active_job;
  equal(active.job_id, job.id);
  const preview = await odin.call("pause_printer", { printer_id: printer, dry_run: true });
  equal([preview.would_execute.printer_id, preview.would_execute.current_gcode_state !== undefined], [printer, true], JSON.stringify(preview.would_execute));
  const paused = await odin.call("pause_printer", { printer_id: printer });
  equal([paused.success, paused.printer_id], [true, printer]);
  await state("paused");
  equal((await odin.call("resume_printer", { printer_id: printer })).success, true);
  await state("printing");
  await odin.call("cancel_job", { job_id: job.id, reason: "wrong colour" });
  const ended = await until("the end of the job", async () => {
    const seen = await odin.call("get_job", { id: job.id });
    return { ok: seen.status === "cancelled", value: seen };
  });
  equal(ended.cancel_reason, "wrong colour");
  const after = await until("a machine at rest", async () => {
    const seen = await odin.call("get_printer", { id: printer });
    return { ok: !["printing", "paused"].includes(seen.status) && seen.active_job === null && seen.bed_occupied, value: seen };
  });
  equal([after.active_job, after.bed_occupied], [null, true]);
  equal((await odin.call("list_jobs", { status_filter: "cancelled" })).jobs.some((j) => j.id === job.id), true);
});

await test("list_alerts, mark_alert_read, dismiss_alert", async () => {
  const alerts = async (args) => (await odin.call("list_alerts", args)).alerts.map((a) => a.id);
  const unread = await alerts({ unread_only: true });
  assert(unread.includes(id("alert_a")) && unread.includes(id("alert_b")), unread);
  const one = (await odin.call("list_alerts", {})).alerts.find((a) => a.id === id("alert_a"));
  const severity = one.severity;
  assert((await alerts({ severity })).includes(one.id), severity);
  const other = ["info", "warning", "critical"].find((s) => s !== severity);
  assert(!(await alerts({ severity: other })).includes(one.id), other);
  equal((await odin.call("mark_alert_read", { alert_id: one.id, dry_run: true })).would_execute.alert_id, one.id);
  const read = await odin.call("mark_alert_read", { alert_id: one.id });
  equal([read.status, read.alert_id, read.is_read, read.is_dismissed], ["ok", one.id, true, false]);
  assert(!(await alerts({ unread_only: true })).includes(one.id), "still unread");
  equal((await odin.call("dismiss_alert", { alert_id: id("alert_b") })).is_dismissed, true);
  assert(!(await alerts({})).includes(id("alert_b")), "still listed");
});

await test("assign_spool: slots from 0, the spool moves, the one before comes out", async () => {
  const args = { spool_id: id("spool_petg"), printer_id: id("printer_b"), ams_slot: 0 };
  equal((await odin.call("assign_spool", { ...args, dry_run: true })).would_execute.slot_number, 1);
  const done = await odin.call("assign_spool", args);
  equal([done.success, done.slot_number, done.previous_spool_id], [true, 1, id("spool_b")]);
  equal((await odin.call("get_printer", { id: id("printer_b") })).slots.find((s) => s.slot_number === 1).spool_id, id("spool_petg"));
  equal((await odin.refused("assign_spool", { ...args, ams_slot: 15 })).code, "validation_failed");
});

await test("consume_spool: grams off the ledger, never below nothing silently", async () => {
  const left = async () => (await odin.call("list_spools")).spools.find((s) => s.id === id("spool_b")).remaining_weight_g;
  const before = await left();
  const preview = await odin.call("consume_spool", { spool_id: id("spool_b"), grams: 12.5, dry_run: true });
  equal([preview.would_execute.current_remaining_g - preview.would_execute.new_remaining_g, await left()], [12.5, before]);
  const used = await odin.call("consume_spool", { spool_id: id("spool_b"), grams: 12.5 });
  equal([used.success, used.remaining_weight_g, await left()], [true, before - 12.5, before - 12.5]);
});

await test("list_maintenance_tasks, complete_maintenance", async () => {
  const tasks = async (args) => (await odin.call("list_maintenance_tasks", args)).tasks;
  const all = await tasks({});
  assert(all.some((t) => t.task_id === id("task_one")), all.map((t) => t.task_id));
  assert((await tasks({ overdue_only: true })).every((t) => t.due === "overdue"), "only what is overdue");
  equal((await odin.call("complete_maintenance", { task_id: id("task_one"), dry_run: true })).would_execute.task_id, id("task_one"));
  const done = await odin.call("complete_maintenance", { task_id: id("task_one"), notes: "greased" });
  assert(done.id > 0 && typeof done.message === "string" && "print_hours_at_service" in done, done);
  const unclear = await odin.refused("complete_maintenance", { task_id: id("task_all") });
  equal([unclear.code, unclear.field], ["validation_failed", "printer_id"]);
});

await test("list_orders: the filter filters", async () => {
  const orders = async (status) => (await odin.call("list_orders", status ? { status_filter: status } : {})).orders;
  const [one] = await orders();
  equal(one.id, id("order"));
  assert((await orders(one.status)).some((o) => o.id === one.id), one.status);
  for (const state of ["completed", "shipped", "cancelled"]) equal(await orders(state), [], state);
});

await test("rights: a reader is told its scope, a stranger that nobody knows it", async () => {
  const viewer = await connect(keys.viewer);
  const error = await viewer.refused("cancel_job", { job_id: 1 });
  equal([error.code, error.status, error.token_scopes], ["scope_denied", 403, ["agent:read"]]);
  viewer.stop();
  const stranger = await connect("odin_nobody");
  equal((await stranger.refused("list_jobs", {})).code, "not_authenticated");
  stranger.stop();
});

odin.stop();
result("odin-print-farm-mcp");
