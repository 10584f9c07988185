-- Knowledge: texts cut into passages, documents added and removed, and the farm's own records kept as passages by triggers.
-- Everything here happens in the caller's transaction; what needs a network or a file is a row that a sidecar takes.

-- The schema of an extension, ready to be put into SQL.
CREATE OR REPLACE FUNCTION odin._home_of(extension text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = extension;
$f$;

-- A line longer than a passage, in pieces that end with a sentence or a word.
CREATE OR REPLACE FUNCTION odin._pieces(line text, most int) RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rest text := line;
  cut int;
BEGIN
  WHILE length(rest) > most LOOP
    cut := length(substring(left(rest, most) FROM '^.*[.!?;:]\s'));
    IF coalesce(cut, 0) < most / 3 THEN cut := coalesce(length(substring(left(rest, most) FROM '^.*\s')), most); END IF;
    RETURN NEXT left(rest, cut);
    rest := substr(rest, cut + 1);
  END LOOP;
  RETURN NEXT rest;
END $f$;

-- A text as passages of about `most` characters: headings of Markdown and pages of a PDF (form feeds) begin new ones and name them.
CREATE OR REPLACE FUNCTION odin._passages(body text, format text, most int DEFAULT 1000) RETURNS TABLE(section text, content text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  page record;
  line text;
  piece text;
  held text := '';
  headings text[] := '{}';
  m text[];
  fenced boolean := false;
BEGIN
  FOR page IN SELECT p.text, p.n FROM string_to_table(replace(body, E'\r\n', E'\n'), E'\f') WITH ORDINALITY p(text, n) LOOP
    section := CASE WHEN format = 'pdf' THEN 'page ' || page.n END;
    FOR line IN SELECT l FROM string_to_table(page.text, E'\n') l LOOP
      IF format = 'markdown' AND line ~ '^\s*(```|~~~)' THEN fenced := NOT fenced; END IF;
      m := CASE WHEN format = 'markdown' AND NOT fenced THEN regexp_match(line, '^(#{1,6})\s+(.*?)\s*#*\s*$') END;
      IF m IS NOT NULL OR length(held) + length(line) > most OR (line ~ '^\s*$' AND length(held) > most * 0.6) THEN
        content := btrim(held, E' \n\t');
        held := '';
        IF content <> '' THEN RETURN NEXT; END IF;
      END IF;
      IF m IS NOT NULL THEN
        headings := array_append(headings[1:length(m[1]) - 1], m[2]);
        section := array_to_string(headings, ' > ');
        CONTINUE;
      END IF;
      FOR piece IN SELECT odin._pieces(line, most) LOOP
        IF length(held) + length(piece) > most THEN
          content := btrim(held, E' \n\t');
          held := '';
          IF content <> '' THEN RETURN NEXT; END IF;
        END IF;
        held := held || piece || E'\n';
      END LOOP;
    END LOOP;
    content := btrim(held, E' \n\t');
    held := '';
    IF content <> '' THEN RETURN NEXT; END IF;
  END LOOP;
END $f$;

-- The words a passage is found by; those of its name count more.
CREATE OR REPLACE FUNCTION odin._words_of(language text, name text, content text) RETURNS tsvector
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT setweight(to_tsvector(language::regconfig, name), 'A') || setweight(to_tsvector(language::regconfig, content), 'B');
$f$;

-- Puts the passages of one source in place: unchanged ones stay as they are, changed ones wait for a new vector.
CREATE OR REPLACE FUNCTION odin._put_passages(org bigint, collection bigint, document bigint, source text, source_id bigint, names text[], contents text[]) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  changed bigint[];
BEGIN
  WITH put AS (
    INSERT INTO odin.chunks AS c (org_id, collection_id, document_id, source, source_id, n, name, content, search)
    SELECT org, collection, document, _put_passages.source, _put_passages.source_id, i - 1, left(names[i], 400), contents[i], odin._words_of(k.language, names[i], contents[i])
      FROM generate_subscripts(contents, 1) i, odin.collections k WHERE k.id = collection
    ON CONFLICT ON CONSTRAINT chunks_place DO UPDATE SET name = excluded.name, content = excluded.content, search = excluded.search, collection_id = excluded.collection_id, made_at = clock_timestamp()
     WHERE (c.name, c.content, c.collection_id) IS DISTINCT FROM (excluded.name, excluded.content, excluded.collection_id)
    RETURNING c.id)
  SELECT array_agg(id) INTO changed FROM put;
  DELETE FROM odin.chunks c WHERE c.source = _put_passages.source AND c.source_id = _put_passages.source_id AND c.n >= cardinality(contents);
  IF changed IS NOT NULL AND EXISTS (SELECT 1 FROM odin.embedding_models WHERE is_active) THEN
    DELETE FROM odin.embeddings e WHERE e.org_id = org AND e.chunk_id = ANY (changed);
    INSERT INTO odin_private.embed_queue(chunk_id) SELECT unnest(changed) ON CONFLICT (chunk_id) DO UPDATE SET due_at = now(), attempts = 0, problem = NULL;
    NOTIFY odin_work;
  END IF;
  RETURN cardinality(contents);
END $f$;

-- A collection of the caller's org by name or number.
CREATE OR REPLACE FUNCTION odin._collection(org bigint, said text, field text DEFAULT 'collection') RETURNS odin.collections
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  c odin.collections;
BEGIN
  SELECT * INTO c FROM odin.collections x WHERE x.org_id = org AND (lower(x.name) = lower(btrim(said)) OR x.id::text = btrim(said)) ORDER BY (lower(x.name) = lower(btrim(said))) DESC LIMIT 1;
  IF NOT FOUND THEN
    PERFORM odin.fail('collection_not_found', format('%s: there is no collection %s', field, said),
      coalesce('Did you mean ' || odin._nearest(said, ARRAY(SELECT x.name FROM odin.collections x WHERE x.org_id = org)) || '?', 'Make it with save_collection.'), jsonb_build_object('field', field));
  END IF;
  RETURN c;
END $f$;

CREATE OR REPLACE FUNCTION odin._make_collection(org bigint, wanted text, kind text, about text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  made bigint;
BEGIN
  SELECT id INTO made FROM odin.collections c WHERE c.org_id = org AND c.name = wanted;
  IF NOT FOUND THEN
    INSERT INTO odin.collections(org_id, name, kind, description, created_by) VALUES (org, wanted, _make_collection.kind, about, odin.actor())
    ON CONFLICT ON CONSTRAINT collections_name_key DO UPDATE SET name = excluded.name RETURNING id INTO made;
  END IF;
  RETURN made;
END $f$;

CREATE OR REPLACE FUNCTION odin.save_collection(name text, description text DEFAULT NULL, language text DEFAULT 'english') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  c odin.collections;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_ts_config t WHERE t.cfgname = save_collection.language AND t.cfgnamespace = 'pg_catalog'::regnamespace) THEN
    PERFORM odin.fail('validation_failed', format('language: PostgreSQL has no text search for %s', save_collection.language),
      'One of: ' || (SELECT string_agg(t.cfgname, ', ' ORDER BY t.cfgname) FROM pg_ts_config t WHERE t.cfgnamespace = 'pg_catalog'::regnamespace), '{"field": "language"}');
  END IF;
  INSERT INTO odin.collections AS x (org_id, name, description, language, created_by) VALUES (org, btrim(save_collection.name), save_collection.description, save_collection.language, odin.actor())
  ON CONFLICT ON CONSTRAINT collections_name_key DO UPDATE SET description = coalesce(excluded.description, x.description), language = excluded.language
  RETURNING * INTO c;
  UPDATE odin.chunks h SET search = odin._words_of(c.language, h.name, h.content) WHERE h.org_id = org AND h.collection_id = c.id AND h.search <> odin._words_of(c.language, h.name, h.content);
  PERFORM odin.would(jsonb_build_object('action', 'save_collection', 'name', c.name, 'language', c.language));
  RETURN jsonb_build_object('collection_id', c.id, 'name', c.name, 'description', c.description, 'language', c.language);
END $f$;
COMMENT ON FUNCTION odin.save_collection(text, text, text) IS 'Makes a collection of documents, or changes one''s description or language (english, german, french, simple, ...: how its words are stemmed).';

-- The row of a document that is about to get its text; the same title in the collection is the same document.
CREATE OR REPLACE FUNCTION odin._document(org bigint, collection text, title text, format text, url text, file_sha256 text, state text) RETURNS odin.documents
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  c odin.collections;
  d odin.documents;
BEGIN
  IF lower(btrim(collection)) = 'documents' THEN PERFORM odin._make_collection(org, 'documents', 'documents', 'What people added without naming another collection.'); END IF;
  c := odin._collection(org, collection);
  IF c.kind = 'records' THEN
    PERFORM odin.fail('validation_failed', format('collection: %s is kept by the farm itself', c.name), 'Choose another collection, or leave it out.', '{"field": "collection"}');
  ELSIF length(btrim(coalesce(title, ''))) NOT BETWEEN 1 AND 300 THEN
    PERFORM odin.fail('validation_failed', 'title: must have 1 to 300 characters', NULL, '{"field": "title"}');
  END IF;
  INSERT INTO odin.documents(org_id, collection_id, title, format, url, file_sha256, state, added_by)
  VALUES (org, c.id, btrim(_document.title), _document.format, _document.url, _document.file_sha256, _document.state, odin.actor())
  ON CONFLICT ON CONSTRAINT documents_title_key DO UPDATE SET format = excluded.format, url = excluded.url, file_sha256 = excluded.file_sha256, state = excluded.state, problem = NULL, task_id = NULL, updated_at = now()
  RETURNING * INTO d;
  RETURN d;
END $f$;

-- A document's text becomes its passages.
CREATE OR REPLACE FUNCTION odin._document_text(document bigint, body text) RETURNS odin.documents
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  d odin.documents;
  names text[];
  contents text[];
BEGIN
  SELECT * INTO d FROM odin.documents x WHERE x.id = document FOR UPDATE;
  SELECT coalesce(array_agg(left(concat_ws(': ', d.title, p.section), 400) ORDER BY p.n), '{}'), coalesce(array_agg(p.content ORDER BY p.n), '{}') INTO names, contents
    FROM odin._passages(body, d.format) WITH ORDINALITY p(section, content, n);
  PERFORM odin._put_passages(d.org_id, d.collection_id, d.id, 'document', d.id, names, contents);
  UPDATE odin.documents x SET state = CASE WHEN cardinality(contents) = 0 THEN 'unreadable' ELSE 'ready' END, problem = CASE WHEN cardinality(contents) = 0 THEN 'there is no text in it' END,
         characters = length(body), passages = cardinality(contents), updated_at = now()
   WHERE x.id = document RETURNING * INTO d;
  RETURN d;
END $f$;

CREATE OR REPLACE FUNCTION odin.add_document(title text, content text, collection text DEFAULT 'documents', format text DEFAULT 'markdown', url text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in();
  d odin.documents;
BEGIN
  IF content !~ '\S' THEN PERFORM odin.fail('validation_failed', 'content: there is no text in it', NULL, '{"field": "content"}'); END IF;
  d := odin._document(org, collection, title, format, url, NULL, 'ready');
  d := odin._document_text(d.id, content);
  PERFORM odin.would(jsonb_build_object('action', 'add_document', 'title', d.title, 'passages', d.passages));
  PERFORM odin.suggest('knowledge_retriever', jsonb_build_object('query', d.title), 'find something in it');
  RETURN jsonb_build_object('document_id', d.id, 'collection_id', d.collection_id, 'title', d.title, 'state', d.state, 'passages', d.passages, 'characters', d.characters);
END $f$;
COMMENT ON FUNCTION odin.add_document(text, text, text, text, text) IS 'Adds a text or Markdown document to a collection, so that knowledge_retriever finds it. The same title in the same collection replaces it. Files (PDF, too): add_document_file.';

CREATE OR REPLACE FUNCTION odin.add_document_file(file text, title text DEFAULT NULL, collection text DEFAULT 'documents') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in();
  f odin.files := odin._find_file(org, file);
  form text := CASE WHEN f.name ~* '\.pdf$' THEN 'pdf' WHEN f.name ~* '\.(md|markdown)$' THEN 'markdown' WHEN f.name ~* '\.(txt|text|log|csv|rst)$' THEN 'text' END;
  d odin.documents;
  task text;
BEGIN
  IF form IS NULL THEN
    PERFORM odin.fail('validation_failed', format('file: %s is neither PDF, Markdown nor text', f.name), 'Names end with .pdf, .md or .txt.', '{"field": "file"}');
  END IF;
  d := odin._document(org, collection, coalesce(title, f.name), form, f.source_url, f.sha256, 'reading');
  task := odin.start_task('document', jsonb_build_object('document_id', d.id, 'sha256', f.sha256, 'format', form), 'waiting to be read');
  UPDATE odin.documents x SET task_id = task WHERE x.id = d.id;
  -- A document that uses a file keeps it.
  UPDATE odin.files x SET keep_until = NULL WHERE x.id = f.id;
  PERFORM odin.would(jsonb_build_object('action', 'add_document_file', 'title', d.title, 'file', f.name));
  RETURN jsonb_build_object('document_id', d.id, 'title', d.title, 'task_id', task, 'task_state', 'queued', 'hint', format('The file is being read as task %s; call get_task for its end.', task));
END $f$;
COMMENT ON FUNCTION odin.add_document_file(text, text, text) IS 'Adds a stored file (PDF, Markdown or text; upload it with PUT /files/NAME or upload_file) as a document. A sidecar reads it; the answer comes when it has, or is a task to look at.';

-- The end of reading a file.
CREATE OR REPLACE FUNCTION odin._document_read(t odin.tasks, answer jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  -- Added again meanwhile, or removed: another task's answer counts, or none.
  IF NOT EXISTS (SELECT 1 FROM odin.documents d WHERE d.id = (t.arguments->>'document_id')::bigint AND d.task_id = t.id) THEN RETURN; END IF;
  IF answer#>>'{effect,text}' IS NOT NULL THEN
    PERFORM odin._document_text((t.arguments->>'document_id')::bigint, answer#>>'{effect,text}');
  ELSIF answer->>'status' = 'error' THEN
    UPDATE odin.documents d SET state = 'unreadable', problem = left(coalesce(answer#>>'{error,detail}', 'it could not be read'), 500), updated_at = now() WHERE d.id = (t.arguments->>'document_id')::bigint;
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.remove_document(document_id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  d odin.documents;
BEGIN
  DELETE FROM odin.documents x WHERE x.id = document_id AND odin._may(x.org_id) RETURNING * INTO d;
  IF NOT FOUND THEN PERFORM odin.fail('document_not_found', format('document_id: there is no document %s', document_id), NULL, '{"field": "document_id"}'); END IF;
  PERFORM odin.would(jsonb_build_object('action', 'remove_document', 'document_id', d.id, 'title', d.title));
  RETURN jsonb_build_object('removed', true, 'document_id', d.id, 'title', d.title, 'passages', d.passages);
END $f$;
COMMENT ON FUNCTION odin.remove_document(bigint) IS 'Removes a document and its passages from its collection. A stored file stays in the store.';

CREATE OR REPLACE FUNCTION odin.list_documents(collection text DEFAULT NULL, search text DEFAULT NULL, "limit" int DEFAULT 50, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, title text, collection_id bigint, collection_name text, format text, state text, problem text, passages int, characters int, url text, file_sha256 text, added_by text, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT d.id, d.title, d.collection_id, c.name, d.format,
         CASE WHEN d.state = 'reading' AND NOT coalesce(t.state IN ('queued', 'working', 'completed'), false) THEN 'unreadable' ELSE d.state END,
         CASE WHEN d.state = 'reading' AND NOT coalesce(t.state IN ('queued', 'working', 'completed'), false) THEN coalesce(t.message, 'reading it did not end; add it again') ELSE d.problem END,
         d.passages, d.characters, d.url, d.file_sha256, d.added_by, d.created_at, d.updated_at
    FROM odin.documents d JOIN odin.collections c ON c.id = d.collection_id LEFT JOIN odin.tasks t ON t.id = d.task_id AND d.state = 'reading'
   WHERE (list_documents.collection IS NULL OR lower(c.name) = lower(btrim(list_documents.collection)) OR c.id::text = btrim(list_documents.collection))
     AND (list_documents.search IS NULL OR position(lower(list_documents.search) IN lower(d.title)) > 0)
     AND d.id < coalesce((odin.cursor_decode(cursor)->>0)::bigint, 9223372036854775807)
   ORDER BY d.id DESC LIMIT least(greatest(coalesce("limit", 50), 1), 500);
$f$;
COMMENT ON FUNCTION odin.list_documents(text, text, int, text) IS 'Lists documents, newest first, with how far reading them is: reading, ready or unreadable and why.';

CREATE OR REPLACE FUNCTION odin.get_document(document_id bigint, from_passage int DEFAULT 0, "limit" int DEFAULT 20) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  d record;
  read jsonb;
BEGIN
  SELECT x.*, c.name AS collection_name INTO d FROM odin.documents x JOIN odin.collections c ON c.id = x.collection_id WHERE x.id = document_id;
  IF NOT FOUND THEN PERFORM odin.fail('document_not_found', format('document_id: there is no document %s', document_id), NULL, '{"field": "document_id"}'); END IF;
  SELECT jsonb_agg(jsonb_build_object('n', h.n, 'chunk_id', h.id, 'name', h.name, 'content', h.content) ORDER BY h.n) INTO read
    FROM odin.chunks h WHERE h.document_id = get_document.document_id AND h.n >= from_passage AND h.n < from_passage + least(greatest("limit", 1), 100);
  RETURN jsonb_strip_nulls(jsonb_build_object('document_id', d.id, 'title', d.title, 'collection', d.collection_name, 'state', d.state, 'problem', d.problem, 'url', d.url, 'file_sha256', d.file_sha256,
    'passages', coalesce(read, '[]'), 'passage_count', d.passages, 'note', CASE WHEN d.passages > from_passage + least(greatest("limit", 1), 100) THEN format('There are %s passages; go on with from_passage %s.', d.passages, from_passage + least(greatest("limit", 1), 100)) END));
END $f$;
COMMENT ON FUNCTION odin.get_document(bigint, int, int) IS 'Reads a document passage by passage; from_passage and limit choose which.';

CREATE OR REPLACE FUNCTION odin.list_collections() RETURNS TABLE(id bigint, name text, description text, kind text, language text, documents bigint, passages bigint, without_vector bigint, embedding_model text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT c.id, c.name, c.description, c.kind, c.language, (SELECT count(*) FROM odin.documents d WHERE d.org_id = c.org_id AND d.collection_id = c.id), h.n, h.n - coalesce(e.n, 0), m.name
    FROM odin.collections c LEFT JOIN odin.embedding_models m ON m.is_active,
         LATERAL (SELECT count(*) AS n FROM odin.chunks x WHERE x.org_id = c.org_id AND x.collection_id = c.id) h,
         LATERAL (SELECT count(*) AS n FROM odin.embeddings x WHERE x.org_id = c.org_id AND x.collection_id = c.id AND x.model_id = m.id) e
   ORDER BY c.id;
$f$;
COMMENT ON FUNCTION odin.list_collections() IS 'Lists collections of documents and the farm''s own records, with how many passages they have and how many of these still wait for a vector. embedding_model is empty when the farm searches by words only.';

GRANT EXECUTE ON FUNCTION odin.list_documents(text, text, int, text), odin.get_document(bigint, int, int), odin.list_collections() TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.save_collection(text, text, text), odin.add_document(text, text, text, text, text), odin.add_document_file(text, text, text), odin.remove_document(bigint) TO odin_operator;
