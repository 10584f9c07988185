-- The file store at work: bytes come in chunks, are checked against their SHA-256, and become a file of one org.
-- Nobody reaches bytes without a row-level check of the file row, or a sealed ticket that such a check gave out.

CREATE OR REPLACE FUNCTION odin._chunk_bytes() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $f$ SELECT 1048576 $f$;

CREATE OR REPLACE FUNCTION odin._max_file_bytes(org bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT (odin._setting(org, 'max_file_mb', '1024')::numeric * 1048576)::bigint;
$f$;

-- What a file is for, from its name alone; its bytes are judged by the reader.
CREATE OR REPLACE FUNCTION odin._file_kind(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE
    WHEN name ~* '\.gcode\.3mf$' THEN 'gcode_3mf'
    WHEN name ~* '\.(stl|3mf|obj|amf|ply|bgcode)$' THEN lower(substring(name FROM '\.([^.]+)$'))
    WHEN name ~* '\.(step|stp)$' THEN 'step'
    WHEN name ~* '\.(gcode|gco|g)$' THEN 'gcode'
    WHEN name ~* '\.(png|jpe?g|webp|gif)$' THEN 'image'
    ELSE 'other' END;
$f$;

-- A name as it may stand in the store: separators of other systems, leading slashes and control characters gone.
CREATE OR REPLACE FUNCTION odin._store_path(wanted text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  clean text := btrim(regexp_replace(translate(coalesce(wanted, ''), '\', '/'), '[[:cntrl:]]', '', 'g'), ' /');
BEGIN
  IF clean = '' OR length(clean) > 400 OR clean ~ '(^|/)\.{1,2}(/|$)' OR clean ~ '//' OR length(regexp_replace(clean, '^.*/', '')) > 255 THEN
    PERFORM odin.fail('validation_failed', format('name: %s is no name for a file in the store', left(quote_literal(coalesce(wanted, '')), 100)),
      'Use a plain name like bracket.stl or folder/bracket.stl, without .. in it.', '{"field": "name"}');
  END IF;
  RETURN clean;
END $f$;

-- Opens a blob. Refuses at once what would not fit.
CREATE OR REPLACE FUNCTION odin._blob_begin(org bigint, owner text, announced bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made bigint;
  most bigint := odin._max_file_bytes(org);
  most_kept numeric := odin._setting(org, 'max_store_mb', NULL)::numeric * 1048576;
  room numeric;
BEGIN
  IF most_kept IS NOT NULL THEN
    room := most_kept - (SELECT coalesce(sum(b.bytes), 0) FROM odin_private.blobs b WHERE b.org_id = org);
  END IF;
  IF announced > most THEN
    PERFORM odin.fail('file_too_large', format('the file has %s bytes; this org takes at most %s', announced, most), NULL, jsonb_build_object('bytes', announced, 'max_bytes', most));
  ELSIF room < coalesce(announced, 1) THEN
    PERFORM odin.fail('store_full', format('the org has %s bytes left for files', greatest(0, trunc(room))));
  END IF;
  INSERT INTO odin_private.blobs(org_id, role_name) VALUES (org, owner) RETURNING id INTO made;
  RETURN made;
END $f$;

-- The next chunk; all but the last have the full size, so a place in the file is a division away.
CREATE OR REPLACE FUNCTION odin._blob_append(blob bigint, owner text, n int, data bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  b odin_private.blobs;
BEGIN
  SELECT * INTO b FROM odin_private.blobs x WHERE x.id = blob AND x.role_name = owner AND x.state = 'open' FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM odin.fail('upload_not_found', 'there is no such open upload');
  ELSIF n <> b.chunks OR b.bytes <> b.chunks::bigint * odin._chunk_bytes() OR octet_length(data) NOT BETWEEN 1 AND odin._chunk_bytes() THEN
    PERFORM odin.fail('validation_failed', format('chunk %s does not follow: chunks come in order and have %s bytes, the last one less', n, odin._chunk_bytes()));
  ELSIF b.bytes + octet_length(data) > odin._max_file_bytes(b.org_id) THEN
    PERFORM odin.fail('file_too_large', format('this org takes files of at most %s bytes', odin._max_file_bytes(b.org_id)), NULL, jsonb_build_object('max_bytes', odin._max_file_bytes(b.org_id)));
  END IF;
  INSERT INTO odin_private.file_chunks VALUES (blob, n, data);
  UPDATE odin_private.blobs x SET chunks = x.chunks + 1, bytes = x.bytes + octet_length(data) WHERE x.id = blob;
END $f$;

-- Ends an upload: a new file, or the one that is there already. Up to 64 MB the hash is taken here; beyond, by the
-- sidecar that streamed the bytes (it can only spoil its own org's file).
CREATE OR REPLACE FUNCTION odin._blob_store(blob bigint, owner text, sha256 text, path text, origin text, OUT f odin.files, OUT duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  b odin_private.blobs;
  clean text := odin._store_path(path);
BEGIN
  SELECT * INTO b FROM odin_private.blobs x WHERE x.id = blob AND x.role_name = owner AND x.state = 'open' FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM odin.fail('upload_not_found', 'there is no such open upload');
  ELSIF b.bytes = 0 THEN
    PERFORM odin.fail('validation_failed', 'the file is empty', NULL, '{"field": "content"}');
  ELSIF b.bytes <= 67108864
        AND _blob_store.sha256 <> (SELECT encode(pg_catalog.sha256(string_agg(c.data, ''::bytea ORDER BY c.n)), 'hex') FROM odin_private.file_chunks c WHERE c.blob_id = b.id) THEN
    PERFORM odin.fail('file_corrupt', 'the bytes that arrived do not have this SHA-256');
  END IF;
  -- Two uploads of the same content: the later one waits here and finds the first.
  PERFORM pg_advisory_xact_lock(hashtextextended(b.org_id || _blob_store.sha256, 6001));
  -- One that is being removed at this moment is waited for, and then not found.
  SELECT * INTO f FROM odin.files x WHERE x.org_id = b.org_id AND x.sha256 = _blob_store.sha256 FOR UPDATE;
  duplicate := FOUND;
  IF duplicate THEN
    DELETE FROM odin_private.blobs x WHERE x.id = b.id;
    UPDATE odin.files x SET keep_until = greatest(x.keep_until, now() + interval '30 days') WHERE x.id = f.id;
  ELSE
    UPDATE odin_private.blobs x SET state = 'stored' WHERE x.id = b.id;
    INSERT INTO odin.files(org_id, sha256, bytes, name, kind, blob_id, origin, created_by)
    VALUES (b.org_id, _blob_store.sha256, b.bytes, regexp_replace(clean, '^.*/', ''), odin._file_kind(clean), b.id, coalesce(_blob_store.origin, 'upload'), owner)
    RETURNING * INTO f;
    PERFORM odin._plan_objects(b.org_id, f.id);
  END IF;
  INSERT INTO odin.file_names(org_id, path, file_id) VALUES (b.org_id, clean, f.id)
  ON CONFLICT ON CONSTRAINT file_names_pkey DO UPDATE SET file_id = excluded.file_id, created_at = now() WHERE file_names.file_id <> excluded.file_id;
  NOTIFY odin_resources;
END $f$;

-- Bytes of a file from any place, at most 8 MiB at once. Those in an object store are out of reach here, and that is said.
CREATE OR REPLACE FUNCTION odin._blob_read(blob bigint, "offset" bigint, length int) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF EXISTS (SELECT 1 FROM odin_private.objects o WHERE o.blob_id = blob AND o.state = 'kept') THEN
    PERFORM odin.fail('file_outside', 'the bytes of this file are in the object store, out of SQL''s reach');
  END IF;
  RETURN (SELECT coalesce(string_agg(CASE WHEN octet_length(c.data) = r.upto - r.fro AND r.fro = 0 THEN c.data ELSE substring(c.data FROM r.fro + 1 FOR r.upto - r.fro) END, ''::bytea ORDER BY c.n), '')
    FROM odin_private.file_chunks c,
         LATERAL (SELECT greatest(0, "offset" - c.n::bigint * 1048576)::int AS fro, least(1048576, "offset" + least(length, 8388608) - c.n::bigint * 1048576)::int AS upto) r
   WHERE c.blob_id = blob AND c.n BETWEEN "offset" / 1048576 AND ("offset" + least(length, 8388608) - 1) / 1048576 AND length > 0 AND "offset" >= 0);
END $f$;

-- The file somebody means: its SHA-256, its number, odin://files/SHA-256, or a name in the store (exact, else the newest that ends so).
CREATE OR REPLACE FUNCTION odin._find_file(org bigint, wanted text, field text DEFAULT 'file') RETURNS odin.files
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files;
  key text := lower(regexp_replace(btrim(wanted), '^(odin://files/|/files/|sha256:)', ''));
  said text := btrim(translate(wanted, '\', '/'), ' /');
BEGIN
  IF key ~ '^[0-9a-f]{64}$' THEN
    SELECT * INTO f FROM odin.files x WHERE x.org_id = org AND x.sha256 = key;
  ELSE
    SELECT x.* INTO f FROM odin.file_names n JOIN odin.files x ON x.id = n.file_id WHERE n.org_id = org AND n.path = said;
    IF NOT FOUND THEN
      SELECT x.* INTO f FROM odin.file_names n JOIN odin.files x ON x.id = n.file_id
       WHERE n.org_id = org AND (lower(n.path) = lower(said) OR right(lower(n.path), length(said) + 1) = '/' || lower(said)) ORDER BY n.created_at DESC LIMIT 1;
    END IF;
    IF f.id IS NULL AND key ~ '^[0-9]{1,15}$' THEN
      SELECT * INTO f FROM odin.files x WHERE x.org_id = org AND x.id = key::bigint;
    END IF;
  END IF;
  IF f.id IS NULL THEN
    PERFORM odin.fail('file_not_found', format('%s: there is no file %s in the store', field, left(wanted, 200)), NULL, jsonb_build_object('field', field));
  END IF;
  RETURN f;
END $f$;

-- Has the sidecar read what the file says; once per content.
CREATE OR REPLACE FUNCTION odin._read_facts(f odin.files, owner text, owner_key bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF f.facts_state <> 'none' OR f.kind NOT IN ('stl', '3mf', 'obj', 'gcode', 'gcode_3mf') THEN RETURN; END IF;
  UPDATE odin.files x SET facts_state = 'waiting' WHERE x.id = f.id;
  PERFORM odin._new_task('facts', owner, owner_key, NULL, jsonb_build_object('file_id', f.id, 'sha256', f.sha256, 'kind', f.kind, 'bytes', f.bytes, 'name', f.name),
    '{"priority": 30, "message": "reading the file"}');
END $f$;

-- A link that needs no key: sealed, for one file, for some minutes.
CREATE OR REPLACE FUNCTION odin._file_ticket(f odin.files, minutes int DEFAULT 15) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._seal(jsonb_build_object('k', 'file', 'f', f.id, 's', left(f.sha256, 16), 'x', extract(epoch FROM clock_timestamp())::bigint + minutes * 60));
$f$;

CREATE OR REPLACE FUNCTION odin._file_url(f odin.files, minutes int DEFAULT 15) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT rtrim(odin._setting(f.org_id, 'public_url', ''), '/') || '/files/' || f.sha256 || '?ticket=' || odin._file_ticket(f, minutes);
$f$;

-- Everything that keeps a file. A file nobody refers to goes when its time is over.
CREATE OR REPLACE VIEW odin.file_uses WITH (security_invoker = true) AS
  SELECT org_id, sha256, 'model_file' AS used_by, model_id AS id FROM odin.model_files
  UNION ALL SELECT org_id, file_sha256, 'revision', id FROM odin.model_revisions WHERE file_sha256 IS NOT NULL
  UNION ALL SELECT org_id, thumbnail_sha256, 'thumbnail', id FROM odin.models WHERE thumbnail_sha256 IS NOT NULL
  UNION ALL SELECT org_id, thumbnail_sha256, 'picture_of', id FROM odin.files WHERE thumbnail_sha256 IS NOT NULL;
COMMENT ON VIEW odin.file_uses IS 'What refers to a file of the store, by org and SHA-256.';

CREATE OR REPLACE FUNCTION odin._drop_file(f odin.files) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  DELETE FROM odin.files x WHERE x.id = f.id;
  DELETE FROM odin_private.blobs b WHERE b.id = f.blob_id;
END $f$;

-- For the clock: unfinished uploads of yesterday, and files whose time is over and that nothing uses. A few at a time.
CREATE OR REPLACE FUNCTION odin._collect_files() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files;
  n int := 0;
BEGIN
  DELETE FROM odin_private.blobs b WHERE b.id = ANY (ARRAY(SELECT x.id FROM odin_private.blobs x WHERE x.state = 'open' AND x.made_at < clock_timestamp() - interval '1 day' ORDER BY x.made_at LIMIT 20));
  FOR f IN SELECT * FROM odin.files x WHERE x.keep_until < now() ORDER BY x.keep_until LIMIT 20 FOR UPDATE SKIP LOCKED LOOP
    IF EXISTS (SELECT 1 FROM odin.file_uses u WHERE u.org_id = f.org_id AND u.sha256 = f.sha256) THEN
      UPDATE odin.files x SET keep_until = now() + interval '7 days' WHERE x.id = f.id;
    ELSE
      PERFORM odin._drop_file(f);
      n := n + 1;
    END IF;
  END LOOP;
  RETURN n;
END $f$;
COMMENT ON FUNCTION odin._collect_files() IS 'Removes abandoned uploads and files that are past keep_until and unused; at most 20 of each per call.';
