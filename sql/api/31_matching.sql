-- Which printer may print which job: named rules, each with a reason. The same rules for why(), for starting and for planning.
-- A slot map is computed for one printer and belongs to it; a tool without a matching spool refuses, it is never guessed.

-- What a job needs per tool: its own row where it has one, else its revision's.
CREATE OR REPLACE FUNCTION odin._job_needs(job bigint, revision bigint)
RETURNS TABLE(tool smallint, material text, brand text, filament_id bigint, color_hex text, mg bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT m.tool, coalesce(o.material, m.material), CASE WHEN o.job_id IS NULL THEN m.brand ELSE o.brand END, CASE WHEN o.job_id IS NULL THEN m.filament_id ELSE o.filament_id END,
         CASE WHEN o.job_id IS NULL THEN m.color_hex ELSE o.color_hex END, coalesce(o.mg, m.mg)
    FROM odin.revision_materials m LEFT JOIN odin.job_materials o ON o.job_id = job AND o.tool = m.tool WHERE m.revision_id = revision
  UNION ALL
  SELECT o.tool, o.material, o.brand, o.filament_id, o.color_hex, o.mg FROM odin.job_materials o
   WHERE o.job_id = job AND NOT EXISTS (SELECT 1 FROM odin.revision_materials m WHERE m.revision_id = revision AND m.tool = o.tool);
END $f$;

CREATE OR REPLACE FUNCTION odin._in_blackout(b odin.blackouts, at timestamptz) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE WHEN b.from_at IS NOT NULL THEN at >= b.from_at AND at < b.until_at
    WHEN b.from_time <= b.until_time THEN l::time >= b.from_time AND l::time < b.until_time AND extract(isodow FROM l)::smallint = ANY (b.days)
    ELSE (l::time >= b.from_time AND extract(isodow FROM l)::smallint = ANY (b.days)) OR (l::time < b.until_time AND extract(isodow FROM l - interval '1 day')::smallint = ANY (b.days)) END
    FROM (SELECT at AT TIME ZONE b.time_zone AS l) x;
$f$;

-- The slots of one printer for a job's tools. problem and reason say what is missing; nothing is reserved here.
CREATE OR REPLACE FUNCTION odin._slot_map(job bigint, printer bigint, OUT map jsonb, OUT rule text, OUT reason text, OUT changeovers integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j record;
  n record;
  s record;
  taken smallint[] := '{}';
  loaded text;
BEGIN
  map := '[]';
  changeovers := 0;
  SELECT x.id, x.revision_id, x.material_policy INTO j FROM odin.jobs x WHERE x.id = job;
  FOR n IN SELECT * FROM odin._job_needs(job, j.revision_id) d ORDER BY (d.filament_id IS NULL), (d.brand IS NULL), (d.color_hex IS NULL), d.mg DESC, d.tool LOOP
    SELECT ps.slot_number, ps.spool_id, sp.code, b.balance_mg - b.reserved_mg + odin._reserved_for_job(ps.spool_id, job) AS free_mg,
           f.material = n.material AS material_ok,
           j.material_policy = 'substitute' OR ((n.filament_id IS NULL OR f.id = n.filament_id) AND (n.brand IS NULL OR lower(f.brand) = lower(n.brand))) AS brand_ok,
           j.material_policy = 'substitute' OR n.filament_id IS NOT NULL OR n.color_hex IS NULL OR f.color_hex IS NOT DISTINCT FROM n.color_hex AS color_ok
      INTO s
      FROM odin.printer_slots ps JOIN odin.spools sp ON sp.id = ps.spool_id AND sp.status = 'active' JOIN odin.filaments f ON f.id = sp.filament_id
      JOIN odin.spool_balances b ON b.spool_id = ps.spool_id
     WHERE ps.printer_id = printer AND ps.slot_number <> ALL (taken)
     ORDER BY (f.material = n.material) DESC, 6 DESC, 7 DESC, (b.balance_mg - b.reserved_mg + odin._reserved_for_job(ps.spool_id, job) >= n.mg) DESC,
              odin._reserved_for_job(ps.spool_id, job) DESC, (f.id IS NOT DISTINCT FROM n.filament_id) DESC, (f.color_hex IS NOT DISTINCT FROM n.color_hex) DESC, b.balance_mg, ps.slot_number
     LIMIT 1;
    IF s.slot_number IS NULL OR NOT s.material_ok THEN
      SELECT string_agg(DISTINCT f.material, ', ') INTO loaded FROM odin.printer_slots ps JOIN odin.spools sp ON sp.id = ps.spool_id JOIN odin.filaments f ON f.id = sp.filament_id WHERE ps.printer_id = printer;
      rule := 'material'; reason := format('needs %s; %s', n.material, CASE WHEN loaded IS NULL THEN 'no spool is loaded' ELSE 'loaded: ' || loaded END);
    ELSIF NOT s.brand_ok THEN
      rule := 'material'; reason := CASE WHEN n.filament_id IS NOT NULL THEN format('needs filament %s exactly; another %s is loaded', n.filament_id, n.material) ELSE format('needs %s %s; another brand is loaded', n.brand, n.material) END;
    ELSIF NOT s.color_ok THEN
      rule := 'colour'; reason := format('needs %s in %s; only other colours are loaded', n.material, n.color_hex);
    ELSIF s.free_mg < n.mg THEN
      rule := 'grams_short'; reason := format('needs %s g of %s; spool %s in slot %s has %s g free', round(n.mg / 1000.0, 1), n.material, s.code, s.slot_number, round(greatest(s.free_mg, 0) / 1000.0, 1));
    END IF;
    IF rule IS NOT NULL THEN
      map := NULL;
      RETURN;
    END IF;
    taken := taken || s.slot_number;
    map := map || jsonb_build_object('tool', n.tool, 'slot_number', s.slot_number, 'spool_id', s.spool_id, 'spool', s.code, 'mg', n.mg, 'grams', round(n.mg / 1000.0, 2));
  END LOOP;
END $f$;

-- Every printer of the job's org against every rule. by_hand: a person stands at the printer, so its connection does not matter.
CREATE OR REPLACE FUNCTION odin._fit(job bigint, only_printer bigint DEFAULT NULL, by_hand boolean DEFAULT false)
RETURNS TABLE(printer_id bigint, printer_name text, rules text[], reasons text[], slot_map jsonb, wear_hours numeric)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off AS $f$
DECLARE
  j record;
  job_rule text;
  job_reason text;
  stale interval;
  hidden bigint[];
BEGIN
  SELECT x.*, r.printer_model, r.protocols, r.nozzle_mm, r.size_x_mm, r.size_y_mm, r.size_z_mm, r.plate_surface, r.file_sha256,
         EXISTS (SELECT 1 FROM odin._job_needs(x.id, x.revision_id) d JOIN odin.filaments f ON f.id = d.filament_id WHERE f.abrasive) AS abrasive
    INTO j FROM odin.jobs x JOIN odin.model_revisions r ON r.id = x.revision_id WHERE x.id = job;
  IF j.id IS NULL THEN RETURN; END IF;
  hidden := odin._hidden_printers(j.org_id);
  stale := make_interval(secs => odin._setting(j.org_id, 'printer_stale_seconds', '300')::numeric::float8);
  IF j.status = 'submitted' THEN
    job_rule := 'approval'; job_reason := 'the job waits for approval';
  ELSIF j.status = 'rejected' THEN
    job_rule := 'approval'; job_reason := 'the job was rejected: ' || j.rejected_reason;
  ELSIF j.status NOT IN ('pending', 'scheduled') THEN
    job_rule := 'job_state'; job_reason := format('the job is %s', j.status);
  ELSIF j.hold THEN
    job_rule := 'job_held'; job_reason := 'the job is on hold' || coalesce(': ' || j.hold_reason, '');
  END IF;
  RETURN QUERY
    WITH needs AS MATERIALIZED (SELECT d.*, row_number() OVER (ORDER BY (d.filament_id IS NULL), (d.brand IS NULL), (d.color_hex IS NULL), d.mg DESC, d.tool) AS place FROM odin._job_needs(j.id, j.revision_id) d),
    own AS (SELECT m.spool_id, sum(m.reserved_mg) AS mg FROM odin.spool_moves m WHERE m.job_id = j.id AND m.run_id IS NULL AND m.kind IN ('reserve', 'release') GROUP BY m.spool_id),
    slots AS MATERIALIZED (
      SELECT ps.printer_id, ps.slot_number, ps.spool_id, sp.code, f.id AS filament_id, f.material, lower(f.brand) AS brand, f.color_hex, b.balance_mg, b.balance_mg - b.reserved_mg + coalesce(o.mg, 0) AS free_mg, coalesce(o.mg, 0) AS own_mg
        FROM odin.printer_slots ps JOIN odin.spools sp ON sp.id = ps.spool_id AND sp.status = 'active' JOIN odin.filaments f ON f.id = sp.filament_id JOIN odin.spool_balances b ON b.spool_id = ps.spool_id LEFT JOIN own o ON o.spool_id = ps.spool_id
       WHERE ps.org_id = j.org_id AND (only_printer IS NULL OR ps.printer_id = only_printer)),
    -- The best slot of each printer for each need, taken for itself; a file with several tools is mapped exactly below, where it may fit at all.
    best AS (
      SELECT DISTINCT ON (p.id, n.place) p.id AS on_printer, n.place, n.tool, n.material, n.brand, n.filament_id, n.color_hex, n.mg, s.slot_number, s.spool_id, s.code, s.free_mg, k.material_ok, k.brand_ok, k.color_ok
        FROM odin.printers p CROSS JOIN needs n LEFT JOIN slots s ON s.printer_id = p.id
        CROSS JOIN LATERAL (SELECT coalesce(s.material = n.material, false) AS material_ok,
          j.material_policy = 'substitute' OR ((n.filament_id IS NULL OR s.filament_id = n.filament_id) AND (n.brand IS NULL OR s.brand = lower(n.brand))) AS brand_ok,
          j.material_policy = 'substitute' OR n.filament_id IS NOT NULL OR n.color_hex IS NULL OR s.color_hex IS NOT DISTINCT FROM n.color_hex AS color_ok) k
       WHERE p.org_id = j.org_id AND p.is_active AND (only_printer IS NULL OR p.id = only_printer)
       ORDER BY p.id, n.place, k.material_ok DESC, k.brand_ok DESC, k.color_ok DESC, (s.free_mg >= n.mg) DESC NULLS LAST, s.own_mg DESC NULLS LAST, (s.filament_id IS NOT DISTINCT FROM n.filament_id) DESC, (s.color_hex IS NOT DISTINCT FROM n.color_hex) DESC, s.balance_mg, s.slot_number),
    slotted AS (
      SELECT b.on_printer, (array_agg(b.rule ORDER BY b.place) FILTER (WHERE b.rule IS NOT NULL))[1] AS rule, (array_agg(b.reason ORDER BY b.place) FILTER (WHERE b.rule IS NOT NULL))[1] AS reason,
             jsonb_agg(jsonb_build_object('tool', b.tool, 'slot_number', b.slot_number, 'spool_id', b.spool_id, 'spool', b.code, 'mg', b.mg, 'grams', round(b.mg / 1000.0, 2)) ORDER BY b.tool) AS map
        FROM (SELECT x.*, CASE WHEN NOT x.material_ok OR NOT x.brand_ok THEN 'material' WHEN NOT x.color_ok THEN 'colour' WHEN x.free_mg < x.mg THEN 'grams_short' END AS rule,
                CASE WHEN NOT x.material_ok THEN format('needs %s; %s', x.material, coalesce('loaded: ' || (SELECT string_agg(DISTINCT t.material, ', ') FROM slots t WHERE t.printer_id = x.on_printer), 'no spool is loaded'))
                     WHEN NOT x.brand_ok THEN CASE WHEN x.filament_id IS NOT NULL THEN format('needs filament %s exactly; another %s is loaded', x.filament_id, x.material) ELSE format('needs %s %s; another brand is loaded', x.brand, x.material) END
                     WHEN NOT x.color_ok THEN format('needs %s in %s; only other colours are loaded', x.material, x.color_hex)
                     WHEN x.free_mg < x.mg THEN format('needs %s g of %s; spool %s in slot %s has %s g free', round(x.mg / 1000.0, 1), x.material, x.code, x.slot_number, round(greatest(x.free_mg, 0) / 1000.0, 1)) END AS reason FROM best x) b
       GROUP BY b.on_printer),
    windows AS MATERIALIZED (SELECT b.printer_id AS on_printer, coalesce(b.reason, 'blackout window') AS why FROM odin.blackouts b WHERE b.org_id = j.org_id AND b.is_active AND odin._in_blackout(b, now())),
    blocking AS MATERIALIZED (SELECT m.printer_id AS on_printer, string_agg(m.task_name, ', ') AS what FROM odin.maintenance_status m
      WHERE m.org_id = j.org_id AND m.blocks_printing AND m.due = 'overdue' AND (only_printer IS NULL OR m.printer_id = only_printer) GROUP BY 1)
    SELECT p.id, p.name, f.rules, f.reasons, CASE WHEN f.rules IS NULL THEN s.map END, round(c.print_seconds / 3600.0, 1)
      FROM odin.printers p JOIN odin.printer_state ps ON ps.printer_id = p.id JOIN odin.beds b ON b.printer_id = p.id JOIN odin.printer_totals c ON c.printer_id = p.id
      LEFT JOIN odin.nozzles nz ON nz.printer_id = p.id AND nz.tool = 0 AND nz.removed_at IS NULL
      LEFT JOIN odin.runs ar ON ar.printer_id = p.id AND ar.status IN ('claimed','starting','printing','paused','unknown')
      LEFT JOIN blocking k ON k.on_printer = p.id
      LEFT JOIN slotted sl ON sl.on_printer = p.id
      LEFT JOIN LATERAL (SELECT x.* FROM odin._slot_map(j.id, p.id) x WHERE sl.rule IS NULL AND (SELECT count(*) FROM needs) > 1) ex ON true
      CROSS JOIN LATERAL (SELECT coalesce(sl.rule, ex.rule) AS rule, coalesce(sl.reason, ex.reason) AS reason, CASE WHEN (SELECT count(*) FROM needs) > 1 THEN ex.map ELSE sl.map END AS map) s
      CROSS JOIN LATERAL (SELECT array_agg(v.rule ORDER BY v.n) AS rules, array_agg(v.reason ORDER BY v.n) AS reasons FROM (VALUES
        (1, job_rule, job_reason, job_rule IS NOT NULL),
        (2, 'pinned', format('the job is pinned to printer %s', j.printer_id), j.printer_id <> p.id),
        (3, 'target', format('the job is for %s %s', j.target_type, j.target_filter), CASE j.target_type WHEN 'model' THEN strpos(lower(coalesce(p.model, '')), lower(j.target_filter)) = 0
            WHEN 'protocol' THEN p.protocol <> lower(j.target_filter) WHEN 'group' THEN lower(coalesce(p.group_name, '')) <> lower(j.target_filter) END),
        (4, 'tag', format('needs the tags %s', array_to_string(j.required_tags, ', ')), NOT p.tags @> j.required_tags),
        (5, 'printer_model', format('the file is sliced for %s; this is a %s', j.printer_model, coalesce(p.model, 'printer without model')), strpos(lower(coalesce(p.model, '')), lower(j.printer_model)) = 0),
        (6, 'protocol', format('the file is for %s; this printer speaks %s', array_to_string(j.protocols, ', '), p.protocol), p.protocol <> ALL (j.protocols)),
        (7, 'file', 'the model''s revision has no file to send', j.file_sha256 IS NULL AND NOT by_hand AND p.protocol <> 'virtual'),
        (8, 'bed_size', format('needs %s x %s x %s mm; the bed has %s x %s x %s mm', j.size_x_mm, j.size_y_mm, j.size_z_mm, p.bed_x_mm, p.bed_y_mm, p.bed_z_mm),
            j.size_x_mm > p.bed_x_mm + 2 OR j.size_y_mm > p.bed_y_mm + 2 OR j.size_z_mm > p.bed_z_mm),
        (9, 'surface', format('needs a %s plate; this one has %s', j.plate_surface, coalesce(p.plate_surface, 'none recorded')), lower(coalesce(p.plate_surface, '')) <> lower(j.plate_surface)),
        (10, 'nozzle', format('needs a %s mm nozzle; %s is mounted', j.nozzle_mm, coalesce(nz.diameter_mm || ' mm', 'none recorded')), j.nozzle_mm IS NOT NULL AND nz.diameter_mm IS DISTINCT FROM j.nozzle_mm),
        (11, 'nozzle', 'the filament is abrasive and the nozzle is brass', j.abrasive AND nz.type = 'brass'),
        (12, 'held', 'the printer is held' || coalesce(': ' || p.hold_reason, ''), p.is_held),
        (13, 'maintenance_due', 'overdue: ' || k.what, k.what IS NOT NULL),
        (14, 'offline', format('the printer is %s%s', ps.state, coalesce(': ' || ps.error_message, '')), ps.state IN ('offline', 'unknown', 'error') AND NOT by_hand),
        (15, 'offline', format('last report %s ago', date_trunc('second', now() - ps.reported_at)), ps.reported_at < now() - stale AND p.protocol <> 'virtual' AND NOT by_hand AND ps.state NOT IN ('offline', 'unknown', 'error')),
        (16, 'busy', format('run %s of job %s is active here', ar.id, ar.job_id), ar.id IS NOT NULL),
        (17, 'busy', format('the printer reports %s', ps.state), ar.id IS NULL AND ps.state IN ('printing', 'paused', 'preparing') AND NOT by_hand),
        (18, 'not_cleared', format('the bed is occupied since %s%s', to_char(b.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), coalesce(' by run ' || b.run_id, '')), b.occupied AND ar.id IS NULL),
        (19, 'window', (SELECT string_agg(w.why, ', ') FROM windows w WHERE w.on_printer IS NULL OR w.on_printer = p.id), EXISTS (SELECT 1 FROM windows w WHERE w.on_printer IS NULL OR w.on_printer = p.id)),
        (20, s.rule, s.reason, s.rule IS NOT NULL)
      ) AS v(n, rule, reason, fails) WHERE v.fails) f
     WHERE p.org_id = j.org_id AND p.is_active AND (only_printer IS NULL OR p.id = only_printer) AND (hidden IS NULL OR p.id <> ALL (hidden));
END $f$;

CREATE OR REPLACE FUNCTION odin.why(job_id bigint, only_printer_id bigint DEFAULT NULL)
RETURNS TABLE(printer_id bigint, printer_name text, fits boolean, rule text, reason text, all_rules text[], all_reasons text[], slot_map jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := (SELECT j.org_id FROM odin.jobs j WHERE j.id = why.job_id);
BEGIN
  IF org IS NULL OR NOT odin._may(org, 'odin_viewer') OR odin._is_hidden('odin.jobs', why.job_id) THEN
    PERFORM odin.fail('job_not_found', format('job_id: there is no job %s', why.job_id), NULL, '{"field":"job_id"}');
  END IF;
  -- Automatic start that switched itself off keeps no person from starting the job, so it is no rule; it is why the job still waits.
  RETURN QUERY SELECT f.printer_id, f.printer_name, f.rules IS NULL, f.rules[1],
      CASE WHEN f.rules IS NOT NULL THEN f.reasons[1] ELSE 'fits' || coalesce((SELECT format('; automatic start switched itself off at %s: %s', to_char(p.auto_dispatch_off_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), p.auto_dispatch_off_reason)
        FROM odin.printers p WHERE p.id = f.printer_id AND p.auto_dispatch_off_at IS NOT NULL), '') END, f.rules, f.reasons, f.slot_map
    FROM odin._fit(why.job_id, why.only_printer_id) f ORDER BY (f.rules IS NULL) DESC, cardinality(f.rules), f.wear_hours, f.printer_id;
END $f$;
COMMENT ON FUNCTION odin.why(bigint, bigint) IS 'Why a job waits: one row per printer with the first rule that keeps the job off it and the reason in words; printers that fit come first. rules: job_held, approval, job_state, pinned, target, tag, printer_model, protocol, file, bed_size, surface, nozzle, held, maintenance_due, offline, busy, not_cleared, window, material, colour, grams_short.';
REVOKE EXECUTE ON FUNCTION odin.why(bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION odin.why(bigint, bigint) TO odin_viewer;
