-- The ways in and out of the file store for the sidecar: uploads and downloads of a key (gateway), bytes for tasks (worker).
-- Rights are those of the tools upload_file and get_file; bytes leave only for a sealed ticket.

-- PUT /files: may this key put a file here? {"ok", "upload", "chunk_bytes", "max_bytes"}.
CREATE OR REPLACE FUNCTION odin.gateway_upload_begin(credential text, about jsonb, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  error jsonb;
  org bigint;
  state text; said text; detail text; hint text;
BEGIN
  p := odin._principal(credential, options);
  error := coalesce(p.error, odin._gate(odin._find_tool('finish_upload'), p.who, (p.k).role_name, (p.k).scopes, 'finish_upload', options));
  IF error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', error); END IF;
  SELECT m.org_id INTO org FROM odin._memberships((p.k).role_name::name) m WHERE m.customer_id IS NULL ORDER BY m.id LIMIT 1;
  IF org IS NULL THEN
    RETURN jsonb_build_object('ok', false, 'error', odin._error('permission_denied', format('%s belongs to no org', (p.k).role_name)));
  END IF;
  PERFORM odin._store_path(about->>'name');
  RETURN jsonb_build_object('ok', true, 'upload', odin._blob_begin(org, (p.k).role_name, (about->>'bytes')::bigint),
    'chunk_bytes', odin._chunk_bytes(), 'max_bytes', odin._max_file_bytes(org));
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN jsonb_build_object('ok', false, 'error', odin._error_of(jsonb_build_object('sqlstate', state, 'message', said, 'detail', detail, 'hint', hint), coalesce((p.k).role_name, '')));
END $f$;
COMMENT ON FUNCTION odin.gateway_upload_begin(text, jsonb, jsonb) IS 'Opens an upload for a key: {"name", "bytes"?}. The tool finish_upload ends it.';

CREATE OR REPLACE FUNCTION odin.gateway_upload_chunk(credential text, upload bigint, n int, data bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  state text; said text; detail text; hint text;
BEGIN
  p := odin._principal(credential, '{}');
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  PERFORM odin._blob_append(upload, (p.k).role_name, n, data);
  RETURN '{"ok": true}';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN jsonb_build_object('ok', false, 'error', odin._error_of(jsonb_build_object('sqlstate', state, 'message', said, 'detail', detail, 'hint', hint), coalesce((p.k).role_name, '')));
END $f$;
COMMENT ON FUNCTION odin.gateway_upload_chunk(text, bigint, int, bytea) IS 'The next chunk of an upload, numbered from 0.';

-- An upload that broke off leaves nothing.
CREATE OR REPLACE FUNCTION odin.gateway_upload_abort(credential text, upload bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, '{}');
  DELETE FROM odin_private.blobs b WHERE b.id = upload AND b.role_name = (p.k).role_name AND b.state = 'open';
  RETURN jsonb_build_object('ok', FOUND);
END $f$;
COMMENT ON FUNCTION odin.gateway_upload_abort(text, bigint) IS 'Forgets an open upload of a key.';

-- The file behind a ticket. The ticket was given out with a file row that its caller could see.
CREATE OR REPLACE FUNCTION odin.gateway_file(ticket text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t jsonb := odin._unseal(ticket);
  file record;
BEGIN
  IF t IS NULL OR t->>'k' <> 'file' OR (t->>'x')::bigint < extract(epoch FROM clock_timestamp()) THEN
    RETURN jsonb_build_object('ok', false, 'error', odin._error('link_expired', 'this download link is too old or was altered'));
  END IF;
  SELECT f.sha256, f.bytes, f.name, f.kind, odin._blob_object(f.blob_id) AS object INTO file FROM odin.files f WHERE f.id = (t->>'f')::bigint AND left(f.sha256, 16) = t->>'s';
  IF NOT FOUND THEN
    RETURN jsonb_build_object('ok', false, 'error', odin._error('file_not_found', 'the file is no longer there'));
  END IF;
  RETURN jsonb_build_object('ok', true, 'sha256', file.sha256, 'bytes', file.bytes, 'name', file.name, 'kind', file.kind, 'object', file.object);
END $f$;
COMMENT ON FUNCTION odin.gateway_file(text) IS 'The file a sealed ticket is for: hash, size, name, and its object where its bytes are outside.';

CREATE OR REPLACE FUNCTION odin.gateway_file_read(ticket text, "offset" bigint, length int) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t jsonb := odin._unseal(ticket);
BEGIN
  -- A download that began in time may take an hour longer.
  IF t IS NULL OR t->>'k' <> 'file' OR (t->>'x')::bigint + 3600 < extract(epoch FROM clock_timestamp()) THEN RETURN NULL; END IF;
  RETURN (SELECT odin._blob_read(f.blob_id, "offset", length) FROM odin.files f WHERE f.id = (t->>'f')::bigint AND left(f.sha256, 16) = t->>'s');
END $f$;
COMMENT ON FUNCTION odin.gateway_file_read(text, bigint, int) IS 'Bytes of the file a sealed ticket is for, at most 8 MiB at once.';

-- Workers see all orgs: they carry the farm's own work.
CREATE OR REPLACE FUNCTION odin.worker_file(sha256 text, org_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('sha256', f.sha256, 'bytes', f.bytes, 'name', f.name, 'kind', f.kind, 'facts', f.facts, 'object', odin._blob_object(f.blob_id))
    FROM odin.files f WHERE f.sha256 = worker_file.sha256 AND (worker_file.org_id IS NULL OR f.org_id = worker_file.org_id) ORDER BY f.id LIMIT 1;
$f$;
COMMENT ON FUNCTION odin.worker_file(text, bigint) IS 'Size, name and facts of a file by SHA-256, and its object where its bytes are outside; NULL if there is none. Give the org where it is known.';

CREATE OR REPLACE FUNCTION odin.worker_read_file(sha256 text, "offset" bigint, length int, org_id bigint DEFAULT NULL) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._blob_read(f.blob_id, "offset", length) FROM odin.files f WHERE f.sha256 = worker_read_file.sha256 AND (worker_read_file.org_id IS NULL OR f.org_id = worker_read_file.org_id) ORDER BY f.id LIMIT 1;
$f$;
COMMENT ON FUNCTION odin.worker_read_file(text, bigint, int, bigint) IS 'Bytes of a file by SHA-256, at most 8 MiB at once; NULL if there is no such file.';

-- A task's own files: opened under its fence, stored only together with its end (odin.worker_finish).
CREATE OR REPLACE FUNCTION odin.worker_upload_begin(task_id text, task_fence bigint, about jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tasks;
BEGIN
  SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND x.fence = task_fence AND x.state = 'working';
  IF NOT FOUND THEN PERFORM odin.fail('task_lost', 'the task is not this worker''s any more'); END IF;
  RETURN jsonb_build_object('upload', odin._blob_begin(t.org_id, t.role_name, (about->>'bytes')::bigint), 'max_bytes', odin._max_file_bytes(t.org_id));
END $f$;
COMMENT ON FUNCTION odin.worker_upload_begin(text, bigint, jsonb) IS 'Opens an upload for a task that is still this worker''s.';

CREATE OR REPLACE FUNCTION odin.worker_upload_chunk(upload bigint, role_name text, n int, data bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._blob_append(upload, role_name, n, data);
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.worker_upload_chunk(bigint, text, int, bytea) IS 'The next chunk of a task''s upload, numbered from 0.';

-- The end of a task that made files, reads or rows: all of it in the transaction that ends the task, or none of it.
-- answer: {"status", "result", "files": [{"upload", "sha256", "path", "origin", "facts"?, "as"?}], "facts"?: {...}, "link"?: {...}}
CREATE OR REPLACE FUNCTION odin.worker_finish(task_id text, task_fence bigint, answer jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tasks;
  item jsonb;
  stored odin.files;
  made jsonb := '{}';
  result jsonb := answer->'result';
BEGIN
  SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND x.fence = task_fence AND x.state = 'working' FOR UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  FOR item IN SELECT * FROM jsonb_array_elements(coalesce(answer->'files', '[]')) LOOP
    SELECT (b.f).* INTO stored FROM odin._blob_store((item->>'upload')::bigint, t.role_name, item->>'sha256', item->>'path', item->>'origin') b;
    UPDATE odin.files x SET facts = coalesce(item->'facts', x.facts), facts_state = CASE WHEN item ? 'facts' THEN 'read' ELSE x.facts_state END,
           license = coalesce(x.license, left(item->>'license', 200)), author = coalesce(x.author, left(item->>'author', 200)), source_url = coalesce(x.source_url, left(item->>'source_url', 2000)),
           made_from_sha256 = coalesce(x.made_from_sha256, item->>'made_from'), thumbnail_sha256 = coalesce(item->>'thumbnail_sha256', x.thumbnail_sha256)
     WHERE x.id = stored.id RETURNING x.* INTO stored;
    made := made || jsonb_build_object(coalesce(item->>'as', item->>'path'), jsonb_build_object('file_id', stored.id, 'sha256', stored.sha256, 'bytes', stored.bytes));
    IF stored.facts_state = 'none' THEN PERFORM odin._read_facts(stored, t.role_name, t.key_id); END IF;
  END LOOP;
  PERFORM odin._task_effect(t, answer, made);
  IF jsonb_typeof(result) = 'object' THEN result := odin._task_result(t, result, made); END IF;
  RETURN odin.worker_report(task_id, task_fence, (answer - 'files' - 'facts' - 'effect') || jsonb_strip_nulls(jsonb_build_object('result', result)));
END $f$;
COMMENT ON FUNCTION odin.worker_finish(text, bigint, jsonb) IS 'Ends a task and stores the files it made, in one transaction. False: the fence is old, nothing was stored.';

-- What ends with a task beside its files: the facts of the file it read, the move of a file.
CREATE OR REPLACE FUNCTION odin._task_effect(t odin.tasks, answer jsonb, made jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF t.kind = 'facts' THEN
    UPDATE odin.files x SET facts_state = CASE WHEN answer ? 'facts' THEN 'read' ELSE 'unreadable' END, facts = answer->'facts',
           facts_problem = CASE WHEN answer ? 'facts' THEN NULL ELSE left(coalesce(answer#>>'{error,detail}', 'it could not be read'), 500) END,
           thumbnail_sha256 = coalesce(made#>>'{thumbnail,sha256}', x.thumbnail_sha256)
     WHERE x.id = (t.arguments->>'file_id')::bigint;
    UPDATE odin.files x SET keep_until = NULL WHERE x.org_id = t.org_id AND x.sha256 = made#>>'{thumbnail,sha256}' AND x.origin = 'thumbnail';
  ELSIF t.kind = 'object' THEN
    PERFORM odin._object_moved(t, answer);
  ELSIF t.kind = 'document' THEN
    PERFORM odin._document_read(t, answer);
  END IF;
END $f$;

-- Hashes, sizes and links of the stored files, put into the result where it names them.
CREATE OR REPLACE FUNCTION odin._task_result(t odin.tasks, result jsonb, made jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files;
BEGIN
  IF made ? 'gcode' THEN
    SELECT * INTO f FROM odin.files x WHERE x.id = (made#>>'{gcode,file_id}')::bigint;
    result := result || jsonb_build_object('file_id', f.id, 'gcode_sha256', f.sha256, 'gcode_size_bytes', f.bytes, 'uri', 'odin://files/' || f.sha256, 'download_url', odin._file_url(f, 60));
  END IF;
  IF jsonb_typeof(result->'files') = 'array' THEN
    result := result || jsonb_build_object('files', (SELECT coalesce(jsonb_agg(e || CASE WHEN made ? (e->>'path') THEN jsonb_build_object('file_id', made#>ARRAY[e->>'path', 'file_id'], 'sha256', made#>ARRAY[e->>'path', 'sha256'],
      'uri', 'odin://files/' || (made#>>ARRAY[e->>'path', 'sha256'])) ELSE '{}' END ORDER BY n), '[]') FROM jsonb_array_elements(result->'files') WITH ORDINALITY x(e, n)));
  END IF;
  RETURN result;
END $f$;

GRANT EXECUTE ON FUNCTION odin.gateway_upload_begin(text, jsonb, jsonb), odin.gateway_upload_chunk(text, bigint, int, bytea), odin.gateway_upload_abort(text, bigint),
  odin.gateway_file(text), odin.gateway_file_read(text, bigint, int) TO odin_gateway;
GRANT EXECUTE ON FUNCTION odin.worker_file(text, bigint), odin.worker_read_file(text, bigint, int, bigint), odin.worker_upload_begin(text, bigint, jsonb),
  odin.worker_upload_chunk(bigint, text, int, bytea), odin.worker_finish(text, bigint, jsonb) TO odin_worker;
