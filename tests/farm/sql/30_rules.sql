-- Orders, ledger, matching, access and money: the rules one by one.
-- Orders
SELECT t.op('create_order', '{"customer_id":1,"lines":[{"model_id":1,"quantity":10}],"due_at":"2031-01-01T00:00:00Z","priority":2}') \g /dev/null
SELECT max(id) AS ord FROM odin.orders WHERE NOT is_stock \gset
SELECT max(id) AS line FROM odin.order_lines WHERE order_id = :ord \gset
SELECT t.is((SELECT jsonb_agg(jsonb_build_array(pieces, quantity, priority) ORDER BY id) FROM odin.jobs WHERE order_line_id = :line), '[[4, 10, 2], [4, 10, 2], [4, 10, 2]]', 'ten pieces of four a plate are three whole plates with the order''s priority');
SELECT t.op('update_order_line', jsonb_build_object('order_line_id', :line, 'quantity', 14)) \g /dev/null
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.jobs WHERE order_line_id = :line AND status = 'pending'), '4', 'a larger quantity adds what is missing');
SELECT t.op('start_job', jsonb_build_object('job_id', (SELECT min(id) FROM odin.jobs WHERE order_line_id = :line), 'printer_id', 1, 'started_by_hand', true)) \g /dev/null
SELECT t.op('update_order_line', jsonb_build_object('order_line_id', :line, 'quantity', 3)) \g /dev/null
SELECT t.is((SELECT jsonb_object_agg(status, n) FROM (SELECT status, count(*) AS n FROM odin.jobs WHERE order_line_id = :line GROUP BY 1) x), '{"printing": 1, "cancelled": 3}', 'a smaller one cancels what waits and leaves what prints alone');
SELECT t.op('complete_job', jsonb_build_object('job_id', (SELECT min(id) FROM odin.jobs WHERE order_line_id = :line))) \g /dev/null
SELECT t.is((SELECT jsonb_build_array(status, (SELECT quantity FROM odin.stock_balances WHERE model_id = 1)) FROM odin.orders WHERE id = :ord), '["fulfilled", 1]', 'a whole plate overshoots into stock');
SELECT t.ok(t.op('clear_bed', '{"printer_id":1,"good":2,"reason":"quality"}')#>'{verdict,requeued_job_ids}' IS NOT NULL, 'a worse verdict at the bed queues what is missing again');
SELECT t.is((SELECT to_jsonb(quantity) FROM odin.stock_balances WHERE model_id = 1), '0', 'and takes the surplus back out of stock');
SELECT t.is(t.op('cancel_order', jsonb_build_object('order_id', :ord, 'reason', 'changed mind'))->'status', '"cancelled"', 'an order is cancelled');
SELECT t.is((SELECT to_jsonb(quantity) FROM odin.stock_balances WHERE model_id = 1), '2', 'its good pieces go to stock');
SELECT t.op('queue_job', '{"model_id":2,"printer_id":1}')->>'id' AS job \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :job, 'started_by_hand', true)) \g /dev/null
SELECT odin.apply_finish((SELECT max(id) FROM odin.runs), 'cancelled', reported_by => 'printer', progress => 50) \g /dev/null
SELECT t.is((SELECT jsonb_build_array(hold, attempt, requeued_from_run_id = (SELECT max(id) FROM odin.runs)) FROM odin.jobs ORDER BY id DESC LIMIT 1), '[true, 2, true]', 'a print stopped at the touchscreen is queued again, on hold, linked to its run');
SELECT t.is((SELECT to_jsonb(occupied) FROM odin.beds WHERE printer_id = 1), 'true', 'and the bed is occupied');

-- Ledger
SELECT id AS move, spool_id FROM odin.spool_moves WHERE kind = 'consume' ORDER BY id DESC LIMIT 1 \gset
SELECT t.is(t.op('correct_usage', jsonb_build_object('move_id', :move, 'spool_id', 6, 'reason', 'it was the other one'))->'remaining_weight_g', '985.00', 'past use moves to the spool it really came from');
SELECT t.is((SELECT jsonb_agg(kind ORDER BY id) FROM odin.spool_moves WHERE run_id = (SELECT run_id FROM odin.spool_moves WHERE id = :move) AND kind IN ('consume', 'void')), '["consume", "void", "consume"]', 'with every step in the ledger');
SELECT t.is(t.op('correct_usage', jsonb_build_object('move_id', :move, 'grams', 1))#>'{error,code}', '"invalid_state_transition"', 'and not twice');
DO $d$ BEGIN UPDATE odin.spool_moves SET mg = 0; RAISE EXCEPTION 'the ledger was changed' USING ERRCODE = 'TT001'; EXCEPTION WHEN SQLSTATE 'OD005' THEN NULL; END $d$;
SELECT t.is(t.op('reserve_spool', jsonb_build_object('spool_id', 6, 'job_id', (SELECT max(id) FROM odin.jobs), 'grams', 900))->'reserved_g', '900.00', 'grams are reserved');
SELECT t.is(t.op('reserve_spool', jsonb_build_object('spool_id', 6, 'job_id', (SELECT max(id) FROM odin.jobs), 'grams', 2000))#>'{error,code}', '"spool_short"', 'never more than there are');
SELECT t.op('queue_job', '{"model_id":3,"printer_id":2}')->>'id' AS long \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :long, 'started_by_hand', true)), t.op('complete_job', jsonb_build_object('job_id', :long, 'used', '[{"tool":0,"grams":100,"segment":0},{"tool":0,"grams":30,"segment":1,"spool_id":6}]'::jsonb)) \g /dev/null
SELECT t.is((SELECT jsonb_object_agg(spool_id, -mg ORDER BY spool_id) FROM odin.spool_moves WHERE kind = 'consume' AND job_id = :long), '{"3": 100000, "6": 30000}', 'a run-out on the way is split over both spools');

-- Matching
SELECT t.op('clear_bed', jsonb_build_object('printer_id', p)) FROM generate_series(1, 2) p \g /dev/null
SELECT t.op('queue_job', '{"model_id":1,"color_hex":"#FF0000"}')->>'id' AS red \gset
CREATE FUNCTION t.rule(job bigint, printer bigint) RETURNS text LANGUAGE sql AS $f$ SELECT rule FROM odin.why(job, printer) $f$;
SELECT t.is(to_jsonb(t.rule(:red, 1)), '"colour"', 'another colour holds the job');
SELECT t.is(to_jsonb(t.rule(:red, 2)), NULL, 'the right one lets it start');
SELECT t.op('update_job', jsonb_build_object('job_id', :red, 'filament_id', 3)) \g /dev/null
SELECT t.is(jsonb_build_array(t.rule(:red, 1), t.rule(:red, 2)), '["material", null]', 'an exact filament is matched exactly');
SELECT t.op('update_job', jsonb_build_object('job_id', :red, 'color_hex', '#00FF00', 'allow_substitute', true)) \g /dev/null
SELECT t.is(jsonb_build_array(t.rule(:red, 1), t.rule(:red, 2), t.rule(:red, 3)), '[null, null, "material"]', 'with substitutes any colour of the material will do, never another material');
SELECT t.op('weigh_spool', '{"spool_id":1,"gross_grams":260}') \g /dev/null
SELECT t.is(to_jsonb(t.rule(:red, 1)), '"grams_short"', 'too few grams');
SELECT t.op('weigh_spool', '{"spool_id":1,"gross_grams":1250}'), t.op('hold_printer', '{"printer_id":1,"reason":"noise"}') \g /dev/null
SELECT t.is(to_jsonb(t.rule(:red, 1)), '"held"', 'a held printer');
SELECT t.op('hold_printer', '{"printer_id":1,"hold":false}'), t.says(1, 'offline') \g /dev/null
SELECT t.is(to_jsonb(t.rule(:red, 1)), '"offline"', 'an offline one');
SELECT t.says(1, 'idle'), t.op('save_blackout', '{"from_time":"00:00","until_time":"23:59:59"}') \g /dev/null
SELECT t.is(to_jsonb(t.rule(:red, 1)), '"window"', 'blackout hours');
SELECT t.op('save_blackout', jsonb_build_object('blackout_id', (SELECT max(id) FROM odin.blackouts), 'remove', true)), t.op('save_maintenance_task', '{"name":"Belt","printer_id":1,"interval_days":1,"blocks_printing":true}') \g /dev/null
UPDATE odin.maintenance_tasks SET created_at = now() - interval '9 days' WHERE name = 'Belt';
UPDATE odin.printers SET created_at = now() - interval '9 days';
SELECT t.is(to_jsonb(t.rule(:red, 1)), '"maintenance_due"', 'overdue maintenance that blocks');
SELECT t.op('complete_maintenance', jsonb_build_object('task_id', (SELECT max(id) FROM odin.maintenance_tasks))), t.op('add_model_revision', '{"model_id":1,"print_hours":1,"material":"PLA","grams":10,"nozzle_mm":0.6,"size_x_mm":400}') \g /dev/null
SELECT t.op('queue_job', '{"model_id":1}')->>'id' AS big \gset
SELECT t.is((SELECT to_jsonb(all_rules) FROM odin.why(:big, 1)), '["bed_size", "nozzle"]', 'bed size and nozzle, every reason told');
SELECT t.op('queue_job', '{"model_id":2,"target_type":"group","target_filter":"bambu","required_tags":["petg"]}')->>'id' AS group_job \gset
SELECT t.is((SELECT jsonb_agg(w.all_rules[1:2] ORDER BY w.printer_id) FROM odin.why(:group_job) w WHERE w.printer_id IN (1, 2)), '[["target", "tag"], null]', 'group and tags');
SELECT t.op('create_model', '{"name":"Two","print_hours":1,"materials":[{"tool":0,"material":"PLA","grams":5},{"tool":1,"material":"PLA","grams":5}]}')->>'model_id' AS two \gset
SELECT t.op('queue_job', jsonb_build_object('model_id', :two))->>'id' AS two_job \gset
SELECT t.is(to_jsonb(t.rule(:two_job, 2)), '"material"', 'two tools never share one slot');
SELECT t.op('assign_spool', '{"spool_id":5,"printer_id":2,"ams_slot":2}') \g /dev/null
SELECT t.is((SELECT jsonb_agg(m->'slot_number' ORDER BY m->'tool') FROM odin.why(:two_job, 2) w, jsonb_array_elements(w.slot_map) m), '[1, 3]', 'each tool gets a slot of its own');
DO $d$ BEGIN UPDATE odin.jobs SET status = 'completed' WHERE id = (SELECT max(id) FROM odin.jobs); RAISE EXCEPTION 'a job completed without a run' USING ERRCODE = 'TT001'; EXCEPTION WHEN SQLSTATE 'OD027' THEN NULL; END $d$;

-- Access
SELECT t.is((t.as('other', 'list_jobs')->'count'), '0', 'another org sees no jobs');
SELECT t.is(t.as('other', 'cancel_job', jsonb_build_object('job_id', :big))#>'{error,code}', '"job_not_found"', 'and cannot touch one; its id tells nothing');
SELECT t.is(t.as('other', 'queue_job', '{"model_id":1}')#>'{error,code}', '"model_not_found"', 'nor use a model');
SELECT t.is(t.as('viewer', 'cancel_job', jsonb_build_object('job_id', :big))#>'{error,code}', '"permission_denied"', 'a viewer changes nothing');
SELECT t.op('create_order', '{"customer_id":2,"lines":[{"model_id":2,"quantity":1}]}'), t.op('create_order', '{"customer_id":1,"lines":[{"model_id":2,"quantity":1}]}') \g /dev/null
SELECT t.is((SELECT jsonb_agg(DISTINCT o->'customer_name') FROM jsonb_array_elements(t.as('customer', 'list_orders')->'orders') o), '["Ada"]', 'a customer''s login sees that customer''s orders only');
SET ROLE ft_customer;
SELECT jsonb_agg(DISTINCT customer_id) AS seen FROM odin.jobs \gset
RESET ROLE;
SELECT t.is(:'seen', '[1]', 'and jobs, by plain SQL too');
SET ROLE ft_operator;
SELECT count(*) AS n FROM odin.jobs WHERE org_id <> (SELECT odin.my_org()) \gset
RESET ROLE;
SELECT t.ok(:n = 0, 'an operator''s SQL stays in the org');

-- Money
SELECT t.op('create_quote', '{"lines":[{"product_id":1,"quantity":4}],"margin_pct":100}') AS q \gset
SELECT t.ok((:'q'::jsonb->>'price')::numeric = round((:'q'::jsonb->>'cost')::numeric * 2, 2) OR abs((:'q'::jsonb->>'price')::numeric - (:'q'::jsonb->>'cost')::numeric * 2) <= 0.01, 'a quote is cost and margin');
SELECT t.ok(abs((SELECT sum(v::numeric) FROM jsonb_each_text(:'q'::jsonb->'breakdown') e(k, v) WHERE k IN ('material', 'machine', 'energy', 'labor', 'failure', 'consumables', 'packaging', 'overhead')) - (:'q'::jsonb->>'cost')::numeric) <= 0.05, 'its parts add up');
SELECT t.as('admin', 'set_rate_card', '{"material_per_kg":99}') \g /dev/null
SELECT t.ok(abs((t.op('accept_quote', jsonb_build_object('quote_id', :'q'::jsonb->'quote_id'))->>'subtotal')::numeric - (:'q'::jsonb->>'price')::numeric) <= 0.01, 'an accepted quote keeps its price, whatever the rates are now');
SELECT t.is((SELECT jsonb_agg(r.id) FROM odin.runs r WHERE r.cost IS DISTINCT FROM (SELECT c.total FROM odin.run_costs c WHERE c.run_id = r.id)), NULL, 'every run carries the cost that was worked out');
