-- Model sites and files from the web. A tool only says what it wants to know; a worker asks, through the egress rules of its sidecar.
-- A token goes in sealed and never comes out; what a site says about a design (licence, author, source) is kept with its files.

CREATE OR REPLACE FUNCTION odin.set_source_token(source text, token text DEFAULT NULL, sealed text DEFAULT NULL, remove boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  org bigint := odin._new_in('odin_admin');
  had boolean;
BEGIN
  IF token IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', 'a token must not reach the database in clear', 'Call this tool through a sidecar (MCP or REST) that has ODIN_SECRET_KEY; it seals it on the way.');
  ELSIF (sealed IS NULL) = (NOT remove) THEN
    PERFORM odin.fail('validation_failed', 'token: give the site''s token, or remove: true', 'For Thingiverse: an app token from thingiverse.com/developers.', '{"field":"token"}');
  ELSIF sealed !~ '^sealed:v1:[A-Za-z0-9_-]{40,}$' THEN
    PERFORM odin.fail('validation_failed', 'sealed: this is not a token sealed by a sidecar', NULL, '{"field":"sealed"}');
  END IF;
  had := EXISTS (SELECT 1 FROM odin_private.source_secrets s WHERE s.org_id = org AND s.source = set_source_token.source);
  IF remove THEN
    DELETE FROM odin_private.source_secrets s WHERE s.org_id = org AND s.source = set_source_token.source;
  ELSE
    INSERT INTO odin_private.source_secrets AS s (org_id, source, sealed, set_by) VALUES (org, set_source_token.source, set_source_token.sealed, odin.actor())
    ON CONFLICT ON CONSTRAINT source_secrets_pkey DO UPDATE SET sealed = excluded.sealed, set_by = excluded.set_by, set_at = clock_timestamp();
  END IF;
  PERFORM odin.would(jsonb_build_object('action', 'set_source_token', 'source', source, 'had_token', had, 'remove', remove));
  RETURN jsonb_build_object('success', true, 'source', source, 'has_token', NOT remove, 'replaced', had);
END $f$;
COMMENT ON FUNCTION odin.set_source_token(text, text, text, boolean) IS 'Sets the org''s token for a model site (thingiverse). Write-only: nobody can read it back.';

CREATE OR REPLACE FUNCTION odin._need_source(wanted text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM odin_private.source_secrets s WHERE s.org_id = odin.my_org() AND s.source = wanted) THEN
    PERFORM odin.fail('source_token_missing', format('the org has no token for %s', wanted), 'An administrator calls set_source_token; an app token is made at thingiverse.com/developers.', jsonb_build_object('source', wanted));
  END IF;
END $f$;

-- A read tool changes nothing, so it cannot queue work itself: the dispatcher does it when the tool has ended.
CREATE OR REPLACE FUNCTION odin._ask_outside(result jsonb, owner text, owner_key bigint, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  task odin.tasks;
BEGIN
  task := odin._new_task('source', owner, owner_key, NULL, result->'ask_outside', jsonb_build_object('face', options->'face', 'client', options->'client', 'request_id', options->'request_id', 'priority', 20,
    'max_attempts', 2, 'message', 'asking the model site'));
  RETURN (result - 'ask_outside') || jsonb_build_object('task_id', task.id, 'task_state', 'queued', 'hint', format('The model site is being asked as task %s; call get_task for its answer.', task.id));
END $f$;

CREATE OR REPLACE FUNCTION odin.thingiverse_search_models(query text, "limit" int DEFAULT 20, page int DEFAULT 1) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF btrim(query) = '' THEN PERFORM odin.fail('validation_failed', 'query: must not be blank', NULL, '{"field": "query"}'); END IF;
  PERFORM odin._need_source('thingiverse');
  RETURN jsonb_build_object('query', btrim(query), 'page', page,
    'ask_outside', jsonb_build_object('act', 'thingiverse_search', 'query', btrim(query), 'limit', "limit", 'page', page));
END $f$;
COMMENT ON FUNCTION odin.thingiverse_search_models(text, int, int) IS 'Searches Thingiverse for 3D models by text: id, name, creator, picture, likes. limit 1 to 30 a page; page goes on. Then thingiverse_get_model with an id for its files and licence.';

CREATE OR REPLACE FUNCTION odin.thingiverse_get_model(thing_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._need_source('thingiverse');
  RETURN jsonb_build_object('id', thing_id, 'ask_outside', jsonb_build_object('act', 'thingiverse_get', 'thing_id', thing_id));
END $f$;
COMMENT ON FUNCTION odin.thingiverse_get_model(bigint) IS 'Shows a Thingiverse model: creator, licence, description and files with their ids and sizes. Read the licence before a print is sold. Then thingiverse_download_model.';

CREATE OR REPLACE FUNCTION odin.thingiverse_download_model(thing_id bigint, file_id bigint DEFAULT NULL, include_all_files boolean DEFAULT false, dest_subdir text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in();
  folder text;
BEGIN
  BEGIN
    folder := odin._store_path(coalesce(nullif(btrim(dest_subdir), ''), 'thingiverse/' || thing_id));
  EXCEPTION WHEN SQLSTATE 'OD001' THEN
    PERFORM odin.fail('validation_failed', 'dest_subdir: is no folder inside the store', 'Use a plain name like brackets or customer/brackets, without .. in it.', '{"field": "dest_subdir"}');
  END;
  PERFORM odin._need_source('thingiverse');
  PERFORM odin.would(jsonb_build_object('action', 'thingiverse_download_model', 'thing_id', thing_id, 'file_id', file_id, 'dest_dir', folder, 'max_file_mb', odin._max_file_bytes(org) / 1048576));
  RETURN odin._queue_source(jsonb_strip_nulls(jsonb_build_object('act', 'thingiverse_download', 'thing_id', thing_id, 'file_id', file_id, 'include_all_files', include_all_files, 'dest_dir', folder)),
    jsonb_build_object('thing_id', thing_id, 'dest_dir', folder), format('thing %s', thing_id));
END $f$;
COMMENT ON FUNCTION odin.thingiverse_download_model(bigint, bigint, boolean, text) IS 'Downloads the printable files of a Thingiverse model (stl, obj, 3mf, step, stp, amf, ply) into the store, with licence, author and source. file_id takes one file, include_all_files every kind. dest_subdir is a folder inside the store (default thingiverse/ID). Next: inspect_model, cura_slice_model.';

CREATE OR REPLACE FUNCTION odin.fetch_file(url text, name text DEFAULT NULL, license text DEFAULT NULL, author text DEFAULT NULL, source_url text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  said text := btrim(url);
  path text;
BEGIN
  PERFORM odin._new_in();
  IF said !~* '^https?://[^/?#@]+([/?#]|$)' THEN
    PERFORM odin.fail('validation_failed', 'url: must be https://host/path, without a user name', NULL, '{"field": "url"}');
  END IF;
  path := odin._store_path(coalesce(nullif(btrim(name), ''), nullif(regexp_replace(regexp_replace(said, '[?#].*$', ''), '^https?://[^/]*/?(.*/)?', '', 'i'), ''), 'download'));
  PERFORM odin.would(jsonb_build_object('action', 'fetch_file', 'host', regexp_replace(said, '^https?://([^/?#]*).*$', '\1', 'i'), 'name', path));
  RETURN odin._queue_source(jsonb_strip_nulls(jsonb_build_object('act', 'fetch', 'url', said, 'path', path, 'license', license, 'author', author,
      'source_url', coalesce(source_url, regexp_replace(said, '[?#].*$', '')))),
    jsonb_build_object('name', path), path);
END $f$;
COMMENT ON FUNCTION odin.fetch_file(text, text, text, text, text) IS 'Fetches a file from the web into the store: only from hosts that the sidecar''s operator allows (ODIN_EGRESS_ALLOW), only by https. name is its name in the store; give license and author of the design where known.';

CREATE OR REPLACE FUNCTION odin._queue_source(about jsonb, placeholder jsonb, label text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  task text := odin.start_task('source', about, 'waiting for a worker', priority => 40, max_attempts => 3);
BEGIN
  RETURN placeholder || jsonb_build_object('task_id', task, 'task_state', 'queued', 'hint', format('%s is being fetched as task %s; call get_task for its end.', label, task));
END $f$;

-- The sealed token, for the worker that holds the task and for nobody else.
CREATE OR REPLACE FUNCTION odin.worker_source_secret(task_id text, task_fence bigint, source text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('sealed', (SELECT s.sealed FROM odin_private.source_secrets s JOIN odin.tasks t ON t.org_id = s.org_id
    WHERE t.id = task_id AND t.fence = task_fence AND t.state = 'working' AND s.source = worker_source_secret.source));
$f$;
COMMENT ON FUNCTION odin.worker_source_secret(text, bigint, text) IS 'The sealed token for a model site, for the worker that holds a task of the org.';

GRANT EXECUTE ON FUNCTION odin.thingiverse_search_models(text, int, int), odin.thingiverse_get_model(bigint) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.thingiverse_download_model(bigint, bigint, boolean, text), odin.fetch_file(text, text, text, text, text) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.set_source_token(text, text, text, boolean) TO odin_admin;
GRANT EXECUTE ON FUNCTION odin.worker_source_secret(text, bigint, text) TO odin_worker;
