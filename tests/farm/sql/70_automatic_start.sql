-- Automatic start: after a failure a printer starts nothing by itself until a person has switched it on again, and everybody is told why.
SELECT t.as('admin', 'set_settings', '{"auto_dispatch":true}') \g /dev/null
SELECT t.op('assign_spool', '{"spool_id":6,"printer_id":3}') \g /dev/null
CREATE FUNCTION t.ready(printer bigint) RETURNS integer LANGUAGE plpgsql AS $f$
BEGIN
  UPDATE odin.printer_state SET dispatch_tried_at = NULL WHERE printer_id = printer;
  RETURN odin.dispatch_ready();
END $f$;
CREATE FUNCTION t.auto(printer bigint) RETURNS jsonb LANGUAGE sql AS $f$
  SELECT jsonb_build_object('on', auto_dispatch, 'off', auto_dispatch_off_at IS NOT NULL, 'why', auto_dispatch_off_reason) FROM odin.printers WHERE id = printer $f$;
SELECT t.op('update_printer', '{"printer_id":1,"auto_dispatch":true}') \g /dev/null
SELECT t.op('queue_job', '{"model_id":2,"quantity":6}') \g /dev/null
SELECT t.is(to_jsonb(t.ready(1)), '1', 'a printer set to it starts the next job');

-- A failed run
SELECT r.id AS run, r.job_id AS job FROM odin.runs r WHERE r.printer_id = 1 AND r.status = 'claimed' \gset
SELECT odin._run_started(:run), odin.apply_finish(:run, 'failed', reason => 'clog', notes => 'hotend', reported_by => 'printer') \g /dev/null
SELECT t.is(t.auto(1), jsonb_build_object('on', false, 'off', true, 'why', format('Run %s failed: clog, hotend', :run)), 'a failed run switches automatic start off, with the reason');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = 1 AND kind = 'auto_start_off' AND run_id = :run), '1', 'an event says so');
SELECT t.is((SELECT jsonb_agg(jsonb_build_array(a.severity, a.title)) FROM odin.alerts a WHERE a.printer_id = 1 AND a.data ? 'auto_dispatch'), '[["critical", "P1 starts no job by itself any more"]]', 'and an alert');
SELECT t.op('clear_bed', '{"printer_id":1}') AS cleared \gset
SELECT t.is(:'cleared'::jsonb#>'{next_actions,1,args}', '{"printer_id":1,"auto_dispatch":true}', 'clear_bed says how it is switched on again');
SELECT t.says(1, 'idle') \g /dev/null
SELECT t.is(to_jsonb(t.ready(1)), '0', 'with the bed clear and jobs waiting it still starts nothing');
SELECT id AS next FROM odin.jobs WHERE status = 'pending' ORDER BY id LIMIT 1 \gset
SELECT t.op('why_waiting', jsonb_build_object('job_id', :next, 'printer_id', 1)) AS why \gset
SELECT t.ok(:'why'::jsonb#>>'{printers,0,reason}' LIKE 'fits; automatic start switched itself off at % UTC: Run % failed: clog, hotend' AND :'why'::jsonb#>>'{printers,0,automatic_start_off}' LIKE 'Run %', 'why_waiting says what is in the way');
SELECT t.is(:'why'::jsonb#>'{printers,0,fits}', 'true', 'it is no rule: a person may start the job');
SELECT t.is(t.op('get_printer', '{"id":1}')->'auto_dispatch_off_reason', to_jsonb(format('Run %s failed: clog, hotend', :run)), 'get_printer shows it');
SELECT t.is(t.as('viewer', 'update_printer', '{"printer_id":1,"auto_dispatch":true}')#>'{error,code}', '"permission_denied"', 'a viewer does not switch it on');
SELECT t.op('update_printer', '{"printer_id":1,"notes":"looked at"}') \g /dev/null
SELECT t.is(t.auto(1)->'off', 'true', 'another change of the printer does not either');
SELECT t.op('update_printer', '{"printer_id":1,"auto_dispatch":true}') \g /dev/null
SELECT t.is(t.auto(1), '{"on": true, "off": false, "why": null}', 'an operator does, and the reason goes');
SELECT t.is((SELECT jsonb_agg(data->'off_reason') FROM odin.printer_events WHERE printer_id = 1 AND kind = 'auto_start_on'), jsonb_build_array(format('Run %s failed: clog, hotend', :run)), 'the event keeps it');
SELECT t.ok(t.op('why_waiting', jsonb_build_object('job_id', :next, 'printer_id', 1))#>'{printers,0,reason}' = '"fits"' AND t.op('why_waiting', jsonb_build_object('job_id', :next, 'printer_id', 1))#>'{printers,0,automatic_start_off}' IS NULL, 'and why_waiting is silent about it');
SELECT t.is(to_jsonb(t.ready(1)), '1', 'the next job starts');

-- What ends well, or by a person's wish, is no failure
SELECT odin._run_started(r.id), odin.apply_finish(r.id, 'completed', reported_by => 'printer') FROM odin.runs r WHERE r.printer_id = 1 AND r.status = 'claimed' \g /dev/null
SELECT t.is(t.auto(1)->'on', 'true', 'a run that ends well leaves it on');
SELECT t.op('clear_bed', '{"printer_id":1}'), t.says(1, 'idle') \g /dev/null
SELECT t.ready(1) \g /dev/null
SELECT odin._run_started(r.id), odin.apply_finish(r.id, 'cancelled', reported_by => 'person') FROM odin.runs r WHERE r.printer_id = 1 AND r.status = 'claimed' \g /dev/null
SELECT t.is(t.auto(1)->'on', 'true', 'so does one that somebody stopped');
SELECT t.op('clear_bed', '{"printer_id":1}'), t.says(1, 'idle') \g /dev/null

-- An error of the machine, while it rests
SELECT t.op('update_printer', '{"printer_id":3,"auto_dispatch":true}') \g /dev/null
UPDATE odin.printer_state SET state = 'error', error_message = 'Thermal runaway' WHERE printer_id = 3;
SELECT t.is(t.auto(3)->'why', '"The printer reports error: Thermal runaway"', 'an error of the printer switches it off');
SELECT t.says(3, 'idle') \g /dev/null
SELECT t.is(to_jsonb(t.ready(3) + (SELECT count(*) FROM odin.runs WHERE printer_id = 3)), (SELECT to_jsonb(1)) , 'only the other printer starts when the error has gone by itself');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.runs WHERE printer_id = 3), '0', 'this one waits for a person');
UPDATE odin.printer_state SET state = 'error' WHERE printer_id = 3;
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = 3 AND kind = 'auto_start_off'), '1', 'once off, it is told once');
SELECT t.says(3, 'idle'), t.op('update_printer', '{"printer_id":3,"auto_dispatch":true}') \g /dev/null
INSERT INTO odin.printer_events(org_id, printer_id, kind, severity, message) SELECT org_id, id, 'stalled', 'critical', 'no progress' FROM odin.printers WHERE id = 3;
SELECT t.is(t.auto(3)->'why', '"The printer reports stalled: no progress"', 'so does what a printer reports as critical in any state');

-- A start that the printer refused; a start that the farm itself called off is another matter
SELECT t.op('update_printer', '{"printer_id":3,"auto_dispatch":true}') \g /dev/null
SELECT t.ready(3) \g /dev/null
SELECT odin._end_command(c, 'failed', NULL, '{"code":"not_ready","detail":"the printer is held"}') FROM odin.commands c JOIN odin.runs r ON r.id = c.run_id WHERE r.printer_id = 3 AND r.status = 'claimed' \g /dev/null
SELECT t.is(t.auto(3)->'on', 'true', 'a start that the farm called off leaves it on');
SELECT t.ready(3) \g /dev/null
SELECT odin._end_command(c, 'failed', NULL, '{"code":"printer_unreachable","detail":"connection refused"}') FROM odin.commands c JOIN odin.runs r ON r.id = c.run_id WHERE r.printer_id = 3 AND r.status = 'claimed' \g /dev/null
SELECT t.ok(t.auto(3)->>'why' LIKE 'Run % could not be started: connection refused', 'a start that failed switches it off: no loop of starts');
SELECT t.is(to_jsonb(t.ready(3)), '0', 'and it does not try again');
UPDATE odin.printers SET auto_dispatch = true WHERE id = 3;
SELECT t.is(t.auto(3)->'off', 'false', 'plain SQL switches it on as well');

-- Used by somebody else; silent at rest, and while it prints
UPDATE odin.printer_state SET state = 'offline' WHERE printer_id = 3;
SELECT t.is(t.auto(3)->'on', 'true', 'a printer switched off at rest stays set to it');
SELECT t.says(3, 'idle') \g /dev/null
INSERT INTO odin.printer_events(org_id, printer_id, kind, severity, message) SELECT org_id, id, 'foreign_print_started', 'warning', 'P3 prints benchy, which the farm did not start' FROM odin.printers WHERE id = 3;
SELECT t.is(t.auto(3)->'why', '"The printer reports foreign print started: P3 prints benchy, which the farm did not start"', 'a print that the farm did not start switches it off: somebody uses the machine');
SELECT t.op('update_printer', '{"printer_id":3,"auto_dispatch":true}'), t.ready(3) \g /dev/null
SELECT odin._run_started(r.id), t.says(3, 'printing') FROM odin.runs r WHERE r.printer_id = 3 AND r.status = 'claimed' \g /dev/null
UPDATE odin.printer_state SET state = 'offline' WHERE printer_id = 3;
SELECT t.is(t.auto(3)->'why', '"The printer fell silent while it printed"', 'silence while it prints switches it off');
