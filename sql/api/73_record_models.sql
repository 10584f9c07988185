-- What models there are and what fields they have, as the caller may touch them. Small by default: an agent pays for every word.
-- Says nothing of how many rows there are: that would tell what row security hides.

-- The words a CHECK allows for a column: status IN ('pending', 'printing').
CREATE OR REPLACE FUNCTION odin._allowed_words(rel oid, attnum int2) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT (SELECT jsonb_agg(replace(w[1], '''''', '''')) FROM regexp_matches(d.text, '''((?:[^'']|'''')*)''::text', 'g') w)
    FROM (SELECT pg_get_constraintdef(c.oid) AS text FROM pg_constraint c WHERE c.conrelid = rel AND c.contype = 'c' AND c.conkey = ARRAY[attnum]) d
   WHERE d.text ~ '^CHECK \(\(\(?[a-z_"]+\)? = ANY \(ARRAY\[''' ORDER BY length(d.text) LIMIT 1;
$f$;

CREATE OR REPLACE FUNCTION odin._model_rights(rel oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_agg(o.word ORDER BY o.n), '[]') FROM (VALUES
    (1, 'read', has_any_column_privilege(rel, 'SELECT')),
    (2, 'create', has_any_column_privilege(rel, 'INSERT') AND odin._closed_model(rel, true) IS NULL),
    (3, 'update', has_any_column_privilege(rel, 'UPDATE') AND odin._closed_model(rel, true) IS NULL),
    (4, 'delete', has_table_privilege(rel, 'DELETE') AND odin._closed_model(rel, true) IS NULL)) o(n, word, may) WHERE o.may;
$f$;

CREATE OR REPLACE FUNCTION odin.list_record_models(filter text DEFAULT NULL, "limit" int DEFAULT 100) RETURNS TABLE(model text, description text, also_called text[], may jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT m.rel::regclass::text, split_part(obj_description(m.rel, 'pg_class'), E'\n', 1), n.names, odin._model_rights(m.rel)
    FROM odin._models_of(current_user) m
    LEFT JOIN LATERAL (SELECT array_agg(x.name ORDER BY x.name) AS names FROM odin.model_names x WHERE to_regclass(x.table_name) = m.rel) n ON true
   WHERE filter IS NULL OR strpos(lower(concat_ws(' ', m.rel::regclass::text, obj_description(m.rel, 'pg_class'), array_to_string(n.names, ' '))), lower(filter)) > 0
   ORDER BY (m.schema_name <> 'odin'), m.schema_name, m.relation_name
   LIMIT least(greatest(coalesce("limit", 100), 1), 500);
$f$;
COMMENT ON FUNCTION odin.list_record_models(text, int) IS 'Lists the models (tables and views) you may touch, with what you may do there and the other names they go by. filter: a word in name or description. Next: describe_model.';

-- Is this the column that create_records fills with the caller's own org?
CREATE OR REPLACE FUNCTION odin._own_org(rel oid, attnum int2) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT EXISTS (SELECT 1 FROM pg_attribute a JOIN pg_constraint c ON c.conrelid = rel AND c.contype = 'f' AND c.conkey = ARRAY[a.attnum] AND c.confrelid = to_regclass('odin.orgs')
                  WHERE a.attrelid = rel AND a.attnum = _own_org.attnum AND a.attname = 'org_id' AND a.attnotnull AND NOT a.atthasdef);
$f$;

-- The fields of a model, one row each, before anything is left out.
CREATE OR REPLACE FUNCTION odin._model_fields(rel oid) RETURNS TABLE(n int2, name text, kind text, field jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT a.attnum, a.attname::text, t.traits->>'kind', jsonb_strip_nulls(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
           'description', col_description(rel, a.attnum), 'values', coalesce(odin._allowed_words(rel, a.attnum),
             (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = odin._base_type(a.atttypid))),
           'link', (SELECT x.other::regclass::text FROM odin._record_links(rel) x WHERE x.outward AND x.via = a.attname ORDER BY x.far_key IS NULL, x.columns LIMIT 1)))
         || CASE WHEN a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND NOT odin._own_org(rel, a.attnum) THEN '{"required": true}' ELSE '{}' END::jsonb
         || CASE WHEN a.attgenerated <> '' OR a.attidentity = 'a' OR NOT has_column_privilege(rel, a.attnum, 'INSERT') AND NOT has_column_privilege(rel, a.attnum, 'UPDATE') THEN '{"readonly": true}' ELSE '{}' END::jsonb
    FROM pg_attribute a CROSS JOIN LATERAL (SELECT odin._type_traits(a.atttypid) AS traits) t
   WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped
     AND (has_column_privilege(rel, a.attnum, 'SELECT') OR has_column_privilege(rel, a.attnum, 'INSERT') OR has_column_privilege(rel, a.attnum, 'UPDATE'));
$f$;

CREATE OR REPLACE FUNCTION odin.describe_model(model text, field_filter text DEFAULT NULL, type_filter text DEFAULT NULL, links boolean DEFAULT false, methods boolean DEFAULT false, "limit" int DEFAULT 25)
RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user);
  most int := least(greatest(coalesce("limit", 25), 1), 500);
  total int;
  fitting int;
  fields jsonb;
  answer jsonb;
BEGIN
  SELECT count(*), count(*) FILTER (WHERE f.fits), coalesce(jsonb_agg(f.field ORDER BY f.n) FILTER (WHERE f.fits AND f.place <= most), '[]') INTO total, fitting, fields
    FROM (SELECT x.*, row_number() OVER (PARTITION BY y.fits ORDER BY x.n) AS place, y.fits FROM odin._model_fields(rel) x,
            LATERAL (SELECT (field_filter IS NULL OR strpos(lower(x.name || ' ' || coalesce(x.field->>'description', '')), lower(field_filter)) > 0)
                        AND (type_filter IS NULL OR x.kind = lower(type_filter) OR strpos(lower(x.field->>'type'), lower(type_filter)) > 0 OR lower(type_filter) = 'link' AND x.field ? 'link') AS fits) y) f;
  answer := jsonb_strip_nulls(jsonb_build_object('model', rel::regclass::text, 'description', obj_description(rel, 'pg_class'), 'key', to_jsonb(odin._record_key(rel)), 'may', odin._model_rights(rel)))
    || jsonb_build_object('fields', fields, 'field_count', jsonb_array_length(fields), 'total_fields', total);
  IF fitting > most THEN
    answer := answer || jsonb_build_object('note', format('%s more fields: set limit, or look for some with field_filter.', fitting - most));
  END IF;
  IF links THEN
    answer := answer || jsonb_build_object('pointed_at_by', (SELECT coalesce(jsonb_object_agg(b.key, (b.value->>'to')::oid::regclass::text), '{}') FROM jsonb_each(odin._record_table(rel, current_user)->'back') b));
  END IF;
  IF methods THEN answer := answer || jsonb_build_object('methods', odin._model_methods(rel)); END IF;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.describe_model(text, text, text, boolean, boolean, int) IS 'Shows the fields of a model: type, allowed values, where links lead, what is required or read-only for you. field_filter: a word in name or description; type_filter: a type (text, integer, boolean, date, ...) or link. links: also the models that point to this one. methods: also the functions that may be called on it.';

-- Allow-listed methods of a model that this caller may run.
CREATE OR REPLACE FUNCTION odin._model_methods(rel oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', m.method, 'description', coalesce(m.description, split_part(obj_description(f.fn, 'pg_proc'), '. ', 1)),
           'on_records', m.ids_argument IS NOT NULL,
           'arguments', (SELECT jsonb_agg(a.name || ' ' || format_type(a.type_id, NULL) || CASE WHEN a.has_default THEN ' (optional)' ELSE '' END ORDER BY a.n)
                           FROM odin._function_arguments(f.fn) a WHERE a.name IS DISTINCT FROM m.ids_argument))) ORDER BY m.method), '[]')
    FROM odin.model_methods m, LATERAL (SELECT to_regprocedure(m.function)::oid AS fn) f
   WHERE to_regclass(m.table_name) = rel AND f.fn IS NOT NULL AND has_function_privilege(f.fn, 'EXECUTE');
$f$;
