-- Keeping the registry true to the functions: what changed shows, what vanished is switched off, and a line in a function's comment registers it.
-- A registration still grants nothing; only functions of people who administer the farm are read for such lines.

-- The options of a line "@tool {json}" in a function's comment: register_tool's arguments. NULL = there is no such line.
CREATE OR REPLACE FUNCTION odin._annotation(fn oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  m text[] := regexp_match(obj_description(fn, 'pg_proc'), '(?:^|\n)[ \t]*@tool[ \t]*([^\n]*)');
  known constant text[] := '{name,title,description,scope,area,toolset,hints,confirm,timeout,arguments,aliases,next_actions,output,result_key,page_by,default_fields,raw,previewable,task,most_rows,rate_per_minute,concurrency,input,icons}';
  options jsonb;
  unknown text;
BEGIN
  IF m IS NULL THEN RETURN NULL; END IF;
  BEGIN
    options := coalesce(nullif(trim(m[1]), ''), '{}')::jsonb;
  EXCEPTION WHEN invalid_text_representation THEN
    PERFORM odin.fail('registration_failed', format('comment: what follows @tool in the comment of %s is not JSON: %s', fn::regprocedure, SQLERRM), 'Write it on one line: @tool {"scope": "read", "area": "jobs"}');
  END;
  SELECT k INTO unknown FROM jsonb_object_keys(options) k WHERE k <> ALL (known) LIMIT 1;
  IF unknown IS NOT NULL THEN
    PERFORM odin.fail('registration_failed', format('comment: @tool of %s has no option %s', fn::regprocedure, unknown), coalesce(format('Did you mean %s?', odin._nearest(unknown, known)), 'Options are: ' || array_to_string(known, ', ')));
  END IF;
  IF options ? 'timeout' THEN
    options := (options - 'timeout') || jsonb_build_object('timeout_ms', (extract(epoch FROM (options->>'timeout')::interval) * 1000)::int);
  END IF;
  RETURN '{"scope": "read", "area": "general", "toolset": "farm", "annotated": true}' || options || jsonb_build_object('function', fn::regprocedure::text);
END $f$;

-- Functions whose comments are read: those of superusers, of the farm itself and of its administrators.
CREATE OR REPLACE FUNCTION odin._annotated_functions() RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT p.oid FROM pg_description d JOIN pg_proc p ON p.oid = d.objoid JOIN pg_roles r ON r.oid = p.proowner
   WHERE d.classoid = 'pg_proc'::regclass AND d.objsubid = 0 AND d.description ~ '(^|\n)[ \t]*@tool'
     AND (r.rolsuper OR r.rolname = 'odin_owner' OR pg_has_role(r.oid, 'odin_admin', 'MEMBER')) ORDER BY p.oid;
$f$;

CREATE OR REPLACE FUNCTION odin.sync_tools() RETURNS TABLE(tool text, change text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tools;
  fn oid;
  problem text;
  was bigint;
  options jsonb;
BEGIN
  PERFORM odin._humans_only('syncing tools');
  FOR t IN SELECT * FROM odin.tools ORDER BY id LOOP
    problem := NULL;
    BEGIN
      options := t.registration;
      IF options ? 'annotated' THEN
        options := odin._annotation(odin._function_oid(t.function));
        IF options IS NULL OR NOT odin._function_oid(t.function) IN (SELECT odin._annotated_functions()) THEN
          PERFORM odin.fail('registration_failed', format('the comment of %s no longer says @tool', t.function));
        ELSIF coalesce(options->>'name', (SELECT proname FROM pg_proc WHERE oid = odin._function_oid(t.function))) <> t.name THEN
          PERFORM odin.fail('registration_failed', format('the comment of %s names another tool now', t.function));
        END IF;
      END IF;
      PERFORM odin._register(t.kind, options);
    EXCEPTION WHEN SQLSTATE 'OD036' THEN
      GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
    END;
    IF problem IS NOT NULL AND t.active THEN
      UPDATE odin.tools x SET active = false, inactive_reason = problem, version = x.version + 1 WHERE x.id = t.id;
      PERFORM odin._registry_changed(t.name, 'deactivated', t.version + 1, odin._entry(t), NULL);
      tool := t.name; change := 'deactivated: ' || problem;
      RETURN NEXT;
    ELSIF problem IS NULL THEN
      SELECT x.version INTO was FROM odin.tools x WHERE x.id = t.id;
      IF was <> t.version THEN
        tool := t.name; change := CASE WHEN t.active THEN 'changed' ELSE 'activated' END;
        RETURN NEXT;
      END IF;
    END IF;
  END LOOP;
  -- Comments that say @tool and are not in the registry yet.
  FOR fn IN SELECT a FROM odin._annotated_functions() a WHERE NOT EXISTS (SELECT 1 FROM odin.tools x WHERE x.active AND x.registration ? 'annotated' AND x.function = a::regprocedure::text) LOOP
    BEGIN
      tool := odin._register('tool', odin._annotation(fn));
      change := 'registered';
    EXCEPTION WHEN SQLSTATE 'OD036' THEN
      tool := fn::regprocedure::text;
      change := 'refused: ' || SQLERRM;
    END;
    RETURN NEXT;
  END LOOP;
END $f$;
COMMENT ON FUNCTION odin.sync_tools() IS 'Re-reads every registered function: changed signatures and comments show, vanished functions are switched off, and functions whose comment has a line @tool {options} are registered. The answer lists what changed, and what was refused with the reason. People only.';
