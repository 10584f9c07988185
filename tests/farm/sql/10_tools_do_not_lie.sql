-- Defects of an older farm system, one by one: what it promised and did not do, done here. Names as W1..W25 in the project's notes of that system.
SELECT t.is(t.op('queue_job', '{"model_id":2,"printer_id":3}')->'printer_id', '3', 'W1 a job is pinned to its printer');
SELECT t.is(t.op('why_waiting', '{"job_id":1,"printer_id":1}')#>'{printers,0,rule}', '"pinned"', 'W1 and no other printer takes it');
SELECT t.is(t.op('plan_queue', '{"dry_run":true}')#>'{would_execute,plan,0,printer_id}', '3', 'W1 the planner keeps the pin');

SELECT t.op('queue_job', '{"model_id":1,"printer_id":1}'), t.op('start_job', '{"job_id":2,"started_by_hand":true}') \g /dev/null
SELECT t.is(t.op('cancel_job', '{"job_id":2,"reason":"bad slice"}')->'status', '"printing"', 'W2 cancel of a printing job does not pretend it stopped');
SELECT t.is((SELECT jsonb_agg(verb) FROM odin.commands WHERE run_id = 1), '["stop"]', 'W2 it tells the printer to stop');
SELECT odin.apply_finish(1, 'cancelled', reported_by => 'printer', progress => 10) \g /dev/null
SELECT t.is(t.op('get_job', '{"id":2}') - (SELECT array_agg(k) FROM jsonb_object_keys(t.op('get_job', '{"id":2}')) k WHERE k NOT IN ('status', 'cancel_reason', 'cancelled_by')),
  '{"status":"cancelled","cancel_reason":"bad slice","cancelled_by":"ft_operator"}', 'W2 cancelled once the printer says so, with the reason');
SELECT t.is((SELECT to_jsonb(shortfall) FROM odin.order_parts p JOIN odin.jobs j ON j.part_id = p.id WHERE j.id = 2), '0', 'W2 a cancelled job is not made again');

SELECT t.op('save_maintenance_task', '{"name":"Oil P1","printer_id":1,"interval_days":10}') \g /dev/null
SELECT t.is(t.op('complete_maintenance', jsonb_build_object('task_id', (SELECT max(id) FROM odin.maintenance_tasks), 'notes', 'done'))->'printer_id', '1', 'W3 maintenance completes, the printer found by itself');
SELECT t.is(t.op('complete_maintenance', '{"task_id":1}')#>'{error,field}', '"printer_id"', 'W3 it asks for the printer where several are meant');
SELECT t.is(t.op('complete_maintenance', '{"task_id":1,"printer_id":1,"cost":3.5,"downtime_minutes":12}')->'downtime_minutes', '12', 'W3 with cost and downtime');

SELECT t.says(2, 'printing'), t.says(4, 'offline') \g /dev/null
SELECT t.is((SELECT jsonb_agg(p->'id') FROM jsonb_array_elements(t.op('list_printers', '{"status_filter":"offline"}')->'printers') p), '[4]', 'W4 list_printers filters by state');
SELECT t.is(t.op('list_spools', '{"filament_type":"petg"}')->'count', '1', 'W4 list_spools filters by material');
SELECT t.op('consume_spool', '{"spool_id":6,"grams":1000}') \g /dev/null
SELECT t.is(t.op('list_spools', '{"available_only":true}')->'count', '1', 'W4 list_spools leaves out empty ones and those in printers when asked');
UPDATE odin.printer_totals SET print_seconds = 3600 * 60 WHERE printer_id = 3;
SELECT t.is((SELECT jsonb_agg(DISTINCT x->'printer_id') FROM jsonb_array_elements(t.op('list_maintenance_tasks', '{"overdue_only":true}')->'tasks') x), '[3]', 'W4 overdue_only shows what is overdue');
SELECT t.op('create_order', '{"customer_id":1,"lines":[{"model_id":2,"quantity":2}]}') \g /dev/null
SELECT t.is(t.op('list_orders', '{"status_filter":"pending"}')->'count', '1', 'W4 list_orders filters');
SELECT t.is(t.op('list_orders', '{"status_filter":"completed"}')->'count', '0', 'W4 and knows the old word completed');

UPDATE odin.orgs SET settings = '{"require_job_approval": true}' WHERE id = (SELECT org FROM t.ids);
SELECT t.as('viewer', 'queue_job', '{"model_id":2,"notes":"please"}') \g /dev/null
SELECT t.is((SELECT jsonb_agg(j->'status') FROM jsonb_array_elements(t.op('list_jobs', '{"status_filter":"submitted"}')->'jobs') j), '["submitted"]', 'W5 submitted jobs can be listed');
SELECT t.ok((t.op('list_jobs', '{"status_filter":"queued"}')->>'count')::int > 0, 'W5 so can queued ones');
SELECT t.is(t.op('list_jobs', '{"status_filter":"nonsense"}')#>'{error,code}', '"validation_failed"', 'W5 a wrong state is refused, not ignored');

SELECT t.is(t.op('farm_summary')->'printer_states', '{"idle": 2, "offline": 1, "printing": 1}', 'W6 farm_summary counts real states');
SELECT odin._alert(org, 'queue_added', 'note ' || n) FROM t.ids, generate_series(1, 150) n \g /dev/null
SELECT t.is(t.op('farm_summary')->'unread_alerts', (SELECT to_jsonb(count(*)) FROM odin.alerts WHERE org_id = (SELECT org FROM t.ids) AND NOT is_read AND recipient IS NULL), 'W6 and all alerts, not a page of them');

SELECT max(id) AS submitted FROM odin.jobs WHERE status = 'submitted' \gset
SELECT t.is(t.op('get_job', jsonb_build_object('job_id', :submitted))->'status', '"submitted"', 'W7 a submitted job can be read');
SELECT t.is(t.op('reject_job', jsonb_build_object('job_id', :submitted, 'reason', ''))#>'{error,code}', '"validation_failed"', 'W7 a rejection needs a reason');
SELECT t.is(t.op('reject_job', jsonb_build_object('job_id', :submitted, 'reason', 'wrong colour'))->'status', '"rejected"', 'W7 rejected');
SELECT t.is(t.as('viewer', 'list_alerts', '{"type":"job_rejected"}')#>'{alerts,0,message}', '"wrong colour"', 'W7 the submitter is told why');
SELECT t.is(t.as('viewer', 'resubmit_job', jsonb_build_object('job_id', :submitted, 'color_hex', '#ff0000'))->'status', '"submitted"', 'W7 edited and submitted again');
SELECT t.is(t.as('viewer', 'approve_job', jsonb_build_object('job_id', :submitted))#>'{error,code}', '"permission_denied"', 'W7 a viewer cannot approve');
SELECT t.is(t.op('approve_job', jsonb_build_object('job_id', :submitted, 'notes', 'fine now'))->'notes', '"fine now"', 'W23 approved, by any operator, notes kept');
SELECT t.is(t.op('get_job', jsonb_build_object('job_id', :submitted))->'approved_by', '"ft_operator"', 'W7 who approved is recorded');

SELECT t.is(t.op('assign_spool', '{"spool_id":5,"printer_id":2,"ams_slot":0}')->'previous_spool_id', '2', 'W8 slot 0 is a slot; the spool that was there is named');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.printer_slots WHERE spool_id = 2), '0', 'W8 and is in no slot any more');
SELECT t.is(t.op('assign_spool', '{"spool_id":5,"printer_id":2,"ams_slot":4}')#>'{error,field}', '"ams_slot"', 'W8 a slot that is not there is refused');
SELECT t.is(t.op('assign_spool', '{"spool_id":5,"printer_id":2,"ams_slot":0,"slot_number":3}')#>'{error,code}', '"validation_failed"', 'W8 two different slots in one call are refused');
SELECT t.says(2, 'idle') \g /dev/null
SELECT t.op('queue_job', '{"model_id":2,"printer_id":2}') \g /dev/null
SELECT max(id) AS job FROM odin.jobs \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :job, 'started_by_hand', true)), t.op('complete_job', jsonb_build_object('job_id', :job)) \g /dev/null
SELECT t.is(t.op('get_spool', '{"spool_id":5}')->'remaining_weight_g', '970.00', 'W8 a print takes its grams from the spool that was assigned');
