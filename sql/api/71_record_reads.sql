-- Reading records of any table the caller may read: search, read by id, figures. Run as the caller; the compiler makes the SQL.
-- An answer is never cut in silence: a note says where and how to go on.

-- Which field's value the server refused: every parameter is cast on its own.
CREATE OR REPLACE FUNCTION odin._blame(plan jsonb, said text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  probe text;
BEGIN
  FOR p IN SELECT v.value, a.about->>'field' AS field, a.about->>'type' AS type
             FROM jsonb_array_elements_text(plan->'params') WITH ORDINALITY v(value, n) JOIN jsonb_array_elements(plan->'about') WITH ORDINALITY a(about, n) USING (n) ORDER BY n LOOP
    BEGIN
      EXECUTE format('SELECT $1::%s::text', p.type) INTO probe USING p.value;
    EXCEPTION WHEN data_exception THEN
      PERFORM odin.fail('validation_failed', format('%s: %s', p.field, SQLERRM), NULL, jsonb_build_object('field', p.field));
    END;
  END LOOP;
  PERFORM odin.fail('validation_failed', said);
END $f$;

-- Runs a compiled list: records until limit or size is reached. `light` = no row of it can be large, so the page is made
-- in one go, and counted only when it is too large after all.
CREATE OR REPLACE FUNCTION odin._run_records(plan jsonb, most int, most_bytes int, light boolean, OUT records jsonb, OUT n int, OUT more boolean, OUT cut boolean, OUT last jsonb)
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  found int;
  first_size bigint;
  params constant text[] := ARRAY(SELECT jsonb_array_elements_text(plan->'params'));
  -- OFFSET 0 keeps the planner from making each record twice, once for its size.
  counted constant text := format('SELECT coalesce(jsonb_agg(q.j) FILTER (WHERE q.n <= $2 AND q.upto <= $3), ''[]''), count(*) FILTER (WHERE q.n <= $2 AND q.upto <= $3), count(*), '
    'max(q.upto) FILTER (WHERE q.n = 1), to_jsonb(max(q.at) FILTER (WHERE q.n = $2)) '
    'FROM (SELECT w.j, w.at, row_number() OVER () AS n, sum(pg_column_size(w.j)) OVER (ROWS UNBOUNDED PRECEDING) AS upto FROM (%s OFFSET 0) w) q', plan->>'sql');
BEGIN
  IF light THEN
    EXECUTE format('SELECT coalesce(jsonb_agg(q.j) FILTER (WHERE q.n <= $2), ''[]''), count(*), to_jsonb(max(q.at) FILTER (WHERE q.n = $2)) FROM (SELECT w.j, w.at, row_number() OVER () AS n FROM (%s) w) q', plan->>'sql')
      INTO records, found, last USING params, most;
    n := least(found, most);
    more := found > most;
    cut := false;
    IF pg_column_size(records) <= most_bytes THEN RETURN; END IF;
  END IF;
  EXECUTE counted INTO records, n, found, first_size, last USING params, most, most_bytes;
  IF first_size > most_bytes THEN
    PERFORM odin.fail('request_too_large', format('one record alone has %s bytes; an answer holds %s', first_size, most_bytes), 'Choose fewer fields.', '{"field": "fields"}');
  END IF;
  cut := n < least(found, most);
  more := found > most AND NOT cut;
  IF cut THEN
    -- The place to go on from is the last record that fits.
    EXECUTE counted INTO records, n, found, first_size, last USING params, n, most_bytes;
  END IF;
EXCEPTION WHEN data_exception THEN
  PERFORM odin._blame(plan, SQLERRM);
END $f$;

-- A plain table none of whose rows had to be stored out of line: a row is at most a page.
CREATE OR REPLACE FUNCTION odin._light(rel oid, fields text[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $f$
BEGIN
  RETURN (fields IS NULL OR array_to_string(fields, ' ') !~ '[.]')
     AND (SELECT c.relkind = 'r' AND coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) = 0 FROM pg_class c WHERE c.oid = rel);
END $f$;

-- The shape of a plan without a figure, a constant or a condition: these would tell what the caller may not see.
CREATE OR REPLACE FUNCTION odin._plan_shape(node jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_strip_nulls(jsonb_build_object('node', node->'Node Type', 'join', node->'Join Type', 'relation', node->'Relation Name', 'index', node->'Index Name',
    'steps', (SELECT jsonb_agg(odin._plan_shape(p)) FROM jsonb_array_elements(node->'Plans') p)));
$f$;

-- VOLATILE only because EXPLAIN is not allowed in a STABLE function.
CREATE OR REPLACE FUNCTION odin._explain_records(plan jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  shape json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT JSON, COSTS OFF) ' || (plan->>'sql') INTO shape USING ARRAY(SELECT jsonb_array_elements_text(plan->'params'));
  RETURN jsonb_build_object('plan', odin._plan_shape(shape::jsonb->0->'Plan'), 'note', 'This is how the question would be answered; nothing was read.');
EXCEPTION WHEN data_exception THEN
  PERFORM odin._blame(plan, SQLERRM);
END $f$;

CREATE OR REPLACE FUNCTION odin.search_records(model text, domain jsonb DEFAULT '[]', fields text[] DEFAULT NULL, "order" text DEFAULT NULL, "limit" int DEFAULT 50, cursor text DEFAULT NULL, explain boolean DEFAULT false)
RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  most constant int := least(greatest(coalesce("limit", 50), 1), 1000);
  place constant jsonb := CASE WHEN cursor IS NOT NULL THEN odin.cursor_decode(cursor) END;
  rel oid;
  plan jsonb;
  page record;
  next text;
  note text;
  answer jsonb;
BEGIN
  -- The leaf answers nearly every question by a plan it keeps; it holds a page in memory, so a long one must be of small rows. What it does not
  -- know yet it is told on the long way, and what is wrong with a question is said there.
  IF most > 200 THEN rel := odin._model(model, current_user); END IF;
  FOR turn IN 1..CASE WHEN explain OR most > 200 AND NOT odin._light(rel, fields) THEN 0 ELSE 2 END LOOP
    BEGIN
      answer := odin._records_page(model, rel, domain, fields, "order", most, place);
    EXCEPTION
      -- No error is told from here: on the way through the leaf its code is lost.
      WHEN query_canceled THEN RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = SQLERRM;
      WHEN OTHERS THEN EXIT;
    END;
    IF answer IS NOT NULL THEN RETURN answer; END IF;
    EXIT WHEN turn = 2;
    rel := coalesce(rel, odin._model(model, current_user));
    plan := odin._compile_records(jsonb_build_object('op', 'search', 'table', rel::bigint, 'domain', domain, 'fields', to_jsonb(fields), 'order', "order", 'limit', most, 'cursor', place), current_user);
  END LOOP;
  rel := coalesce(rel, odin._model(model, current_user));
  plan := coalesce(plan, odin._compile_records(jsonb_build_object('op', 'search', 'table', rel::bigint, 'domain', domain, 'fields', to_jsonb(fields), 'order', "order", 'limit', most, 'cursor', place), current_user));
  IF explain THEN RETURN odin._explain_records(plan); END IF;
  page := odin._run_records(plan, most, 200000, odin._light(rel, fields));
  IF (page.more OR page.cut) AND (plan->>'keyed')::boolean THEN
    next := odin.cursor_encode(jsonb_build_array(plan->'mark') || page.last);
  END IF;
  note := CASE WHEN page.cut THEN format('Cut to %s records because an answer holds 200 kB; %s.', page.n,
      CASE WHEN next IS NOT NULL THEN 'go on with next_cursor, or choose fewer fields' ELSE 'choose fewer fields or a narrower domain' END)
    WHEN page.more AND next IS NULL THEN format('More than %s records match. %s has no key to page by: narrow the domain or raise limit (at most 1000).', most, rel::regclass) END;
  answer := jsonb_build_object('model', rel::regclass::text, 'records', page.records, 'count', page.n);
  IF next IS NOT NULL THEN answer := answer || jsonb_build_object('next_cursor', next); END IF;
  IF note IS NOT NULL THEN answer := answer || jsonb_build_object('note', note); END IF;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.search_records(text, jsonb, text[], text, int, text, boolean) IS 'Finds records of any table you may read. domain is a list of conditions [field, operator, value], all of which must hold; "|" before two conditions means either, "!" before one means not: [["status", "=", "pending"], "|", ["priority", "<=", 2], ["due_at", "<", "2026-02-01"]]. Operators: = != > >= < <= in, not in, like, ilike, not ilike, =ilike, =?, child_of, parent_of. false as value means empty. A dot follows a link: printer_id.name. More than one page: send next_cursor as cursor with the same model and order. describe_model tells the fields.';

-- The domain that means these very records.
CREATE OR REPLACE FUNCTION odin._domain_of_ids(rel oid, ids jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  key text[] := odin._record_key(rel);
  listed jsonb := CASE jsonb_typeof(ids) WHEN 'array' THEN ids ELSE jsonb_build_array(ids) END;
  one jsonb;
  made jsonb := '[]';
BEGIN
  IF key IS NULL THEN
    PERFORM odin.fail('validation_failed', format('ids: %s has no key; use a domain', rel::regclass), NULL, '{"field": "ids"}');
  ELSIF jsonb_array_length(listed) = 0 THEN
    PERFORM odin.fail('validation_failed', 'ids: name at least one record', NULL, '{"field": "ids"}');
  ELSIF jsonb_array_length(listed) > 1000 THEN
    PERFORM odin.fail('validation_failed', 'ids: at most 1000 at once', NULL, '{"field": "ids"}');
  ELSIF cardinality(key) = 1 THEN
    SELECT e INTO one FROM jsonb_array_elements(listed) e WHERE jsonb_typeof(e) NOT IN ('number', 'string') LIMIT 1;
    IF one IS NOT NULL THEN PERFORM odin.fail('validation_failed', format('ids: %s is no value of %s', one, key[1]), NULL, '{"field": "ids"}'); END IF;
    RETURN jsonb_build_array(jsonb_build_array(key[1], 'in', listed));
  END IF;
  IF jsonb_array_length(listed) > 100 THEN PERFORM odin.fail('validation_failed', 'ids: at most 100 at once where the key has several columns', NULL, '{"field": "ids"}'); END IF;
  FOR one IN SELECT jsonb_array_elements(listed) LOOP
    IF jsonb_typeof(one) <> 'object' OR NOT one ?& key THEN
      PERFORM odin.fail('validation_failed', format('ids: a record of %s is named by an object with %s', rel::regclass, array_to_string(key, ', ')), NULL, '{"field": "ids"}');
    END IF;
    made := CASE WHEN made = '[]' THEN made ELSE '["|"]' || made END || jsonb_build_array((SELECT jsonb_agg(jsonb_build_array(k, '=', one->k)) FROM unnest(key) k));
  END LOOP;
  RETURN made;
END $f$;

CREATE OR REPLACE FUNCTION odin.read_records(model text, ids jsonb, fields text[] DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user);
  key text[] := odin._record_key(rel);
  listed jsonb := CASE jsonb_typeof(ids) WHEN 'array' THEN ids ELSE jsonb_build_array(ids) END;
  wanted text[] := CASE WHEN cardinality(fields) > 0 AND NOT '*' = ANY (fields) THEN fields || ARRAY(SELECT k FROM unnest(key) k WHERE k <> ALL (fields)) ELSE fields END;
  plan jsonb;
  page record;
  missing jsonb;
  answer jsonb;
BEGIN
  plan := odin._compile_records(jsonb_build_object('op', 'search', 'table', rel::bigint, 'domain', odin._domain_of_ids(rel, ids), 'fields', to_jsonb(wanted), 'limit', 1000), current_user);
  SELECT * INTO page FROM odin._run_records(plan, 1000, 200000, false);
  answer := jsonb_build_object('model', rel::regclass::text, 'records', page.records, 'count', page.n);
  IF page.cut THEN
    RETURN answer || jsonb_build_object('note', format('Cut to %s of %s records because an answer holds 200 kB; ask for fewer ids or fields.', page.n, jsonb_array_length(listed)));
  ELSIF cardinality(key) = 1 THEN
    -- In the order asked for; what is not there, or not for these eyes, is named.
    SELECT coalesce(jsonb_agg(r.record ORDER BY i.n), '[]') INTO answer FROM jsonb_array_elements_text(listed) WITH ORDINALITY i(id, n)
      JOIN LATERAL (SELECT e AS record FROM jsonb_array_elements(page.records) e WHERE e->>key[1] = i.id LIMIT 1) r ON true;
    SELECT jsonb_agg(i.id ORDER BY i.n) INTO missing FROM jsonb_array_elements(listed) WITH ORDINALITY i(id, n)
     WHERE NOT EXISTS (SELECT 1 FROM jsonb_array_elements(page.records) e WHERE e->>key[1] = i.id #>> '{}');
    answer := jsonb_build_object('model', rel::regclass::text, 'records', answer, 'count', jsonb_array_length(answer));
  END IF;
  IF page.n = 0 THEN
    PERFORM odin.fail('record_not_found', format('%s has no record %s that you may see', rel::regclass, left(ids::text, 200)), NULL, '{"field": "ids"}');
  END IF;
  RETURN answer || CASE WHEN missing IS NULL THEN '{}' ELSE jsonb_build_object('missing', missing) END;
END $f$;
COMMENT ON FUNCTION odin.read_records(text, jsonb, text[]) IS 'Reads records by their ids, in the order asked for; ids that do not exist or are not yours to see are listed as missing.';

CREATE OR REPLACE FUNCTION odin.aggregate_records(model text, domain jsonb DEFAULT '[]', group_by text[] DEFAULT '{}', measures text[] DEFAULT '{count}', "having" jsonb DEFAULT '[]', "order" text DEFAULT NULL, "limit" int DEFAULT 100)
RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user);
  most int := least(greatest(coalesce("limit", 100), 1), 1000);
  plan jsonb;
  page record;
BEGIN
  plan := odin._compile_records(jsonb_build_object('op', 'aggregate', 'table', rel::bigint, 'domain', domain, 'group_by', to_jsonb(group_by), 'measures', to_jsonb(measures),
    'having', "having", 'order', "order", 'limit', most), current_user);
  SELECT * INTO page FROM odin._run_records(plan, most, 200000, false);
  RETURN jsonb_build_object('model', rel::regclass::text, 'groups', page.records, 'count', page.n)
    || CASE WHEN page.cut THEN jsonb_build_object('note', format('Cut to %s groups because an answer holds 200 kB; group by less or narrow the domain.', page.n))
            WHEN page.more THEN jsonb_build_object('note', format('There are more than %s groups; these are the first in the order asked for. Use having, a narrower domain or a higher limit (at most 1000).', most))
            ELSE '{}' END;
END $f$;
COMMENT ON FUNCTION odin.aggregate_records(text, jsonb, text[], text[], jsonb, text, int) IS 'Counts and sums over records, by groups. group_by: fields, dates by hour, day, week, month, quarter or year ("created_at:month"). measures: count, or field:function with sum, avg, min, max, count, count_distinct, bool_and, bool_or ("pieces:sum"). having: conditions on the figures ([["count", ">", 5]]). order: a column of the answer ("count desc"). domain as in search_records.';
