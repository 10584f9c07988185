-- Tools on files: put a small one in, list, look at one, drop one; and the file as a resource.
-- A tool never touches a disk: names are names inside the store.

CREATE OR REPLACE FUNCTION odin._file_view(f odin.files) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_strip_nulls(jsonb_build_object('id', f.id, 'sha256', f.sha256, 'name', f.name, 'kind', f.kind, 'bytes', f.bytes, 'uri', 'odin://files/' || f.sha256,
    'paths', (SELECT jsonb_agg(n.path ORDER BY n.path) FROM odin.file_names n WHERE n.org_id = f.org_id AND n.file_id = f.id),
    'license', f.license, 'author', f.author, 'source_url', f.source_url, 'made_from_sha256', f.made_from_sha256,
    'thumbnail_sha256', coalesce(f.thumbnail_sha256, (SELECT x.thumbnail_sha256 FROM odin.files x WHERE x.org_id = f.org_id AND x.sha256 = f.made_from_sha256)),
    'facts_state', f.facts_state, 'facts', f.facts, 'facts_problem', f.facts_problem, 'created_by', f.created_by, 'created_at', f.created_at, 'keep_until', f.keep_until,
    'stored_in', CASE WHEN odin._blob_object(f.blob_id) IS NULL THEN 'postgresql' ELSE 'object_store' END));
$f$;

CREATE OR REPLACE FUNCTION odin.upload_file(name text, content_base64 text, license text DEFAULT NULL, author text DEFAULT NULL, source_url text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  data bytea;
  blob bigint;
  stored record;
BEGIN
  BEGIN
    data := decode(regexp_replace(upload_file.content_base64, '^data:[^,]*,', ''), 'base64');
  EXCEPTION WHEN invalid_parameter_value THEN
    PERFORM odin.fail('validation_failed', 'content_base64: this is not base64', NULL, '{"field": "content_base64"}');
  END;
  IF octet_length(data) = 0 THEN PERFORM odin.fail('validation_failed', 'content_base64: the file is empty', NULL, '{"field": "content_base64"}'); END IF;
  blob := odin._blob_begin(org, odin.actor(), octet_length(data));
  FOR i IN 0..(octet_length(data) - 1) / odin._chunk_bytes() LOOP
    PERFORM odin._blob_append(blob, odin.actor(), i, substring(data FROM i * odin._chunk_bytes() + 1 FOR odin._chunk_bytes()));
  END LOOP;
  SELECT * INTO stored FROM odin._blob_store(blob, odin.actor(), encode(sha256(data), 'hex'), upload_file.name, 'upload');
  RETURN odin._file_arrived(stored.f, stored.duplicate, license, author, source_url);
END $f$;
COMMENT ON FUNCTION odin.upload_file(text, text, text, text, text) IS 'Puts a small file (up to 1.5 MB) into the store: a model (STL, 3MF, OBJ) or G-code, as base64. Larger files go by HTTP: PUT /files/NAME with the same key. The answer has sha256 and id; both, and the name, are accepted by slicing and inspection tools. The same content is stored once.';

CREATE OR REPLACE FUNCTION odin._file_arrived(f odin.files, duplicate boolean, license text, author text, source_url text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  UPDATE odin.files x SET license = coalesce(_file_arrived.license, x.license), author = coalesce(_file_arrived.author, x.author), source_url = coalesce(_file_arrived.source_url, x.source_url)
   WHERE x.id = f.id RETURNING * INTO f;
  PERFORM odin._read_facts(f, odin.actor(), odin.call_key());
  PERFORM odin.would(jsonb_build_object('action', 'upload_file', 'name', f.name, 'bytes', f.bytes, 'sha256', f.sha256));
  IF f.kind IN ('stl', '3mf', 'obj') THEN
    PERFORM odin.suggest('cura_slice_model', jsonb_build_object('model_path', f.sha256), 'slice it to G-code');
    PERFORM odin.suggest('inspect_model', jsonb_build_object('file', f.sha256), 'see size, volume and a picture first');
  ELSIF f.kind IN ('gcode', 'gcode_3mf', 'bgcode') THEN
    PERFORM odin.suggest('create_model_from_file', jsonb_build_object('file', f.sha256), 'make it a model that jobs can be queued from');
  END IF;
  RETURN jsonb_build_object('id', f.id, 'sha256', f.sha256, 'name', f.name, 'kind', f.kind, 'bytes', f.bytes, 'duplicate', duplicate, 'uri', 'odin://files/' || f.sha256);
END $f$;

-- The last step of PUT /files, as a tool so that it has all the checks and the trail of one.
CREATE OR REPLACE FUNCTION odin.finish_upload(upload bigint, sha256 text, name text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  stored record;
BEGIN
  SELECT * INTO stored FROM odin._blob_store(upload, odin.actor(), finish_upload.sha256, finish_upload.name, 'upload');
  RETURN odin._file_arrived(stored.f, stored.duplicate, NULL, NULL, NULL);
END $f$;
COMMENT ON FUNCTION odin.finish_upload(bigint, text, text) IS 'Ends an upload that was begun with PUT /files; the sidecar calls it. To put a file in yourself use upload_file.';

CREATE OR REPLACE FUNCTION odin.list_files(kind_filter text DEFAULT NULL, search text DEFAULT NULL, "limit" int DEFAULT 50, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, sha256 text, name text, kind text, bytes bigint, license text, author text, source_url text, made_from_sha256 text, thumbnail_sha256 text,
  print_seconds int, grams numeric, facts_state text, created_by text, created_at timestamptz, keep_until timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before bigint := (odin.cursor_decode(list_files.cursor)->>0)::bigint;
BEGIN
  RETURN QUERY
    SELECT f.id, f.sha256, f.name, f.kind, f.bytes, f.license, f.author, f.source_url, f.made_from_sha256, f.thumbnail_sha256,
           (f.facts->>'print_seconds')::numeric::int, (f.facts->>'grams')::numeric, f.facts_state, f.created_by, f.created_at, f.keep_until
      FROM odin.files f
     WHERE f.org_id = ANY (ARRAY(SELECT odin.orgs_of(current_user))) AND (list_files.kind_filter IS NULL OR f.kind = list_files.kind_filter) AND (before IS NULL OR f.id < before)
       AND (list_files.search IS NULL OR EXISTS (SELECT 1 FROM odin.file_names n WHERE n.org_id = f.org_id AND n.file_id = f.id AND position(lower(list_files.search) IN lower(n.path)) > 0))
     ORDER BY f.id DESC LIMIT list_files."limit";
END $f$;
COMMENT ON FUNCTION odin.list_files(text, text, int, text) IS 'Lists files in the store, newest first: models (stl, 3mf, obj), G-code, pictures. grams and print_seconds are of G-code. Use get_file for one file with its full facts and a download link.';

CREATE OR REPLACE FUNCTION odin.get_file(file text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files := odin._find_file(odin.my_org(), file);
BEGIN
  RETURN odin._file_view(f) || jsonb_build_object('download_url', odin._file_url(f),
    'used_by', (SELECT coalesce(jsonb_agg(jsonb_build_object('used_by', u.used_by, 'id', u.id)), '[]') FROM (SELECT * FROM odin.file_uses x WHERE x.org_id = f.org_id AND x.sha256 = f.sha256 LIMIT 50) u));
END $f$;
COMMENT ON FUNCTION odin.get_file(text) IS 'Shows one file: what it says (time, grams per tool, size), licence and source, what uses it, and download_url, a link good for 15 minutes without a key. file is a SHA-256, an id or a name in the store.';

CREATE OR REPLACE FUNCTION odin.delete_file(file text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files := odin._find_file(odin._new_in(), file);
  uses text := (SELECT string_agg(u.used_by || ' ' || u.id, ', ') FROM (SELECT * FROM odin.file_uses x WHERE x.org_id = f.org_id AND x.sha256 = f.sha256 LIMIT 5) u);
BEGIN
  IF uses IS NOT NULL THEN
    PERFORM odin.fail('in_use', format('file: %s is used by %s', f.name, uses), NULL, '{"field": "file"}');
  END IF;
  PERFORM odin.would(jsonb_build_object('action', 'delete_file', 'name', f.name, 'sha256', f.sha256));
  PERFORM odin._drop_file(f);
  RETURN jsonb_build_object('deleted', true, 'id', f.id, 'sha256', f.sha256, 'name', f.name);
END $f$;
COMMENT ON FUNCTION odin.delete_file(text) IS 'Removes a file that no model, revision or picture uses. It cannot be brought back.';

-- For MCP clients that read resources: the bytes of a small file.
CREATE OR REPLACE FUNCTION odin.resource_file(sha256 text) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files := odin._find_file(odin.my_org(), resource_file.sha256, 'uri');
BEGIN
  IF f.bytes > 2097152 THEN
    PERFORM odin.fail('request_too_large', format('the file has %s bytes; as a resource only 2 MiB are given', f.bytes), 'Use download_url of get_file.');
  END IF;
  RETURN odin._blob_read(f.blob_id, 0, f.bytes::int);
END $f$;
COMMENT ON FUNCTION odin.resource_file(text) IS 'A file of the store up to 2 MiB, by SHA-256; larger ones by the download_url of get_file.';

GRANT EXECUTE ON FUNCTION odin.list_files(text, text, int, text), odin.get_file(text), odin.resource_file(text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.upload_file(text, text, text, text, text), odin.finish_upload(bigint, text, text), odin.delete_file(text) TO odin_operator;
