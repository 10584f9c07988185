-- The state machines of the farm as rows: which state may follow which. Columns are text + CHECK; a trigger reads this table
-- (api/20_states.sql), so nobody, tool or psql, can take a step that is not here. Also: the words for priorities.
CREATE TABLE odin.transitions (
  machine    text NOT NULL,
  from_state text NOT NULL,
  to_state   text NOT NULL,
  PRIMARY KEY (machine, from_state, to_state)
);
COMMENT ON TABLE odin.transitions IS 'Allowed state changes: machine (order, job, run, spool, quote, invoice, command), from_state (empty = a new row), to_state.';

INSERT INTO odin.transitions(machine, from_state, to_state)
SELECT m, f, unnest(string_to_array(t, ' ')) FROM (VALUES
  ('order', '',            'pending in_progress fulfilled shipped cancelled'),
  ('order', 'pending',     'in_progress partial fulfilled shipped cancelled'),
  ('order', 'in_progress', 'pending partial fulfilled shipped cancelled'),
  ('order', 'partial',     'pending in_progress fulfilled shipped cancelled'),
  ('order', 'fulfilled',   'pending in_progress partial shipped cancelled'),
  ('order', 'shipped',     'in_progress partial'),
  ('order', 'cancelled',   'pending'),
  ('job', '',          'submitted pending'),
  ('job', 'submitted', 'pending rejected cancelled'),
  ('job', 'rejected',  'submitted cancelled'),
  ('job', 'pending',   'scheduled printing cancelled'),
  ('job', 'scheduled', 'pending printing cancelled'),
  ('job', 'printing',  'paused completed failed cancelled pending'),
  ('job', 'paused',    'printing completed failed cancelled pending'),
  ('run', '',         'claimed printing completed failed cancelled'),
  ('run', 'claimed',  'starting printing failed cancelled released unknown'),
  ('run', 'starting', 'printing paused completed failed cancelled unknown released'),
  ('run', 'printing', 'paused completed failed cancelled unknown'),
  ('run', 'paused',   'printing completed failed cancelled unknown'),
  ('run', 'unknown',  'starting printing paused completed failed cancelled released'),
  ('spool', '',         'active empty archived'),
  ('spool', 'active',   'empty archived'),
  ('spool', 'empty',    'active archived'),
  ('spool', 'archived', 'active'),
  ('quote', '',         'draft'),
  ('quote', 'draft',    'sent accepted declined expired'),
  ('quote', 'sent',     'accepted declined expired'),
  ('invoice', '',       'issued'),
  ('invoice', 'issued', 'paid void'),
  ('command', '',         'queued done'),
  ('command', 'queued',   'claimed cancelled failed'),
  ('command', 'claimed',  'sent done failed in_doubt queued cancelled'),
  ('command', 'sent',     'done failed in_doubt'),
  ('command', 'in_doubt', 'done failed queued cancelled')
) AS v(m, f, t);

CREATE TABLE odin.priorities (
  priority smallint PRIMARY KEY CHECK (priority BETWEEN 0 AND 10),
  words    text[] NOT NULL DEFAULT '{}',
  patience interval NOT NULL
);
COMMENT ON TABLE odin.priorities IS 'What a priority means: lower is sooner. patience = how long after queueing a job should start at the latest; negative = ahead of what already waits.';
COMMENT ON COLUMN odin.priorities.words IS 'Words accepted instead of the number.';
INSERT INTO odin.priorities(priority, words, patience) VALUES
  (0, '{now}', '-60 days'), (1, '{urgent}', '-30 days'), (2, '{high}', '0'), (3, '{normal,medium}', '7 days'),
  (4, '{low}', '14 days'), (5, '{lowest}', '28 days'), (6, '{}', '42 days'), (7, '{}', '56 days'), (8, '{}', '70 days'),
  (9, '{}', '84 days'), (10, '{}', '98 days');
GRANT SELECT ON odin.transitions, odin.priorities TO odin_viewer, odin_customer;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('order_not_found',      'OD101', 404, false, 'No such order, or it is not yours to see.', 'Call list_orders.'),
  ('customer_not_found',   'OD102', 404, false, 'No such customer.', 'Call list_customers.'),
  ('product_not_found',    'OD103', 404, false, 'No such product.', 'Call list_products.'),
  ('filament_not_found',   'OD104', 404, false, 'No such filament.', 'Call list_filaments.'),
  ('consumable_not_found', 'OD105', 404, false, 'No such consumable.', 'Call list_consumables.'),
  ('run_not_found',        'OD106', 404, false, 'No such run.', 'Call get_job to see the runs of a job.'),
  ('quote_not_found',      'OD107', 404, false, 'No such quote.', NULL),
  ('invoice_not_found',    'OD108', 404, false, 'No such invoice.', NULL),
  ('printer_busy',         'OD110', 409, false, 'The printer already has an active run.', 'Wait for it, or choose another printer.'),
  ('job_busy',             'OD111', 409, false, 'The job already has an active run.', 'Call get_job.'),
  ('bed_not_clear',        'OD112', 409, false, 'Something lies on the bed; nothing may start before it is cleared.', 'Take the print off, then call clear_bed.'),
  ('not_ready',            'OD113', 409, false, 'A rule of the farm keeps this job off this printer.', 'Call why_waiting to see every rule and its reason.'),
  ('spool_short',          'OD114', 409, false, 'The spool holds less than asked for.', 'Weigh the spool with weigh_spool, or use another one.'),
  ('spool_in_use',         'OD115', 409, false, 'The spool is loaded elsewhere or feeds an active run.', 'Unload it first.'),
  ('out_of_stock',         'OD118', 409, false, 'Less is in stock than asked for.', 'Call list_stock or list_consumables.'),
  ('printer_unreachable',  'OD119', 409, true,  'The printer has not reported for too long, so it cannot be commanded.', 'Check that it is on and connected.')
ON CONFLICT (code) DO NOTHING;
