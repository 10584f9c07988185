-- The six tools of Odoo's MCP server, with their argument names, defaults and answers, over the same record functions.
-- Nothing here can do more than the record tools; a method that is not on the list is out of reach.

CREATE OR REPLACE FUNCTION odin.odoo_record_retriever(model text, domain jsonb DEFAULT '[]', fields text[] DEFAULT '{}', "limit" int DEFAULT 100) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user);
  most int := least(greatest(coalesce("limit", 100), 1), 1000);
  plan jsonb;
  page record;
BEGIN
  plan := odin._compile_records(jsonb_build_object('op', 'search', 'table', rel::bigint, 'domain', domain, 'fields', to_jsonb(fields), 'limit', most), current_user);
  SELECT * INTO page FROM odin._run_records(plan, most, 200000, false);
  IF page.cut THEN
    PERFORM odin.note(format('Cut to %s records because an answer holds 200 kB; choose fewer fields or a narrower domain.', page.n));
  ELSIF page.more THEN
    PERFORM odin.note(format('More than %s records match; these are the first. search_records gives the next pages.', most));
  END IF;
  RETURN page.records;
END $f$;
COMMENT ON FUNCTION odin.odoo_record_retriever(text, jsonb, text[], int) IS 'Finds records of a model, Odoo style: model names like sale.order or a table''s own, a domain like [["state", "=", "pending"]], field names, at most limit records. An empty field list means all fields.';

CREATE OR REPLACE FUNCTION odin.odoo_record_creator(model text, fields jsonb DEFAULT NULL, records jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made jsonb;
BEGIN
  IF (fields IS NULL) = (records IS NULL) THEN
    PERFORM odin.fail('validation_failed', 'fields: give exactly one of fields (one record) and records (a list of them)', NULL, '{"field": "fields"}');
  END IF;
  made := odin.create_records(model, coalesce(records, jsonb_build_array(fields)));
  IF records IS NOT NULL THEN
    RETURN jsonb_build_object('records', made->'records', 'count', made->'count', 'message', format('%s records created in %s', made->>'count', model));
  END IF;
  RETURN jsonb_build_object('id', made#>'{ids,0}', 'display_name', coalesce(made#>'{records,0,display_name}', made#>'{ids,0}'), 'message', format('Record created in %s', model));
END $f$;
COMMENT ON FUNCTION odin.odoo_record_creator(text, jsonb, jsonb) IS 'Creates one record (fields: an object) or several (records: a list of objects) of a model, Odoo style.';

CREATE OR REPLACE FUNCTION odin.odoo_record_updater(model text, domain jsonb, "values" jsonb, "limit" int DEFAULT 1) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  named jsonb;
  rel oid := odin._model(model, current_user, true);
BEGIN
  named := odin._update_records(rel, NULL, domain, "values", least(greatest(coalesce("limit", 1), 1), 1000), true);
  IF named = '[]' THEN
    RETURN jsonb_build_object('error', format('No records found matching the domain in %s', model));
  END IF;
  RETURN jsonb_build_object('count', jsonb_array_length(named), 'ids', odin._ids_of(rel, named), 'message', format('%s records of %s updated', jsonb_array_length(named), model));
END $f$;
COMMENT ON FUNCTION odin.odoo_record_updater(text, jsonb, jsonb, int) IS 'Changes the first limit records (1 unless you say more) that match a domain, Odoo style. Use a domain that names the record: [["id", "=", 7]].';

CREATE OR REPLACE FUNCTION odin.odoo_record_unlinker(model text, domain jsonb, "limit" int DEFAULT 1) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  named jsonb;
BEGIN
  named := odin._delete_records(odin._model(model, current_user, true), NULL, domain, least(greatest(coalesce("limit", 1), 1), 1000), true);
  IF named = '[]' THEN
    RETURN jsonb_build_object('error', format('No records found matching the domain in %s', model));
  END IF;
  RETURN jsonb_build_object('deleted_count', jsonb_array_length(named), 'deleted_records', named, 'message', format('%s records of %s deleted', jsonb_array_length(named), model));
END $f$;
COMMENT ON FUNCTION odin.odoo_record_unlinker(text, jsonb, int) IS 'Deletes the first limit records (1 unless you say more) that match a domain, Odoo style. Use a domain that names the record: [["id", "=", 7]].';

-- Arguments of a method: by place from args, by name from kwargs.
CREATE OR REPLACE FUNCTION odin._method_arguments(fn oid, ids_argument text, args jsonb, kwargs jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  names text[] := ARRAY(SELECT a.name FROM odin._function_arguments(fn) a WHERE a.name IS DISTINCT FROM ids_argument ORDER BY a.n);
  given jsonb := coalesce(kwargs, '{}');
  wrong text;
BEGIN
  IF jsonb_array_length(coalesce(args, '[]')) > cardinality(names) THEN
    PERFORM odin.fail('validation_failed', format('args: the method takes %s', coalesce(nullif(array_to_string(names, ', '), ''), 'none')), NULL, '{"field": "args"}');
  END IF;
  given := given || coalesce((SELECT jsonb_object_agg(names[n], e) FROM jsonb_array_elements(args) WITH ORDINALITY x(e, n)), '{}');
  SELECT k INTO wrong FROM jsonb_object_keys(given) k WHERE k <> ALL (names) LIMIT 1;
  IF wrong IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', format('kwargs: the method has no argument %s', wrong), format('Its arguments are: %s', array_to_string(names, ', ')), '{"field": "kwargs"}');
  END IF;
  SELECT a.name INTO wrong FROM odin._function_arguments(fn) a WHERE NOT a.has_default AND a.name IS DISTINCT FROM ids_argument AND NOT given ? a.name LIMIT 1;
  IF wrong IS NOT NULL THEN PERFORM odin.fail('validation_failed', format('kwargs: the method needs %s', wrong), NULL, '{"field": "kwargs"}'); END IF;
  RETURN given;
END $f$;

CREATE OR REPLACE FUNCTION odin._call_method(fn oid, arguments jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  call text;
  answer record;
  said jsonb;
BEGIN
  SELECT * INTO answer FROM odin._function_answer(fn);
  SELECT format('%I.%I(%s)', n.nspname, p.proname, (SELECT string_agg(odin._argument_sql(a.name, a.type_id, a.has_default, a.default_sql), ', ' ORDER BY a.n) FROM odin._function_arguments(fn) a WHERE arguments ? a.name))
    INTO call FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = fn;
  EXECUTE CASE answer.shape
    WHEN 'rows' THEN format('SELECT coalesce(jsonb_agg(to_jsonb(t.*)), ''[]'') FROM (SELECT $1) g(a), LATERAL (SELECT * FROM %s LIMIT 1000) t', call)
    WHEN 'object' THEN format('SELECT to_jsonb(t.*) FROM (SELECT $1) g(a), LATERAL (SELECT * FROM %s) t', call)
    WHEN 'nothing' THEN format('SELECT to_jsonb(true) FROM (SELECT %s FROM (SELECT $1) g(a)) t', call)
    ELSE format('SELECT to_jsonb(%s) FROM (SELECT $1) g(a)', call) END INTO said USING arguments;
  RETURN said;
END $f$;

CREATE OR REPLACE FUNCTION odin.odoo_model_method_executor(model text, method text, record_ids jsonb DEFAULT NULL, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', allow_private boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user);
  m odin.model_methods;
  fn oid;
  given jsonb;
  takes_list boolean;
  id jsonb;
  said jsonb := '[]';
  known text[] := ARRAY(SELECT x->>'name' FROM jsonb_array_elements(odin._model_methods(rel)) x);
BEGIN
  IF method LIKE '\_%' THEN
    PERFORM odin.fail('method_not_found', format('method: %s is private and cannot be called%s', method, CASE WHEN allow_private THEN '; allow_private opens nothing here' ELSE '' END), NULL, '{"field": "method"}');
  END IF;
  SELECT * INTO m FROM odin.model_methods x WHERE to_regclass(x.table_name) = rel AND x.method = odoo_model_method_executor.method;
  fn := to_regprocedure(m.function);
  IF fn IS NULL THEN
    PERFORM odin.fail('method_not_found', format('method: %s has no method %s', model, method),
      coalesce('Did you mean ' || odin._nearest(method, known) || '?', CASE WHEN cardinality(known) > 0 THEN 'Its methods are: ' || array_to_string(known, ', ') ELSE 'It has none; an administrator lists them in odin.model_methods.' END), '{"field": "method"}');
  ELSIF NOT has_function_privilege(fn, 'EXECUTE') THEN
    PERFORM odin.fail('permission_denied', format('%s may not call %s', current_user, method), format('Missing: GRANT EXECUTE ON FUNCTION %s TO %I, or membership in a group role that has it.', fn::regprocedure, current_user));
  END IF;
  given := odin._method_arguments(fn, m.ids_argument, args, kwargs);
  record_ids := CASE coalesce(jsonb_typeof(record_ids), 'null') WHEN 'array' THEN record_ids WHEN 'null' THEN NULL ELSE jsonb_build_array(record_ids) END;
  IF m.ids_argument IS NULL THEN
    IF jsonb_array_length(record_ids) > 0 THEN
      PERFORM odin.fail('validation_failed', format('record_ids: %s works on the model, not on records', method), NULL, '{"field": "record_ids"}');
    END IF;
    said := odin._call_method(fn, given);
  ELSE
    IF coalesce(jsonb_array_length(record_ids), 0) NOT BETWEEN 1 AND 100 THEN
      PERFORM odin.fail('validation_failed', format('record_ids: %s works on records; name 1 to 100 of them', method), NULL, '{"field": "record_ids"}');
    END IF;
    SELECT t.typcategory = 'A' INTO takes_list FROM odin._function_arguments(fn) a JOIN pg_type t ON t.oid = a.type_id WHERE a.name = m.ids_argument;
    IF takes_list THEN
      said := odin._call_method(fn, given || jsonb_build_object(m.ids_argument, record_ids));
    ELSE
      FOR id IN SELECT jsonb_array_elements(record_ids) LOOP
        said := said || jsonb_build_array(odin._call_method(fn, given || jsonb_build_object(m.ids_argument, id)));
      END LOOP;
      IF jsonb_array_length(said) = 1 THEN said := said->0; END IF;
    END IF;
  END IF;
  RETURN jsonb_build_object('result', said, 'message', format('Method %s of %s executed', method, model));
END $f$;
COMMENT ON FUNCTION odin.odoo_model_method_executor(text, text, jsonb, jsonb, jsonb, boolean) IS 'Calls a method of a model, Odoo style: one of those an administrator has listed; odoo_model_inspector shows them. record_ids: the records it works on; args by place, kwargs by name. Private methods cannot be reached.';

CREATE OR REPLACE FUNCTION odin.odoo_model_inspector(model text, include_fields boolean DEFAULT true, include_methods boolean DEFAULT true, field_limit int DEFAULT 30, method_limit int DEFAULT 20, include_private boolean DEFAULT false,
  method_name_filter text DEFAULT NULL, method_type_filter text DEFAULT NULL, field_name_filter text DEFAULT NULL, field_type_filter text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user);
  about jsonb;
  methods jsonb := odin._model_methods(rel);
  fitting jsonb;
  fields jsonb;
BEGIN
  IF include_private THEN PERFORM odin.note('Private methods are never shown or reached here.'); END IF;
  about := odin.describe_model(model, field_name_filter, field_type_filter, false, false, field_limit);
  SELECT coalesce(jsonb_agg(m ORDER BY n) FILTER (WHERE place <= greatest(method_limit, 0)), '[]') INTO fitting
    FROM (SELECT m, n, row_number() OVER (ORDER BY n) AS place FROM jsonb_array_elements(methods) WITH ORDINALITY x(m, n)
           WHERE (method_name_filter IS NULL OR strpos(lower(m->>'name'), lower(method_name_filter)) > 0)
             AND (method_type_filter IS NULL OR lower(method_type_filter) = CASE WHEN (m->>'on_records')::boolean THEN 'records' ELSE 'model' END)) s;
  SELECT coalesce(jsonb_object_agg(f->>'name', f - 'name'), '{}') INTO fields FROM jsonb_array_elements(about->'fields') f;
  RETURN jsonb_strip_nulls(jsonb_build_object('name', coalesce(split_part(about->>'description', '.', 1), model), 'model', model, 'description', about->'description', 'module', split_part(rel::regclass::text, '.', 1)))
    || jsonb_build_object('transient', false, 'inheritance', '[]'::jsonb)
    || CASE WHEN include_fields THEN jsonb_build_object('fields', fields, 'field_count', about->'field_count') ELSE '{}' END
    || jsonb_build_object('total_fields', about->'total_fields')
    || CASE WHEN include_methods THEN jsonb_build_object('methods', fitting, 'method_count', jsonb_array_length(fitting)) ELSE '{}' END
    || jsonb_build_object('total_methods', jsonb_array_length(methods),
         'summary', format('%s is the table %s: %s fields, %s methods; you may %s.', model, rel::regclass, about->>'total_fields', jsonb_array_length(methods),
           coalesce((SELECT string_agg(w, ', ') FROM jsonb_array_elements_text(about->'may') w), 'nothing')));
END $f$;
COMMENT ON FUNCTION odin.odoo_model_inspector(text, boolean, boolean, int, int, boolean, text, text, text, text) IS 'Shows the fields and methods of a model, Odoo style, with filters. describe_model is the shorter one.';
