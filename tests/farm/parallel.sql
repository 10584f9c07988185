-- One step of one of many at once: something a person, an agent or a printer might do, chosen by the seed.
CREATE TABLE t.answers(op text, code text);
CREATE FUNCTION t.step(seed integer) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  pick integer := abs(hashint4(seed)) % 100;
  rnd integer := abs(hashint4(seed + 7));
  job bigint;
  run bigint;
  op text;
  answer jsonb;
BEGIN
  SELECT id INTO job FROM odin.jobs WHERE status IN ('pending', 'scheduled') AND NOT hold ORDER BY hashint8(id + rnd) LIMIT 1;
  SELECT r.id INTO run FROM odin.runs r WHERE r.status = 'printing' ORDER BY hashint8(r.id + rnd) LIMIT 1;
  IF pick < 30 THEN
    op := 'start'; answer := t.op('start_job', jsonb_build_object('job_id', job, 'started_by_hand', true));
  ELSIF pick < 50 THEN
    op := 'complete'; answer := t.op('complete_job', jsonb_build_object('job_id', (SELECT r.job_id FROM odin.runs r WHERE r.id = run), 'good', rnd % 3));
  ELSIF pick < 58 AND run IS NOT NULL THEN
    op := 'printer'; answer := coalesce(odin.apply_finish(run, CASE WHEN rnd % 4 = 0 THEN 'failed' ELSE 'completed' END, reported_by => 'printer', progress => rnd % 100), '{}');
  ELSIF pick < 66 THEN
    op := 'fail'; answer := t.op('fail_job', jsonb_build_object('job_id', (SELECT r.job_id FROM odin.runs r WHERE r.id = run), 'reason', 'clog', 'progress_percent', rnd % 100));
  ELSIF pick < 72 THEN
    op := 'cancel'; answer := t.op('cancel_job', jsonb_build_object('job_id', job));
  ELSIF pick < 80 THEN
    op := 'edit'; answer := t.op('update_order_line', jsonb_build_object('order_line_id', (SELECT id FROM odin.order_lines WHERE NOT is_stock ORDER BY hashint8(id + rnd) LIMIT 1), 'quantity', 3 + rnd % 12));
  ELSIF pick < 83 THEN
    op := 'verdict'; answer := t.op('set_verdict', jsonb_build_object('run_id', (SELECT id FROM odin.runs WHERE status = 'completed' ORDER BY hashint8(id + rnd) LIMIT 1), 'good', rnd % 3));
  ELSIF pick < 85 THEN
    op := 'cancel_order'; answer := t.op('cancel_order', jsonb_build_object('order_id', (SELECT id FROM odin.orders WHERE NOT is_stock AND status <> 'cancelled' ORDER BY hashint8(id + rnd) OFFSET 3 LIMIT 1)));
  ELSIF pick < 88 THEN
    op := 'weigh'; answer := t.op('weigh_spool', jsonb_build_object('spool_id', 1 + rnd % 6, 'gross_grams', 900 + rnd % 300));
  ELSIF pick < 90 THEN
    op := 'plan'; answer := t.op('plan_queue', '{"show":0}');
  ELSE
    op := 'clear'; answer := t.op('clear_bed', jsonb_build_object('printer_id', 1 + rnd % 4));
  END IF;
  INSERT INTO t.answers VALUES (op, coalesce(answer#>>'{error,code}', 'done'));
EXCEPTION WHEN serialization_failure OR deadlock_detected THEN
  INSERT INTO t.answers VALUES (op, 'conflict');
END $f$;
UPDATE odin.spools SET low_stock_mg = 0;
SELECT t.op('create_order', jsonb_build_object('customer_id', 1 + n % 2, 'lines', jsonb_build_array(jsonb_build_object('product_id', 1, 'quantity', 6 + n), jsonb_build_object('model_id', 2, 'quantity', 5)))) FROM generate_series(1, 6) n \g /dev/null
SELECT t.op('queue_job', '{"model_id":1,"quantity":20}'), t.op('queue_job', '{"model_id":2,"quantity":10}') \g /dev/null
