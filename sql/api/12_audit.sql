-- The trail: recording changed rows, sealing committed rows in batches, verifying the seals.
-- A seal is never made inside a business transaction, and a sealed row is never changed.

-- Statement trigger of every guarded table; its arguments are the key columns. PL/pgSQL keeps one plan a table.
CREATE OR REPLACE FUNCTION odin._trail() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $f$
BEGIN
  IF TG_NARGS > 1 OR TG_ARGV[0] <> 'id' THEN
    -- A branch per operation: a trigger for INSERT has no old rows to name.
    IF TG_OP = 'INSERT' THEN
      PERFORM odin._trail_by_columns(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_ARGV, (SELECT jsonb_agg(to_jsonb(x.*)) FROM new_rows x), NULL);
    ELSIF TG_OP = 'DELETE' THEN
      PERFORM odin._trail_by_columns(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_ARGV, NULL, (SELECT jsonb_agg(to_jsonb(x.*)) FROM old_rows x));
    ELSE
      PERFORM odin._trail_by_columns(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_ARGV, (SELECT jsonb_agg(to_jsonb(x.*)) FROM new_rows x), (SELECT jsonb_agg(to_jsonb(x.*)) FROM old_rows x));
    END IF;
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO odin.audit_changes(changed_at, call_id, role_name, org_id, table_name, op, row_key, after, origin, xid)
    SELECT clock_timestamp(), odin.current_call(), odin.actor(), (coalesce(r.j->'org_id', r.j->'id'))::bigint, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'insert', r.j->>'id', r.j, odin._origin(), pg_current_xact_id()
      FROM (SELECT to_jsonb(x.*) AS j FROM new_rows x) r;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO odin.audit_changes(changed_at, call_id, role_name, org_id, table_name, op, row_key, before, origin, xid)
    SELECT clock_timestamp(), odin.current_call(), odin.actor(), (coalesce(r.j->'org_id', r.j->'id'))::bigint, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'delete', r.j->>'id', r.j, odin._origin(), pg_current_xact_id()
      FROM (SELECT to_jsonb(x.*) AS j FROM old_rows x) r;
  ELSE
    INSERT INTO odin.audit_changes(changed_at, call_id, role_name, org_id, table_name, op, row_key, before, after, origin, xid)
    -- A row whose key itself changed is one deleted and one inserted. Only columns that differ become JSON (a leaf finds them, some too many); OFFSET 0: once.
    SELECT clock_timestamp(), odin.current_call(), odin.actor(), (coalesce(r.j->'org_id', r.was->'org_id', r.j->'id', r.was->'id'))::bigint, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, r.op, r.key,
           CASE WHEN r.op = 'delete' OR r.op = 'update' AND odin._call_keeps_images() THEN r.was ELSE d.was END, CASE WHEN r.op = 'insert' THEN r.j ELSE d.j END, odin._origin(), pg_current_xact_id()
      FROM (SELECT CASE WHEN o.id IS NULL THEN 'insert' WHEN x.id IS NULL THEN 'delete' ELSE 'update' END AS op, coalesce(x.id, o.id)::text AS key,
                   CASE WHEN o.id IS NULL THEN NULL WHEN x.id IS NULL OR odin._call_keeps_images() THEN to_jsonb(o.*) ELSE to_jsonb(odin._row_differs(o.*, x.*)) END AS was,
                   CASE WHEN x.id IS NULL THEN NULL WHEN o.id IS NULL THEN to_jsonb(x.*) ELSE to_jsonb(odin._row_differs(x.*, o.*)) END AS j
              FROM new_rows x FULL JOIN old_rows o ON o.id = x.id OFFSET 0) r,
           LATERAL (SELECT jsonb_object_agg(e.key, r.was->e.key) AS was, jsonb_object_agg(e.key, e.value) AS j FROM jsonb_each(r.j) e WHERE r.op = 'update' AND e.value IS DISTINCT FROM r.was->e.key) d
     WHERE r.op <> 'update' OR d.j IS NOT NULL;
  END IF;
  RETURN NULL;
END $f$;

-- The columns that differ: as they were, and as they are.
CREATE OR REPLACE FUNCTION odin._changed(before jsonb, after jsonb, OUT was jsonb, OUT j jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$
  SELECT pg_catalog.jsonb_object_agg(e.key, before OPERATOR(pg_catalog.->) e.key), pg_catalog.jsonb_object_agg(e.key, e.value)
    FROM pg_catalog.jsonb_each(after) e WHERE e.value IS DISTINCT FROM before OPERATOR(pg_catalog.->) e.key;
$f$;

-- The same for tables whose key is not a column id.
CREATE OR REPLACE FUNCTION odin._trail_by_columns(op text, of_table text, keys text[], now_rows jsonb, old_rows jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  WITH o AS (SELECT (SELECT string_agg(x->>k, ',' ORDER BY i) FROM unnest(keys) WITH ORDINALITY u(k, i)) AS key, x FROM jsonb_array_elements(old_rows) x),
       n AS (SELECT (SELECT string_agg(x->>k, ',' ORDER BY i) FROM unnest(keys) WITH ORDINALITY u(k, i)) AS key, x FROM jsonb_array_elements(now_rows) x)
  INSERT INTO odin.audit_changes(changed_at, call_id, role_name, org_id, table_name, op, row_key, before, after, origin, xid)
  SELECT clock_timestamp(), odin.current_call(), odin.actor(), (coalesce(n.x, o.x)->'org_id')::bigint, of_table,
         CASE WHEN o.x IS NULL THEN 'insert' WHEN n.x IS NULL THEN 'delete' ELSE 'update' END, coalesce(n.key, o.key),
         CASE WHEN n.x IS NULL OR odin._call_keeps_images() THEN o.x ELSE d.was END, CASE WHEN o.x IS NULL THEN n.x ELSE d.j END, odin._origin(), pg_current_xact_id()
    FROM o FULL JOIN n USING (key) LEFT JOIN LATERAL odin._changed(o.x, n.x) d ON true
   WHERE o.x IS NULL OR n.x IS NULL OR d.j IS NOT NULL;
$f$;

-- What the call being carried out has changed so far, for its preview: the first hundred rows that the caller may see, and the
-- fingerprint of what was touched. Only a row's first image counts there: later ones hold what the call itself wrote, times and
-- numbers included, and would never be the same twice.
CREATE OR REPLACE FUNCTION odin._call_changes(OUT changes jsonb, OUT total bigint, OUT touched text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who name := odin.actor();
  orgs bigint[] := ARRAY(SELECT odin.orgs_of(who));
BEGIN
  SELECT coalesce(jsonb_agg(jsonb_build_object('table', c.table_name, 'op', c.op)
           || CASE WHEN c.op <> 'insert' THEN jsonb_build_object('key', c.row_key,
                'before', odin._seen_columns(who, c.table_name, CASE c.op WHEN 'update' THEN (SELECT jsonb_object_agg(k, c.before->k) FROM jsonb_object_keys(c.after) k) ELSE c.before END)) ELSE '{}' END
           || CASE WHEN c.op <> 'delete' THEN jsonb_build_object('after', odin._seen_columns(who, c.table_name, c.after)) ELSE '{}' END ORDER BY c.id) FILTER (WHERE c.n <= 100 AND c.org_id = ANY (orgs)), '[]'), count(*),
         encode(sha256(convert_to(coalesce(string_agg(c.table_name || c.op || c.row_key || coalesce(c.before::text, ''), E'\n' ORDER BY c.table_name, c.row_key)
           FILTER (WHERE c.nth = 1 AND c.op <> 'insert'), ''), 'UTF8')), 'hex')
    INTO changes, total, touched
    FROM (SELECT a.*, row_number() OVER (ORDER BY a.id) AS n, row_number() OVER (PARTITION BY a.table_name, a.row_key ORDER BY a.id) AS nth FROM odin.audit_changes a
           WHERE a.call_id = odin.current_call() AND a.changed_at >= now() - interval '1 day') c;
END $f$;

-- A row's image without the columns that a role may not read.
CREATE OR REPLACE FUNCTION odin._seen_columns(who name, of_table text, image jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE WHEN image IS NULL OR has_table_privilege(who, to_regclass(of_table), 'SELECT') THEN image
    ELSE (SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') FROM jsonb_each(image) e JOIN pg_attribute a ON a.attrelid = to_regclass(of_table) AND a.attname = e.key AND a.attnum > 0
           WHERE has_column_privilege(who, a.attrelid, a.attnum, 'SELECT')) END;
$f$;

CREATE OR REPLACE FUNCTION odin._append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RAISE EXCEPTION '% is append-only: % is not possible', TG_TABLE_NAME, TG_OP
    USING ERRCODE = '42501', HINT = 'Retire whole sealed months with odin.retire_audit().';
END $f$;

-- The partition of a month, with the refusals that only a partition itself can have.
CREATE OR REPLACE FUNCTION odin._audit_partition(parent text, month date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  part text := format('%s_%s', parent, to_char(month, 'YYYY_MM'));
BEGIN
  IF to_regclass('odin.' || part) IS NULL THEN
    -- Two clocks may find it missing at the same moment.
    PERFORM pg_advisory_xact_lock(hashtextextended('odin partitions', 0));
    IF EXISTS (SELECT 1 FROM pg_class c WHERE c.relname = part AND c.relnamespace = 'odin'::regnamespace) THEN RETURN NULL; END IF;
    EXECUTE format('CREATE TABLE odin.%I PARTITION OF odin.%I FOR VALUES FROM (%L) TO (%L)', part, parent,
      month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('COMMENT ON TABLE odin.%I IS %L', part, format('Rows of odin.%s of one month.', parent));
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON odin.%I EXECUTE FUNCTION odin._append_only()', part);
    EXECUTE format('ALTER TABLE odin.%I ENABLE ALWAYS TRIGGER no_truncate, ENABLE ROW LEVEL SECURITY', part);
    RETURN part;
  END IF;
  RETURN NULL;
END $f$;

-- A seal's digest of many rows: the hash of their hashes, each over the row's fields as text. jsonb text is PostgreSQL's own, which keeps a number's scale.
CREATE OR REPLACE FUNCTION odin._rows_digest(of_table text, of_month date, of_origin bigint, from_xid xid8, to_xid xid8, OUT row_count bigint, OUT digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' AS $f$
DECLARE
  lo timestamptz := of_month::timestamp AT TIME ZONE 'UTC';
  hi timestamptz := (of_month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
BEGIN
  IF of_table = 'audit_calls' THEN
    SELECT count(*), sha256(coalesce(string_agg(odin._hash(id::text, called_at::text, duration_us::text, role_name, key_id::text, face, client, tool,
             arguments::text, outcome, code, request_id, idempotency_key, c.origin::text, xid::text), '' ORDER BY xid, id), ''))
      INTO row_count, digest FROM odin.audit_calls c
     WHERE called_at >= lo AND called_at < hi AND c.origin = of_origin AND xid >= from_xid AND xid < to_xid;
  ELSE
    SELECT count(*), sha256(coalesce(string_agg(odin._hash(id::text, changed_at::text, call_id::text, role_name, org_id::text, table_name, op, row_key,
             before::text, after::text, c.origin::text, xid::text), '' ORDER BY xid, id), ''))
      INTO row_count, digest FROM odin.audit_changes c
     WHERE changed_at >= lo AND changed_at < hi AND c.origin = of_origin AND xid >= from_xid AND xid < to_xid;
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin._chain(previous bytea, s odin.audit_seals) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._hash(encode(previous, 'hex'), s.n::text, s.table_name, to_char(s.month, 'YYYY-MM-DD'), s.origin::text, s.from_xid::text, s.to_xid::text, s.row_count::text,
    encode(s.rows_digest, 'hex'), extract(epoch FROM s.sealed_at)::text);
$f$;

-- Seals everything that is safely committed. Ids alone lie (they are handed out before commit), so the cut is by transaction:
-- below the oldest one still running nothing new can appear. Rows of another origin (restored) have no running writers at all.
CREATE OR REPLACE FUNCTION odin.seal_audit() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  here bigint := odin._origin();
  safe xid8 := pg_snapshot_xmin(pg_current_snapshot());
  batch record;
  rows record;
  last odin.audit_seals;
  seal odin.audit_seals;
  made int := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('odin seal', 0)) THEN RETURN 0; END IF;
  FOR batch IN
    SELECT * FROM odin._unsealed(here, safe) ORDER BY table_name, origin, month
  LOOP
    SELECT * INTO rows FROM odin._rows_digest(batch.table_name, batch.month, batch.origin, batch.from_xid, batch.to_xid);
    CONTINUE WHEN rows.row_count = 0;
    SELECT * INTO last FROM odin.audit_seals ORDER BY n DESC LIMIT 1;
    seal := ROW(coalesce(last.n, 0) + 1, batch.table_name, batch.month, batch.origin, batch.from_xid, batch.to_xid, rows.row_count, rows.digest, NULL, clock_timestamp());
    seal.digest := odin._chain(last.digest, seal);
    INSERT INTO odin.audit_seals SELECT seal.*;
    made := made + 1;
  END LOOP;
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.seal_audit() IS 'Chains all committed audit rows that no seal covers yet; the answer is the number of new seals. odin.tick() calls it.';

-- Where unsealed rows are, by month: everything from an origin's last cut on. Uses the (origin, xid) index only.
CREATE OR REPLACE FUNCTION odin._unsealed(here bigint, safe xid8) RETURNS TABLE(table_name text, month date, origin bigint, from_xid xid8, to_xid xid8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  source record;
BEGIN
  FOR source IN SELECT * FROM (VALUES ('audit_calls', 'called_at'), ('audit_changes', 'changed_at')) v(t, at) LOOP
    RETURN QUERY EXECUTE format($q$
      WITH RECURSIVE origins(o) AS (
        SELECT min(origin) FROM odin.%1$I UNION ALL
        SELECT (SELECT min(r.origin) FROM odin.%1$I r WHERE r.origin > o) FROM origins WHERE o IS NOT NULL
      ), cuts AS (
        SELECT o, coalesce((SELECT max(s.to_xid) FROM odin.audit_seals s WHERE s.table_name = %1$L AND s.origin = o), '0'::xid8) AS cut,
               CASE WHEN o = $1 THEN $2 ELSE '18446744073709551615'::xid8 END AS top
          FROM origins WHERE o IS NOT NULL
      )
      SELECT %1$L::text, date_trunc('month', r.%2$I AT TIME ZONE 'UTC')::date, c.o, c.cut, c.top
        FROM cuts c JOIN odin.%1$I r ON r.origin = c.o AND r.xid >= c.cut AND r.xid < c.top
       GROUP BY 2, 3, 4, 5$q$, source.t, source.at) USING here, safe;
  END LOOP;
END $f$;

-- Rows that look old but lie under no seal: a row slipped into a month or a range that had none when it was sealed.
CREATE OR REPLACE FUNCTION odin._unsealed_under_cut() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  WITH cuts AS (SELECT s.table_name, s.origin, max(s.to_xid) AS cut,
                  sum(s.row_count) FILTER (WHERE NOT EXISTS (SELECT 1 FROM odin.audit_retired r WHERE r.table_name = s.table_name AND r.month = s.month)) AS sealed
                  FROM odin.audit_seals s GROUP BY 1, 2),
       found AS (SELECT c.*, CASE c.table_name WHEN 'audit_calls' THEN (SELECT count(*) FROM odin.audit_calls a WHERE a.origin = c.origin AND a.xid < c.cut)
                                  ELSE (SELECT count(*) FROM odin.audit_changes a WHERE a.origin = c.origin AND a.xid < c.cut) END AS present FROM cuts c)
  SELECT format('%s: %s rows were sealed, %s of that age are there', table_name, coalesce(sealed, 0), present) FROM found WHERE present <> coalesce(sealed, 0) ORDER BY table_name, origin LIMIT 1;
$f$;

CREATE OR REPLACE FUNCTION odin.verify_audit(OUT ok boolean, OUT seals bigint, OUT sealed_rows bigint, OUT unsealed_rows bigint, OUT first_break bigint, OUT problem text, OUT head text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s odin.audit_seals;
  rows record;
  previous bytea;
  safe xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
  seals := 0; sealed_rows := 0; ok := true;
  FOR s IN SELECT * FROM odin.audit_seals ORDER BY n LOOP
    seals := seals + 1;
    IF s.n <> seals THEN
      problem := format('seal %s is missing', seals);
    ELSIF s.digest <> odin._chain(previous, s) THEN
      problem := format('seal %s was altered', s.n);
    ELSIF NOT EXISTS (SELECT 1 FROM odin.audit_retired r WHERE r.table_name = s.table_name AND r.month = s.month) THEN
      SELECT * INTO rows FROM odin._rows_digest(s.table_name, s.month, s.origin, s.from_xid, s.to_xid);
      IF rows.row_count <> s.row_count THEN
        problem := format('%s of %s: %s rows were sealed, %s are there', s.table_name, to_char(s.month, 'YYYY-MM'), s.row_count, rows.row_count);
      ELSIF rows.digest <> s.rows_digest THEN
        problem := format('%s of %s: a row under seal %s was altered', s.table_name, to_char(s.month, 'YYYY-MM'), s.n);
      END IF;
    END IF;
    IF problem IS NOT NULL THEN
      ok := false; first_break := s.n;
      EXIT;
    END IF;
    previous := s.digest;
    sealed_rows := sealed_rows + s.row_count;
  END LOOP;
  head := encode(previous, 'hex');
  IF ok THEN
    problem := odin._unsealed_under_cut();
    ok := problem IS NULL;
  END IF;
  SELECT coalesce(sum(d.row_count), 0) INTO unsealed_rows
    FROM odin._unsealed(odin._origin(), safe) u, odin._rows_digest(u.table_name, u.month, u.origin, u.from_xid, u.to_xid) d;
END $f$;
COMMENT ON FUNCTION odin.verify_audit() IS 'Recomputes every seal: ok, or the first break and what it is. head is the newest digest: compare it with a copy kept elsewhere.';

CREATE OR REPLACE FUNCTION odin.retire_audit(before date) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  part record;
BEGIN
  PERFORM odin._humans_only('retiring the audit');
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = odin.actor()) THEN
    PERFORM odin.fail('permission_denied', 'retiring the audit is for a superuser');
  ELSIF before > date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN
    PERFORM odin.fail('validation_failed', 'before: the current month cannot be retired; give the first day of this month or an earlier one');
  END IF;
  PERFORM odin.seal_audit();
  FOR part IN
    SELECT p.relname AS parent, c.relname AS name, to_date(right(c.relname, 7), 'YYYY_MM') AS month
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
     WHERE p.oid IN ('odin.audit_calls'::regclass, 'odin.audit_changes'::regclass) AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' <= before
     ORDER BY 3, 1
  LOOP
    IF EXISTS (SELECT 1 FROM odin._unsealed(odin._origin(), '18446744073709551615') u WHERE u.table_name = part.parent AND u.month = part.month) THEN
      PERFORM odin.fail('conflict', format('odin.%s holds rows that cannot be sealed yet: a transaction as old as they is still open', part.name), 'End it, or wait, and retire again.');
    END IF;
    INSERT INTO odin.audit_retired VALUES (part.parent, part.month, coalesce((SELECT max(n) FROM odin.audit_seals WHERE table_name = part.parent AND month = part.month), 0), odin.actor());
    EXECUTE format('ALTER TABLE odin.%I DETACH PARTITION odin.%I', part.parent, part.name);
    RETURN NEXT 'odin.' || part.name;
  END LOOP;
END $f$;
COMMENT ON FUNCTION odin.retire_audit(date) IS 'Detaches the sealed months before a date; the tables stay, to be archived and dropped. Superuser only; no key can.';

-- Everything of this subject that must exist before the first call of a month.
CREATE OR REPLACE FUNCTION odin._audit_ahead() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  this date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
  parent text;
  ahead int;
BEGIN
  FOREACH parent IN ARRAY ARRAY['audit_calls', 'audit_changes'] LOOP
    FOR ahead IN 0..2 LOOP
      PERFORM odin._audit_partition(parent, (this + make_interval(months => ahead))::date);
    END LOOP;
  END LOOP;
END $f$;

CREATE OR REPLACE FUNCTION odin._guard_audit() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t text;
BEGIN
  PERFORM odin._audit_ahead();
  FOREACH t IN ARRAY ARRAY['audit_calls', 'audit_changes', 'audit_seals', 'audit_retired', 'registry_log'] LOOP
    CONTINUE WHEN EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = ('odin.' || t)::regclass AND tgname = 'append_only');
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON odin.%I FOR EACH ROW EXECUTE FUNCTION odin._append_only()', t);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON odin.%I FOR EACH STATEMENT EXECUTE FUNCTION odin._append_only()', t);
    EXECUTE format('ALTER TABLE odin.%I ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER no_truncate', t);
  END LOOP;
  DROP POLICY IF EXISTS odin_calls_of_colleagues ON odin.audit_calls;
  CREATE POLICY odin_calls_of_colleagues ON odin.audit_calls FOR SELECT TO odin_operator
    USING (role_name = ANY (ARRAY(SELECT odin.colleagues_of(current_user))));
  DROP POLICY IF EXISTS odin_changes_of_org ON odin.audit_changes;
  CREATE POLICY odin_changes_of_org ON odin.audit_changes FOR SELECT TO odin_operator
    USING (org_id = ANY (ARRAY(SELECT odin.orgs_of(current_user))));
END $f$;
