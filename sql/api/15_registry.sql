-- The registration itself, and what the registry shows: lists by role and scope, and search.
-- A tool is listed only where it could be called: role, key scope and toolset all agree.

CREATE OR REPLACE FUNCTION odin._register(kind text, r jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  fn oid := odin._resolve_function(r->>'function');
  tool text := coalesce(r->>'name', (SELECT proname FROM pg_proc WHERE oid = fn));
  words text := coalesce(r->>'description', odin._described(fn));
  answer record;
  key text;
  input jsonb;
  row_now odin.tools;
  old odin.tools;
  hint jsonb := coalesce(r->'hints', '{}');
  scope text := r->>'scope';
BEGIN
  SELECT * INTO answer FROM odin._function_answer(fn);
  PERFORM odin._check_registration(kind, tool, words, r, answer.columns);
  key := CASE WHEN answer.shape = 'rows' THEN coalesce(r->>'result_key', 'rows') END;
  input := odin._input_spec(fn, coalesce(r->'arguments', '{}'), scope, coalesce(r->>'confirm', 'none'), answer.shape = 'rows' AND answer.columns IS NOT NULL,
                            coalesce((r->>'previewable')::boolean, true), coalesce((r->>'raw')::boolean, false));
  -- A schema given whole replaces the one made from the signature.
  IF r->'input' IS NOT NULL AND r->'input' <> 'null' THEN input := input || jsonb_build_object('schema', r->'input', 'control', coalesce(r->'control', '[]')); END IF;
  SELECT * INTO old FROM odin.tools x WHERE x.name = tool;
  row_now := old;
  row_now.name := tool; row_now.kind := kind; row_now.title := r->>'title'; row_now.description := words;
  row_now.function := fn::regprocedure::text; row_now.scope := scope; row_now.area := r->>'area';
  row_now.toolsets := string_to_array(replace(r->>'toolset', ' ', ''), ',');
  row_now.read_only := scope = 'read'; row_now.hints := hint; row_now.confirm := coalesce(r->>'confirm', 'none');
  row_now.previewable := coalesce((r->>'previewable')::boolean, true); row_now.task := coalesce(r->>'task', 'no');
  row_now.timeout_ms := coalesce((r->>'timeout_ms')::int, 30000); row_now.raw := coalesce((r->>'raw')::boolean, false);
  row_now.result_key := key; row_now.columns := CASE WHEN answer.shape = 'rows' THEN answer.columns END; row_now.page_by := odin._texts(r->'page_by'); row_now.default_fields := odin._texts(r->'default_fields');
  row_now.next_actions := coalesce(nullif(r->'next_actions', 'null'), '[]'); row_now.rate_per_minute := (r->>'rate_per_minute')::int; row_now.concurrency := (r->>'concurrency')::int;
  row_now.input_schema := input->'schema'; row_now.spec := input;
  row_now.output_schema := CASE WHEN kind = 'tool' THEN odin._output_schema(fn, key, nullif(r->'output', 'null'), scope, row_now.raw, row_now.default_fields) END;
  row_now.secret_arguments := ARRAY(SELECT k.key FROM jsonb_each(coalesce(r->'arguments', '{}')) k WHERE k.value->>'secret' = 'true');
  row_now.redact := cardinality(row_now.secret_arguments) > 0 OR EXISTS (SELECT 1 FROM jsonb_each(input->'schema'->'properties') p
    WHERE p.key ~* '(password|secret|token|api_?key|access_code|credential)' AND p.key <> 'preview_token' OR coalesce(p.value->>'type', 'object') NOT IN ('integer', 'number', 'boolean')
      AND coalesce((p.value->>'maxLength')::int, 100000) > 2000 AND NOT p.value ? 'enum');
  row_now.registration := jsonb_strip_nulls(r) || jsonb_build_object('function', fn::regprocedure::text);
  row_now.uri := r->>'uri'; row_now.mime_type := r->>'mime_type'; row_now.active := true; row_now.inactive_reason := NULL;
  row_now.listing := odin._listing(row_now, nullif(r->'icons', 'null'));
  row_now.search := setweight(to_tsvector('english', replace(tool, '_', ' ') || ' ' || coalesce(r->>'title', '')), 'A')
                    || setweight(to_tsvector('english', words), 'B') || setweight(to_tsvector('english', row_now.area || ' ' || (input->'schema'->'properties')::text), 'D');
  RETURN odin._save_tool(row_now, old, coalesce((r->>'most_rows')::int, 1000), odin._texts(r->'aliases'));
END $f$;

-- A function's comment without its annotation.
CREATE OR REPLACE FUNCTION odin._described(fn oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT nullif(trim(E' \n\t' FROM regexp_replace(obj_description(fn, 'pg_proc'), '(^|\n)[ \t]*@tool[^\n]*', '', 'g')), '');
$f$;

CREATE OR REPLACE FUNCTION odin._texts(list jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN CASE WHEN jsonb_typeof(list) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(list)) END;
END $f$;

CREATE OR REPLACE FUNCTION odin._check_registration(kind text, tool text, words text, r jsonb, columns text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  wrong text;
BEGIN
  wrong := CASE
    WHEN tool !~ '^[A-Za-z_][A-Za-z0-9_-]{0,62}$' THEN format('name: %s must be a letter or _ and then at most 62 letters, digits, _ or - (some clients refuse dots)', tool)
    WHEN coalesce(trim(words), '') = '' THEN format('description: %s has none; write COMMENT ON FUNCTION %s IS ''what it does, in which units, when to use it''', tool, r->>'function')
    WHEN r->>'scope' IS NULL OR r->>'scope' NOT IN ('read', 'write', 'admin') THEN format('scope: %s is not one of read, write, admin', r->>'scope')
    WHEN coalesce(r->>'confirm', 'none') NOT IN ('none', 'confirm', 'preview', 'human') THEN format('confirm: %s is not one of none, confirm, preview, human', r->>'confirm')
    WHEN coalesce(r->>'task', 'no') NOT IN ('no', 'optional', 'required') THEN format('task: %s is not one of no, optional, required', r->>'task')
    WHEN coalesce(r->>'confirm', 'none') <> 'none' AND r->>'scope' = 'read' THEN 'confirm: a read tool changes nothing, so there is nothing to confirm'
    WHEN r->>'confirm' IN ('confirm', 'preview') AND r->>'previewable' = 'false' THEN 'confirm: needs a preview, and previewable is false'
    WHEN EXISTS (SELECT 1 FROM odin.tools x WHERE x.name = tool AND x.kind <> _check_registration.kind) THEN format('name: %s is taken by something of another kind', tool)
    WHEN EXISTS (SELECT 1 FROM odin.tool_aliases a WHERE a.alias = tool) THEN format('name: %s is an alias of another tool', tool)
    WHEN (r->'page_by') <> 'null' AND NOT odin._texts(r->'page_by') <@ columns THEN format('page_by: not all of %s are columns of the answer (%s)', r->'page_by', array_to_string(columns, ', '))
    WHEN (r->'page_by') <> 'null' AND (SELECT count(*) FROM odin._function_arguments(odin._resolve_function(r->>'function')) a WHERE a.name IN ('limit', 'cursor')) < 2
      THEN format('page_by: %s has no arguments "limit" and cursor to page with; add them, or leave page_by out', r->>'function')
    WHEN (r->'default_fields') <> 'null' AND NOT odin._texts(r->'default_fields') <@ columns THEN format('default_fields: not all of %s are columns of the answer (%s)', r->'default_fields', array_to_string(columns, ', '))
    WHEN jsonb_typeof(coalesce(r->'hints', '{}')) <> 'object' OR EXISTS (SELECT 1 FROM jsonb_each(coalesce(r->'hints', '{}')) h WHERE jsonb_typeof(h.value) <> 'boolean') THEN 'hints: must be an object of true and false'
    WHEN r#>>'{hints,read_only}' = 'true' AND r->>'scope' <> 'read' THEN 'hints: read_only is true, and a tool of scope ' || (r->>'scope') || ' may write'
    WHEN coalesce(r->>'area', 'general') !~ '^[a-z][a-z0-9_]*$' THEN format('area: %s must be lowercase letters, digits and _', r->>'area')
    WHEN jsonb_typeof(coalesce(r->'arguments', '{}')) <> 'object' THEN 'arguments: must be an object by argument name'
    WHEN jsonb_typeof(coalesce(nullif(r->'next_actions', 'null'), '[]')) <> 'array' OR EXISTS (SELECT 1 FROM jsonb_array_elements(CASE WHEN jsonb_typeof(r->'next_actions') = 'array' THEN r->'next_actions' ELSE '[]' END) n WHERE n->>'tool' IS NULL)
      THEN 'next_actions: must be an array of {"tool", "args", "reason"}'
    WHEN (r->>'rate_per_minute')::bigint < 1 OR (r->>'concurrency')::bigint < 1 THEN 'rate_per_minute and concurrency: must be at least 1, or NULL for no limit'
    WHEN EXISTS (SELECT 1 FROM odin.tools x WHERE x.name = tool AND x.function LIKE 'odin.%') AND r->>'function' NOT LIKE 'odin.%' THEN format('name: %s is one of the farm''s own tools; give yours another name', tool)
    WHEN coalesce((r->>'timeout_ms')::bigint, 0) NOT BETWEEN 0 AND 86400000 THEN 'timeout: must be between 0 and 24 hours'
    WHEN columns IS NULL AND (coalesce(r->'page_by', 'null') <> 'null' OR coalesce(r->'default_fields', 'null') <> 'null') THEN 'page_by and default_fields are for functions that return rows with columns'
    WHEN coalesce(r->>'task', 'no') <> 'no' AND EXISTS (SELECT 1 FROM jsonb_each(CASE WHEN jsonb_typeof(r->'arguments') = 'object' THEN r->'arguments' ELSE '{}' END) a WHERE a.value->>'secret' = 'true')
      THEN 'task: a waiting task is a row that others can read, so a tool with a secret argument cannot be one'
    WHEN EXISTS (SELECT 1 FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(r->'aliases') = 'array' THEN r->'aliases' ELSE '[]' END) a WHERE a !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,127}$') THEN 'aliases: letters, digits, _, - and dots only'
    WHEN EXISTS (SELECT 1 FROM jsonb_object_keys(coalesce(r->'hints', '{}')) k WHERE k NOT IN ('read_only', 'destructive', 'idempotent', 'open_world')) THEN 'hints: known are read_only, destructive, idempotent, open_world'
    WHEN EXISTS (SELECT 1 FROM unnest(string_to_array(replace(r->>'toolset', ' ', ''), ',')) s WHERE NOT EXISTS (SELECT 1 FROM odin.toolsets ts WHERE ts.name = s))
      THEN format('toolset: one of %s does not exist; INSERT it INTO odin.toolsets first', r->>'toolset')
  END;
  IF wrong IS NOT NULL THEN PERFORM odin.fail('registration_failed', wrong); END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin._listing(t odin.tools, icons jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE t.kind
    WHEN 'tool' THEN jsonb_strip_nulls(jsonb_build_object('name', t.name, 'title', t.title, 'description', t.description, 'icons', icons))
      || jsonb_build_object('inputSchema', t.input_schema)
      || CASE WHEN t.output_schema IS NULL THEN '{}' ELSE jsonb_build_object('outputSchema', t.output_schema) END
      || jsonb_build_object('annotations', jsonb_build_object(
           'readOnlyHint', coalesce((t.hints->>'read_only')::boolean, t.read_only),
           'destructiveHint', coalesce((t.hints->>'destructive')::boolean, NOT t.read_only), 'idempotentHint', coalesce((t.hints->>'idempotent')::boolean, t.read_only), 'openWorldHint', coalesce((t.hints->>'open_world')::boolean, false)))
      || CASE WHEN t.confirm = 'none' THEN '{}' ELSE jsonb_build_object('_meta', jsonb_build_object('odin/confirm', t.confirm)) END
    WHEN 'prompt' THEN jsonb_strip_nulls(jsonb_build_object('name', t.name, 'title', t.title, 'description', t.description, 'arguments',
      (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', p.key, 'description', p.value->>'description', 'required', t.input_schema->'required' ? p.key)) ORDER BY a.n)
         FROM jsonb_each(t.input_schema->'properties') p JOIN odin._function_arguments(odin._function_oid(t.function)) a ON a.name = p.key)))
    ELSE jsonb_strip_nulls(jsonb_build_object('name', t.name, 'title', t.title, 'description', t.description, 'mimeType', t.mime_type,
      CASE WHEN t.uri LIKE '%{%' THEN 'uriTemplate' ELSE 'uri' END, t.uri)) END;
$f$;

CREATE OR REPLACE FUNCTION odin._save_tool(t odin.tools, old odin.tools, most_rows int, aliases text[]) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  problem text := odin._schema_problem(t.input_schema);
  taken text;
BEGIN
  IF problem IS NOT NULL THEN PERFORM odin.fail('registration_failed', format('arguments: the input schema of %s is not valid JSON Schema: %s', t.name, problem)); END IF;
  problem := CASE WHEN t.output_schema IS NOT NULL THEN odin._schema_problem(t.output_schema) END;
  IF problem IS NOT NULL THEN PERFORM odin.fail('registration_failed', format('output: the schema is not valid JSON Schema: %s', problem)); END IF;
  PERFORM odin._check_header_marks(t.input_schema);
  SELECT a INTO taken FROM unnest(aliases) a WHERE EXISTS (SELECT 1 FROM odin.tools x WHERE x.name = a)
     OR EXISTS (SELECT 1 FROM odin.tool_aliases y WHERE y.alias = a AND y.tool_id IS DISTINCT FROM old.id);
  IF taken IS NOT NULL THEN PERFORM odin.fail('registration_failed', format('aliases: %s is the name of another tool', taken)); END IF;
  t.registered_by := odin.actor(); t.registered_at := now(); t.version := coalesce(old.version, 0) + 1;
  IF old.id IS NULL THEN
    INSERT INTO odin.tools(name, title, description, function, kind, scope, area, toolsets, read_only, hints, confirm, previewable, task, timeout_ms, raw, result_key,
      page_by, columns, default_fields, next_actions, rate_per_minute, concurrency, caller, input_schema, output_schema, spec, secret_arguments, redact, registration, listing, uri, mime_type, registered_by, search)
    SELECT t.name, t.title, t.description, t.function, t.kind, t.scope, t.area, t.toolsets, t.read_only, t.hints, t.confirm, t.previewable, t.task, t.timeout_ms, t.raw,
      t.result_key, t.page_by, t.columns, t.default_fields, t.next_actions, t.rate_per_minute, t.concurrency, '', t.input_schema, t.output_schema, t.spec, t.secret_arguments, t.redact, t.registration,
      t.listing, t.uri, t.mime_type, t.registered_by, t.search
    RETURNING id INTO t.id;
    t.caller := format('odin_call.%I', t.name);
    UPDATE odin.tools SET caller = t.caller WHERE id = t.id;
    PERFORM odin._registry_changed(t.name, 'registered', 1, NULL, odin._entry(t));
  ELSIF (to_jsonb(old) - '{version,registered_by,registered_at}'::text[]) IS DISTINCT FROM (to_jsonb(t) - '{version,registered_by,registered_at}'::text[])
        OR to_regprocedure(t.caller || '(jsonb)') IS NULL THEN
    DELETE FROM odin.tool_aliases WHERE tool_id = t.id;
    UPDATE odin.tools SET (title, description, function, scope, area, toolsets, read_only, hints, confirm, previewable, task, timeout_ms, raw, result_key, page_by,
        columns, default_fields, next_actions, rate_per_minute, concurrency, input_schema, output_schema, spec, secret_arguments, redact, registration, listing, uri, mime_type, active, inactive_reason,
        version, registered_by, registered_at, search)
      = (t.title, t.description, t.function, t.scope, t.area, t.toolsets, t.read_only, t.hints, t.confirm, t.previewable, t.task, t.timeout_ms, t.raw, t.result_key,
        t.page_by, t.columns, t.default_fields, t.next_actions, t.rate_per_minute, t.concurrency, t.input_schema, t.output_schema, t.spec, t.secret_arguments, t.redact, t.registration, t.listing, t.uri,
        t.mime_type, true, NULL, t.version, t.registered_by, t.registered_at, t.search)
     WHERE id = t.id;
    PERFORM odin._registry_changed(t.name, CASE WHEN old.active THEN 'changed' ELSE 'activated' END, t.version, odin._entry(old), odin._entry(t));
  ELSE
    PERFORM odin._make_caller(t.caller, odin._function_oid(t.function), most_rows + CASE WHEN t.raw THEN 0 ELSE 1 END, odin._shown_columns(t));
    RETURN t.name;
  END IF;
  INSERT INTO odin.tool_aliases SELECT a, t.id FROM unnest(aliases) a ON CONFLICT (alias) DO NOTHING;
  PERFORM odin._make_caller(t.caller, odin._function_oid(t.function), most_rows + CASE WHEN t.raw THEN 0 ELSE 1 END, odin._shown_columns(t));
  RETURN t.name;
END $f$;

-- What a list shows unless it is asked for other fields, and what its cursor is made of; NULL when that is everything.
CREATE OR REPLACE FUNCTION odin._shown_columns(t odin.tools) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE WHEN t.result_key IS NOT NULL AND NOT '*' = ANY (t.default_fields) THEN t.default_fields || ARRAY(SELECT c FROM unnest(t.page_by) c WHERE c <> ALL (t.default_fields)) END;
$f$;

-- A tool as the log of changes keeps it: what callers see of it, and all that was said when it was registered.
CREATE OR REPLACE FUNCTION odin._entry(t odin.tools) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT t.listing || jsonb_build_object('registration', t.registration);
$f$;

-- Do a key's scopes cover a tool? No key (a SQL user) means no narrowing.
CREATE OR REPLACE FUNCTION odin._scope_covers(scopes text[], tool_scope text, area text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$
  SELECT scopes IS NULL OR scopes && CASE tool_scope
    WHEN 'read' THEN ARRAY['agent:read', 'agent:write', 'admin', 'read', 'write', 'read:' || area, 'write:' || area]
    WHEN 'write' THEN ARRAY['agent:write', 'admin', 'write', 'write:' || area]
    ELSE ARRAY['admin'] END;
$f$;

CREATE OR REPLACE FUNCTION odin._visible(who oid, scopes text[], kinds text[], toolsets text[], read_only_wanted boolean, everything boolean) RETURNS SETOF odin.tools
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN QUERY
    SELECT t.* FROM odin.tools t, LATERAL (SELECT odin._function_oid(t.function) AS fn) f
     WHERE t.active AND t.kind = ANY (kinds) AND odin._scope_covers(scopes, t.scope, t.area) AND has_function_privilege(who, f.fn, 'EXECUTE')
       AND has_schema_privilege(who, (SELECT p.pronamespace FROM pg_proc p WHERE p.oid = f.fn), 'USAGE')
       AND (NOT coalesce(read_only_wanted, false) OR t.read_only)
       AND (everything OR t.kind <> 'tool' OR t.toolsets && (ARRAY['core'] || coalesce(_visible.toolsets, ARRAY(SELECT s.name FROM odin.toolsets s WHERE s.listed))))
     ORDER BY t.name COLLATE "C";
END $f$;
