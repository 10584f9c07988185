-- What the record tools know of tables: found by name, described for the compiler, closed ones refused.
-- Nothing here reads a row of a farm table, and nothing decides access: the server does, when the SQL runs.

-- Why a table is not for the record tools; NULL = it is. In PL/pgSQL, like all that every call runs: it keeps its plans, a SQL function makes
-- them anew. Without a search_path of their own: only pinned functions call them, and nobody's rights but the caller's own are used.
CREATE OR REPLACE FUNCTION odin._closed_model(rel oid, for_writing boolean) RETURNS text
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  home name;
  relation name;
BEGIN
  SELECT n.nspname, c.relname INTO home, relation FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel;
  RETURN CASE
    WHEN home IN ('odin_private', 'odin_call') OR home LIKE 'pg\_%' OR home = 'information_schema' THEN format('%I is private', home)
    WHEN NOT for_writing THEN NULL
    WHEN home = 'odin' AND (relation LIKE 'audit\_%' OR relation IN ('instance', 'members', 'guarded_tables', 'access_rules', 'error_codes', 'constraint_errors', 'toolsets',
         'tools', 'tool_aliases', 'registry_log', 'keys', 'login_failures', 'idempotency', 'consents', 'tasks', 'model_methods', 'remote_servers', 'remote_tools', 'issuers', 'issuer_keys',
         'documents', 'chunks', 'embeddings', 'embedding_models'))
      THEN format('%I.%I is kept by the farm itself or by people in the database', home, relation)
  END;
END $f$;

-- Tables and views a role may touch with at least one of the operations (letters of crud).
CREATE OR REPLACE FUNCTION odin._models_of(who name, operations text DEFAULT 'crud') RETURNS TABLE(rel oid, schema_name name, relation_name name)
LANGUAGE sql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp AS $f$
  SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND odin._closed_model(c.oid, false) IS NULL
     AND has_schema_privilege(who, n.oid, 'USAGE')
     AND (operations LIKE '%r%' AND has_any_column_privilege(who, c.oid, 'SELECT') OR operations LIKE '%c%' AND has_any_column_privilege(who, c.oid, 'INSERT')
       OR operations LIKE '%u%' AND has_any_column_privilege(who, c.oid, 'UPDATE') OR operations LIKE '%d%' AND has_table_privilege(who, c.oid, 'DELETE'));
$f$;

-- May a role touch a table at all?
CREATE OR REPLACE FUNCTION odin._touches(who name, rel oid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $f$
BEGIN
  RETURN has_schema_privilege(who, (SELECT c.relnamespace FROM pg_class c WHERE c.oid = rel), 'USAGE') AND (has_any_column_privilege(who, rel, 'SELECT') OR has_any_column_privilege(who, rel, 'INSERT'));
END $f$;

-- The table a model name means for a role: another name, schema.table, a table of odin, or the only table called so.
CREATE OR REPLACE FUNCTION odin._model(model text, who name, for_writing boolean DEFAULT false) RETURNS oid
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  said text := trim(model);
  wanted text[];
  rel oid;
  several oid[];
  reason text;
BEGIN
  -- The usual case in one look: a table of the farm's, by its own name, which comes before any other table's other name.
  SELECT c.oid INTO rel FROM pg_class c
   WHERE c.relname = said::name AND c.relnamespace = 'odin'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND odin._touches(who, c.oid)
     AND odin._closed_model(c.oid, for_writing) IS NULL;
  IF FOUND THEN RETURN rel; END IF;
  SELECT m.table_name INTO said FROM odin.model_names m WHERE m.name = lower(said);
  said := coalesce(said, trim(model));
  IF said ~ '^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$' THEN
    wanted := string_to_array(said, '.');
  ELSE
    BEGIN
      wanted := parse_ident(said);
    EXCEPTION WHEN invalid_parameter_value THEN
      wanted := ARRAY[said];
    END;
  END IF;
  SELECT c.oid INTO rel FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relname = wanted[cardinality(wanted)]::name AND n.nspname = CASE cardinality(wanted) WHEN 1 THEN 'odin' ELSE wanted[1]::name END AND cardinality(wanted) <= 2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f');
  IF rel IS NULL OR NOT odin._touches(who, rel) THEN
    rel := NULL;
    IF cardinality(wanted) = 1 THEN
      several := ARRAY(SELECT m.rel FROM odin._models_of(who) m WHERE m.relation_name = wanted[1]);
      IF cardinality(several) > 1 THEN
        PERFORM odin.fail('record_model_not_found', format('model: %s is in more than one schema', model),
          'Say which one: ' || (SELECT string_agg(f::regclass::text, ' or ' ORDER BY f::regclass::text COLLATE "C") FROM unnest(several) f), '{"field": "model"}');
      END IF;
      rel := several[1];
    END IF;
  END IF;
  IF rel IS NULL THEN
    PERFORM odin.fail('record_model_not_found', format('model: there is no %s that %s may touch', model, who),
      'Did you mean ' || odin._nearest(model, ARRAY(SELECT m.relation_name::text FROM odin._models_of(who) m UNION ALL SELECT n.name FROM odin.model_names n)) || '?', '{"field": "model"}');
  END IF;
  reason := odin._closed_model(rel, for_writing);
  IF reason IS NOT NULL THEN PERFORM odin.fail('record_model_closed', format('model: %s', reason), NULL, '{"field": "model"}'); END IF;
  RETURN rel;
END $f$;

-- How values of a type are written and compared, for the compiler.
CREATE OR REPLACE FUNCTION odin._type_traits(type_id oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  base oid := odin._base_type(type_id);
  t pg_type;
  element jsonb;
  operators name;
  ordered boolean;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = base;
  IF t.typcategory = 'A' AND t.typelem <> 0 THEN
    element := odin._type_traits(t.typelem);
    RETURN jsonb_build_object('type', format_type(base, -1), 'kind', 'array', 'element', element, 'ordered', element->'ordered');
  END IF;
  -- The default B-tree operators of the type; enums, ranges and varchar use those of another.
  SELECT n.nspname, true INTO operators, ordered
    FROM pg_opclass c JOIN pg_amop a ON a.amopfamily = c.opcfamily AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype AND a.amopstrategy = 3
    JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
   WHERE c.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree') AND c.opcdefault
     AND c.opcintype = CASE WHEN t.typtype = 'e' THEN 'anyenum'::regtype WHEN t.typtype = 'r' THEN 'anyrange'::regtype WHEN t.typtype = 'm' THEN 'anymultirange'::regtype
                            WHEN t.typname = 'varchar' THEN 'text'::regtype WHEN t.typname = 'cidr' THEN 'inet'::regtype ELSE base END;
  RETURN jsonb_strip_nulls(jsonb_build_object('type', format_type(base, -1), 'ordered', coalesce(ordered, false), 'operators', nullif(operators, 'pg_catalog'),
    'equatable', coalesce(ordered, false) OR EXISTS (SELECT 1 FROM pg_opclass c WHERE c.opcintype = base AND c.opcdefault AND c.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'hash')),
    'kind', CASE
      WHEN t.typtype = 'e' THEN 'enum'
      WHEN t.typname IN ('int2', 'int4', 'int8', 'uuid', 'json', 'jsonb') THEN t.typname
      WHEN t.typname = 'numeric' THEN 'number'
      WHEN t.typname IN ('float4', 'float8') THEN 'float'
      WHEN t.typname = 'bool' THEN 'boolean'
      WHEN t.typname = 'bytea' THEN 'bytes'
      WHEN t.typname IN ('date', 'timestamp', 'timestamptz', 'time', 'timetz', 'interval') THEN 'temporal'
      WHEN t.typcategory = 'S' THEN 'text'
      ELSE 'other' END));
END $f$;

-- The columns that name a row: primary key, else the smallest unique index on columns that are never empty.
CREATE OR REPLACE FUNCTION odin._record_key(rel oid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts)
    FROM pg_index i
   WHERE i.indrelid = rel AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
     AND (i.indisprimary OR NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull))
   ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1;
$f$;

-- Foreign keys at either end of a table. `via` is the column that stands for the link: the one that meets the other's key.
CREATE OR REPLACE FUNCTION odin._record_links(rel oid) RETURNS TABLE(outward boolean, other oid, via name, far_key name, pairs jsonb, here name[], there name[], columns int)
LANGUAGE sql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $f$
  SELECT f.conrelid = rel AND e.outward, CASE WHEN e.outward THEN f.confrelid ELSE f.conrelid END,
         coalesce(p.main, CASE WHEN cardinality(f.conkey) = 1 THEN p.here[1] END), p.far, p.pairs, CASE WHEN e.outward THEN p.here ELSE p.there END, CASE WHEN e.outward THEN p.there ELSE p.here END, cardinality(f.conkey)
    FROM pg_constraint f CROSS JOIN (VALUES (true), (false)) e(outward),
         LATERAL (SELECT jsonb_agg(CASE WHEN e.outward THEN jsonb_build_array(a.attname, b.attname) ELSE jsonb_build_array(b.attname, a.attname) END ORDER BY k.n) AS pairs,
                         array_agg(a.attname ORDER BY k.n) AS here, array_agg(b.attname ORDER BY k.n) AS there,
                         max(a.attname) FILTER (WHERE ARRAY[b.attname::text] = odin._record_key(f.confrelid)) AS main,
                         max(b.attname) FILTER (WHERE ARRAY[b.attname::text] = odin._record_key(f.confrelid)) AS far
                    FROM unnest(f.conkey, f.confkey) WITH ORDINALITY k(mine, theirs, n)
                    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.mine JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = k.theirs) p
   WHERE f.contype = 'f' AND f.conparentid = 0 AND CASE WHEN e.outward THEN f.conrelid ELSE f.confrelid END = rel;
$f$;

-- A table as the compiler knows it: only what this role may read of it.
CREATE OR REPLACE FUNCTION odin._record_table(rel oid, who name) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  c pg_class;
  readable name[];
  keys text[] := odin._record_key(rel);
  seen jsonb;
  links jsonb;
  back jsonb;
BEGIN
  SELECT * INTO c FROM pg_class WHERE oid = rel;
  SELECT coalesce(array_agg(a.attname), '{}'), coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'not_null', a.attnotnull) || odin._type_traits(a.atttypid) ORDER BY a.attnum), '[]')
    INTO readable, seen
    FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(who, rel, a.attnum, 'SELECT');
  IF odin._closed_model(rel, false) IS NOT NULL THEN seen := '[]'; readable := '{}'; END IF;
  SELECT coalesce(jsonb_object_agg(l.via, jsonb_build_object('to', l.other::bigint, 'far_key', l.far_key, 'pairs', l.pairs)), '{}') INTO links
    FROM (SELECT DISTINCT ON (x.via) x.* FROM odin._record_links(rel) x WHERE x.outward AND x.via IS NOT NULL AND x.here <@ readable ORDER BY x.via, x.far_key IS NULL, x.columns) l;
  -- Records that point here are called as their table; by the column too where one table points twice.
  WITH b AS (
    SELECT x.other, x.pairs, x.via, o.relname, count(*) OVER (PARTITION BY x.other) AS links, count(*) OVER (PARTITION BY o.relname) AS named
      FROM (SELECT DISTINCT ON (y.other, y.via) y.* FROM odin._record_links(rel) y WHERE NOT y.outward AND y.via IS NOT NULL AND y.here <@ readable ORDER BY y.other, y.via, y.columns) x
      JOIN pg_class o ON o.oid = x.other
     WHERE has_any_column_privilege(who, x.other, 'SELECT'))
  SELECT coalesce(jsonb_object_agg(CASE WHEN b.links = 1 AND b.named = 1 THEN b.relname ELSE b.relname || '_by_' || regexp_replace(b.via, '_id$', '') END,
           jsonb_build_object('to', b.other::bigint, 'pairs', b.pairs)), '{}') INTO back FROM b;
  RETURN jsonb_build_object('schema', (SELECT nspname FROM pg_namespace WHERE oid = c.relnamespace), 'name', c.relname, 'columns', seen,
    'key', CASE WHEN keys <@ readable::text[] THEN to_jsonb(keys) ELSE '[]' END, 'links', links, 'back', back,
    'display', (SELECT n FROM unnest(ARRAY['name', 'display_name', 'title', 'order_number', 'invoice_number', 'quote_number', 'number', 'code', 'label', 'sku', 'subject', 'description', 'task_name']) WITH ORDINALITY u(n, i)
                 WHERE n = ANY (readable) ORDER BY i LIMIT 1),
    'parent', (SELECT x.via FROM odin._record_links(rel) x WHERE x.outward AND x.other = rel AND x.via IS NOT NULL AND x.here <@ readable
                  AND (x.via = 'parent_id' OR (SELECT count(DISTINCT y.via) FROM odin._record_links(rel) y WHERE y.outward AND y.other = rel) = 1) ORDER BY (x.via = 'parent_id') DESC LIMIT 1));
END $f$;

-- Other names of fields, by table.
CREATE OR REPLACE FUNCTION odin._field_names() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_object_agg(t.rel, t.names), '{}')
    FROM (SELECT to_regclass(m.table_name)::oid::text AS rel, jsonb_object_agg(f.key, f.value) AS names FROM odin.model_names m, jsonb_each(m.fields) f WHERE to_regclass(m.table_name) IS NOT NULL GROUP BY 1) t;
$f$;

-- The leaf, fed with the tables it asks for. Raises what is wrong; the answer has sql, params and about.
CREATE OR REPLACE FUNCTION odin._compile_records(request jsonb, who name) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  role_id oid := to_regrole(quote_ident(who));
  asked jsonb := request;
  made jsonb;
  needed oid;
BEGIN
  FOR turn IN 1..40 LOOP
    made := odin._records_compile(role_id, asked);
    IF made ? 'need' THEN
      FOR needed IN SELECT e::oid FROM jsonb_array_elements_text(made->'need') e LOOP
        PERFORM odin._records_learn(role_id, needed, odin._record_table(needed, who));
      END LOOP;
    ELSIF (made->>'ok')::boolean THEN
      RETURN made;
    ELSIF asked ? 'aliases' THEN
      EXIT;
    ELSE
      -- Perhaps a field goes by another name here.
      asked := request || jsonb_build_object('aliases', odin._field_names());
    END IF;
  END LOOP;
  PERFORM odin.fail('validation_failed', coalesce(made->>'detail', 'the question leads through too many tables'), made->>'hint', jsonb_build_object('field', coalesce(made->>'field', 'domain')));
END $f$;
