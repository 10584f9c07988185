-- What a caller gets: lists with cursors, chosen fields, next actions, previews.
-- An answer is never silently cut: a cursor and a note say so.

CREATE OR REPLACE FUNCTION odin._shape(t odin.tools, result jsonb, args jsonb, control jsonb, hints jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  shaped jsonb := coalesce(result, 'null');
  next_steps jsonb;
BEGIN
  IF t.result_key IS NOT NULL THEN
    shaped := odin._shape_list(t, shaped, args, control->'fields');
  ELSIF jsonb_typeof(shaped) <> 'object' THEN
    shaped := jsonb_build_object('result', shaped);
  END IF;
  IF hints->'next' <> '[]' OR t.next_actions <> '[]' THEN
    next_steps := odin._next_actions(t.next_actions, coalesce(hints->'next', '[]'), shaped, args);
    IF next_steps <> '[]' THEN shaped := shaped || jsonb_build_object('next_actions', next_steps); END IF;
  END IF;
  IF hints->'notes' <> '[]' THEN shaped := shaped || jsonb_build_object('notes', hints->'notes'); END IF;
  RETURN shaped;
END $f$;

CREATE OR REPLACE FUNCTION odin._shape_list(t odin.tools, rows jsonb, args jsonb, wanted jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  n int := jsonb_array_length(rows);
  page int := coalesce((args->>'limit')::int, (t.input_schema#>>'{properties,limit,default}')::int);
  fields text[] := coalesce(nullif(odin._texts(wanted), '{}'), t.default_fields);
  kept int;
  more boolean := t.page_by IS NOT NULL AND n > 0 AND n >= page;
  whole jsonb := rows;
  last jsonb := rows->(n - 1);
  shaped jsonb;
  note text;
  most constant int := coalesce((t.registration->>'most_rows')::int, 1000);
BEGIN
  -- The function is asked for one row more than an answer holds, so that what is left out can be said.
  IF n > most THEN
    rows := (SELECT jsonb_agg(e ORDER BY i) FROM jsonb_array_elements(rows) WITH ORDINALITY r(e, i) WHERE i <= most);
    n := most;
    whole := rows;
    last := rows->(n - 1);
    more := t.page_by IS NOT NULL;
    note := format('cut to %s rows, the most that an answer holds; %s', n, CASE WHEN more THEN 'go on with next_cursor' ELSE 'ask for less' END);
  END IF;
  IF fields IS NOT NULL AND NOT '*' = ANY (fields) THEN
    rows := odin._project(t, rows, fields);
  END IF;
  -- Some 200 kB are all that a model can use; the rest is a page further.
  IF pg_column_size(rows) > 200000 THEN
    SELECT coalesce(max(i), 1) INTO kept FROM (SELECT i, sum(octet_length(e::text)) OVER (ORDER BY i) AS upto FROM jsonb_array_elements(rows) WITH ORDINALITY r(e, i)) s WHERE s.upto <= 200000;
    IF kept < n THEN
      last := whole->(kept - 1);
      more := t.page_by IS NOT NULL;
      note := format('cut to %s of %s rows by size; choose fewer fields%s', kept, n, CASE WHEN more THEN ', or go on with next_cursor' ELSE '' END);
      rows := (SELECT jsonb_agg(e ORDER BY i) FROM jsonb_array_elements(rows) WITH ORDINALITY r(e, i) WHERE i <= kept);
      n := kept;
    END IF;
  END IF;
  shaped := jsonb_build_object(t.result_key, rows, 'count', n);
  IF more AND last IS NOT NULL THEN
    shaped := shaped || jsonb_build_object('next_cursor', odin.cursor_encode((SELECT jsonb_agg(last->c ORDER BY i) FROM unnest(t.page_by) WITH ORDINALITY p(c, i))));
  END IF;
  IF note IS NOT NULL THEN shaped := shaped || jsonb_build_object('note', note); END IF;
  RETURN shaped;
END $f$;

CREATE OR REPLACE FUNCTION odin._project(t odin.tools, rows jsonb, fields text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  columns text[] := t.columns;
  unknown text;
  others text[];
BEGIN
  -- Not in the schema: it would cost every list tool of tools/list its bytes.
  IF cardinality(fields) > 200 THEN
    PERFORM odin.fail('validation_failed', format('fields: %s columns are asked for', cardinality(fields)), 'At most 200; ["*"] shows all.', '{"field": "fields"}');
  ELSIF NOT fields <@ columns THEN
    unknown := (SELECT f FROM unnest(fields) f WHERE f <> ALL (columns) LIMIT 1);
    PERFORM odin.fail('validation_failed', format('fields: %s is no column of %s', left(unknown, 100), t.name),
      coalesce('Did you mean ' || odin._nearest(unknown, columns) || '?', format('Columns are: %s', array_to_string(columns, ', '))), '{"field": "fields"}');
  END IF;
  -- What is not asked for is taken away: one pass over a row, where building it anew looks up every field.
  others := ARRAY(SELECT c FROM unnest(columns) c WHERE c <> ALL (fields));
  RETURN (SELECT coalesce(jsonb_agg(r.e - others ORDER BY r.i), '[]') FROM jsonb_array_elements(rows) WITH ORDINALITY r(e, i));
END $f$;

CREATE OR REPLACE FUNCTION odin.cursor_encode(key_values jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN translate(encode(convert_to(key_values::text, 'UTF8'), 'base64'), E'+/=\n', '-_');
END $f$;
COMMENT ON FUNCTION odin.cursor_encode(jsonb) IS 'The opaque text of a list position.';

CREATE OR REPLACE FUNCTION odin.cursor_decode(cursor text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  decoded jsonb;
BEGIN
  IF cursor IS NULL THEN RETURN NULL; END IF;
  BEGIN
    decoded := convert_from(odin._unbase64url(cursor), 'UTF8')::jsonb;
  EXCEPTION WHEN OTHERS THEN
    decoded := NULL;
  END;
  IF jsonb_typeof(decoded) IS DISTINCT FROM 'array' THEN
    PERFORM odin.fail('validation_failed', 'cursor: this is not a cursor of ours; send next_cursor of the page before, unchanged', NULL, '{"field": "cursor"}');
  END IF;
  RETURN decoded;
END $f$;
COMMENT ON FUNCTION odin.cursor_decode(text) IS 'In a list tool: the key values of the last row the caller has; NULL for the first page.';

-- Templates of the registry with {names} filled from the answer or the arguments; an action that lacks a value is left out.
CREATE OR REPLACE FUNCTION odin._next_actions(templates jsonb, said jsonb, result jsonb, args jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  actions jsonb := '[]';
  template jsonb;
  filled jsonb;
  name text;
  value jsonb;
BEGIN
  <<each>> FOR template IN SELECT jsonb_array_elements(templates) LOOP
    filled := '{}';
    FOR name, value IN SELECT * FROM jsonb_each(template->'args') LOOP
      IF value #>> '{}' LIKE '{%}' AND jsonb_typeof(value) = 'string' THEN
        value := coalesce(result #> string_to_array(trim(value #>> '{}', '{}'), '.'), args -> trim(value #>> '{}', '{}'));
        CONTINUE each WHEN coalesce(value, 'null') = 'null';
      END IF;
      filled := filled || jsonb_build_object(name, value);
    END LOOP;
    actions := actions || jsonb_build_array(template || jsonb_build_object('args', filled));
  END LOOP;
  RETURN actions || said;
END $f$;

CREATE OR REPLACE FUNCTION odin._preview_answer(t odin.tools, seen jsonb, role_name text, args jsonb, hints jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  result jsonb := coalesce(seen->'result', '{}');
BEGIN
  RETURN CASE WHEN t.confirm = 'confirm' AND jsonb_typeof(result) = 'object' THEN result ELSE '{}' END
    || jsonb_build_object('dry_run', true,
         'would_execute', CASE WHEN hints->'would' <> '{}' THEN hints->'would' ELSE jsonb_build_object('action', t.name) || args END,
         'changes', seen->'changes',
         'preview_token', odin._token(role_name, t.name, args, seen->>'touched'),
         'next_actions', jsonb_build_array(jsonb_build_object('tool', t.name, 'reason', 'Do it: nothing has been done yet.',
            'args', args || CASE WHEN t.confirm = 'confirm' THEN '{"confirm": true}' ELSE '{}' END::jsonb)),
         'notes', '["This is a preview: nothing was changed."]' || CASE WHEN (seen->>'total')::bigint > jsonb_array_length(seen->'changes')
           THEN jsonb_build_array(format('%s rows would change; shown are the first %s that you may see.', seen->>'total', jsonb_array_length(seen->'changes'))) ELSE '[]' END || coalesce(hints->'notes', '[]'));
END $f$;
