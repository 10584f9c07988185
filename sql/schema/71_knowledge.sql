-- Knowledge: documents and the farm's own records in passages, found by words, by spelling and by meaning.
-- Every passage carries its org and is under row-level access like any farm table; a vector is only ever made by a sidecar.
INSERT INTO odin.toolsets VALUES
  ('knowledge', 'The farm''s documents and records: add, list, and search them by words and by meaning.', false);

CREATE TABLE odin.collections (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  name        text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 100),
  description text CHECK (length(description) <= 1000),
  kind        text NOT NULL DEFAULT 'documents' CHECK (kind IN ('documents', 'records')),
  language    text NOT NULL DEFAULT 'english' CHECK (language ~ '^[a-z]{2,30}$'),
  created_by  text NOT NULL DEFAULT current_user,
  created_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT collections_name_key UNIQUE (org_id, name)
);
COMMENT ON TABLE odin.collections IS 'Collections of passages: documents that people add, and one of the farm''s own records that keeps itself up to date.';
COMMENT ON COLUMN odin.collections.language IS 'Text search configuration its words are stemmed with: english, german, simple, ...';

CREATE TABLE odin.documents (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  collection_id bigint NOT NULL,
  title         text NOT NULL CHECK (length(btrim(title)) BETWEEN 1 AND 300),
  format        text NOT NULL CHECK (format IN ('text', 'markdown', 'pdf')),
  url           text CHECK (length(url) <= 2000),
  file_sha256   text CHECK (file_sha256 ~ '^[0-9a-f]{64}$'),
  state         text NOT NULL DEFAULT 'ready' CHECK (state IN ('reading', 'ready', 'unreadable')),
  problem       text CHECK (length(problem) <= 500),
  characters    integer NOT NULL DEFAULT 0 CHECK (characters >= 0),
  passages      integer NOT NULL DEFAULT 0 CHECK (passages >= 0),
  task_id       text,
  added_by      text NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT documents_title_key UNIQUE (collection_id, title),
  CONSTRAINT documents_collection_fk FOREIGN KEY (org_id, collection_id) REFERENCES odin.collections (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.documents IS 'Documents people added: text, Markdown or PDF. Their text is in odin.chunks. The same title in a collection replaces what was there.';
CREATE INDEX documents_org ON odin.documents (org_id, id);

CREATE TABLE odin.chunks (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  collection_id bigint NOT NULL,
  document_id   bigint,
  source        text NOT NULL CHECK (source IN ('document', 'run', 'maintenance', 'model')),
  source_id     bigint NOT NULL,
  n             integer NOT NULL DEFAULT 0 CHECK (n >= 0),
  name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 400),
  content       text NOT NULL CHECK (length(content) BETWEEN 1 AND 8000),
  search        tsvector NOT NULL,
  made_at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT chunks_place UNIQUE (source, source_id, n),
  CONSTRAINT chunks_of_document CHECK ((source = 'document') = (document_id IS NOT NULL)),
  CONSTRAINT chunks_collection_fk FOREIGN KEY (org_id, collection_id) REFERENCES odin.collections (org_id, id) ON DELETE CASCADE,
  CONSTRAINT chunks_document_fk FOREIGN KEY (org_id, document_id) REFERENCES odin.documents (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.chunks IS 'Passages: pieces of documents, failed runs, maintenance notes and models, each with the words it is found by.';
COMMENT ON COLUMN odin.chunks.source_id IS 'The document, run, maintenance_log or model row it was made from.';
CREATE INDEX chunks_search ON odin.chunks USING gin (search) WITH (fastupdate = off);
CREATE INDEX chunks_collection ON odin.chunks (org_id, collection_id);
CREATE INDEX chunks_by_document ON odin.chunks (document_id) WHERE document_id IS NOT NULL;

CREATE TABLE odin.embedding_models (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 2000),
  is_active  boolean NOT NULL DEFAULT true,
  seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  made_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (name, dimensions)
);
CREATE UNIQUE INDEX embedding_models_active ON odin.embedding_models ((true)) WHERE is_active;
COMMENT ON TABLE odin.embedding_models IS 'Models that turned passages into vectors, as the sidecars announced them; one is in use. Another model embeds everything anew.';

DO $d$
DECLARE
  -- pgvector and pg_trgm live where the database's owner put them.
  vectors text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector');
  trigrams text := (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm');
BEGIN
  EXECUTE format('CREATE INDEX chunks_spelling ON odin.chunks USING gin (content %s.gin_trgm_ops) WITH (fastupdate = off)', trigrams);
  EXECUTE format('CREATE TABLE odin.embeddings (
      model_id      bigint NOT NULL REFERENCES odin.embedding_models ON DELETE CASCADE,
      chunk_id      bigint NOT NULL,
      org_id        bigint NOT NULL REFERENCES odin.orgs,
      collection_id bigint NOT NULL,
      embedding     %s.vector NOT NULL,
      PRIMARY KEY (model_id, chunk_id),
      CONSTRAINT embeddings_chunk_fk FOREIGN KEY (org_id, chunk_id) REFERENCES odin.chunks (org_id, id) ON DELETE CASCADE)', vectors);
  EXECUTE format('CREATE TABLE odin_private.tool_embeddings (
      tool_id   bigint PRIMARY KEY REFERENCES odin.tools ON DELETE CASCADE,
      model_id  bigint NOT NULL REFERENCES odin.embedding_models ON DELETE CASCADE,
      told      text NOT NULL,
      embedding %s.vector NOT NULL)', vectors);
END $d$;
CREATE INDEX embeddings_org ON odin.embeddings (org_id, collection_id);
CREATE INDEX embeddings_chunk ON odin.embeddings (org_id, chunk_id);
CREATE INDEX tool_embeddings_model ON odin_private.tool_embeddings (model_id);
COMMENT ON TABLE odin.embeddings IS 'One vector per passage and model; an HNSW index per model. Made by the sidecars, in the background.';
COMMENT ON TABLE odin_private.tool_embeddings IS 'Vectors of what tools say of themselves, for search_tools.';

CREATE TABLE odin_private.embed_queue (
  chunk_id bigint PRIMARY KEY REFERENCES odin.chunks ON DELETE CASCADE,
  due_at   timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0,
  problem  text
);
CREATE INDEX embed_queue_due ON odin_private.embed_queue (due_at);
COMMENT ON TABLE odin_private.embed_queue IS 'Passages that wait for a vector. A sidecar that takes some moves due_at ahead; what it never brings back becomes due again.';

SELECT odin.guard_table('odin.collections');
SELECT odin.guard_table('odin.documents');
SELECT odin.guard_table('odin.chunks', trail => false);
SELECT odin.guard_table('odin.embeddings', trail => false);
GRANT SELECT ON odin.collections, odin.documents, odin.chunks, odin.embedding_models, odin.embeddings TO odin_viewer;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('collection_not_found', 'OD710', 404, false, 'No such collection, or not one this caller may see.', 'Call list_collections.'),
  ('document_not_found', 'OD711', 404, false, 'No such document, or not one this caller may see.', 'Call list_documents.');
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('collections_name_key', 'already_exists', 'A collection with this name exists.', 'Call list_collections.');
