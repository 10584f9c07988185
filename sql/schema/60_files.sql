-- Files by content: one row per SHA-256 and org, names beside it, the bytes in chunks.
-- No path on anybody's disk is ever stored or followed; a name is only a name inside the store.

CREATE TABLE odin_private.blobs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint NOT NULL REFERENCES odin.orgs ON DELETE CASCADE,
  role_name text NOT NULL,
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'stored')),
  chunks int NOT NULL DEFAULT 0 CHECK (chunks >= 0),
  bytes bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
  made_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);
CREATE INDEX blobs_open ON odin_private.blobs (made_at) WHERE state = 'open';
CREATE INDEX blobs_org ON odin_private.blobs (org_id);
COMMENT ON TABLE odin_private.blobs IS 'The bytes of a file: open while it is being uploaded, then never changed.';

CREATE TABLE odin_private.file_chunks (
  blob_id bigint NOT NULL REFERENCES odin_private.blobs ON DELETE CASCADE,
  n int NOT NULL CHECK (n >= 0),
  data bytea NOT NULL CHECK (octet_length(data) BETWEEN 1 AND 1048576),
  PRIMARY KEY (blob_id, n)
);
-- Models and G-code in archives are compressed already, and plain slices of a value are read without unpacking it.
ALTER TABLE odin_private.file_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE odin_private.file_chunks IS 'Pieces of 1 MiB, the last one shorter; so a place in a file is a division away.';

CREATE TABLE odin.files (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint NOT NULL REFERENCES odin.orgs,
  sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  bytes bigint NOT NULL CHECK (bytes > 0),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  kind text NOT NULL CHECK (kind IN ('stl', '3mf', 'obj', 'step', 'amf', 'ply', 'gcode', 'bgcode', 'gcode_3mf', 'image', 'other')),
  blob_id bigint NOT NULL UNIQUE REFERENCES odin_private.blobs,
  origin text NOT NULL DEFAULT 'upload' CHECK (origin IN ('upload', 'slice', 'download', 'thumbnail')),
  facts jsonb CHECK (jsonb_typeof(facts) = 'object'),
  facts_state text NOT NULL DEFAULT 'none' CHECK (facts_state IN ('none', 'waiting', 'read', 'unreadable')),
  facts_problem text,
  thumbnail_sha256 text CHECK (thumbnail_sha256 ~ '^[0-9a-f]{64}$'),
  license text CHECK (length(license) <= 200),
  author text CHECK (length(author) <= 200),
  source_url text CHECK (length(source_url) <= 2000),
  made_from_sha256 text CHECK (made_from_sha256 ~ '^[0-9a-f]{64}$'),
  created_by text NOT NULL DEFAULT current_user,
  created_at timestamptz NOT NULL DEFAULT now(),
  keep_until timestamptz DEFAULT now() + interval '30 days',
  UNIQUE (org_id, id),
  CONSTRAINT files_content_key UNIQUE (org_id, sha256)
);
COMMENT ON TABLE odin.files IS 'Files of an org by content (SHA-256): models, G-code, pictures. The same content is stored once.';
COMMENT ON COLUMN odin.files.facts IS 'What reading the file told: print time, grams and millimetres per tool, layers, size, or triangles and volume of a model.';
COMMENT ON COLUMN odin.files.keep_until IS 'After this a file that no model, revision or job uses is removed; NULL = kept.';
COMMENT ON COLUMN odin.files.license IS 'Licence of the design, as its source states it; models made from the file inherit it.';
COMMENT ON COLUMN odin.files.made_from_sha256 IS 'The model a G-code file was sliced from.';
CREATE INDEX files_list ON odin.files (org_id, kind, id);
CREATE INDEX files_expire ON odin.files (keep_until) WHERE keep_until IS NOT NULL;
CREATE INDEX files_from ON odin.files (org_id, made_from_sha256) WHERE made_from_sha256 IS NOT NULL;

CREATE TABLE odin.file_names (
  org_id bigint NOT NULL REFERENCES odin.orgs,
  path text NOT NULL CHECK (length(path) BETWEEN 1 AND 400 AND path !~ '(^|/)\.{0,2}(/|$)' AND path !~ '[[:cntrl:]\\]'),
  file_id bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, path),
  CONSTRAINT file_names_file_fk FOREIGN KEY (org_id, file_id) REFERENCES odin.files (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.file_names IS 'Names inside the store, as folder/name.stl; the newest file of a name has it.';
CREATE INDEX file_names_file ON odin.file_names (org_id, file_id);

SELECT odin.guard_table('odin.files');
SELECT odin.guard_table('odin.file_names', trail => false);
GRANT SELECT ON odin.files, odin.file_names TO odin_viewer;
-- What a file is follows from its bytes; people decide only how long it stays and whose design it is.
GRANT UPDATE (keep_until, license, author, source_url) ON odin.files TO odin_operator;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('file_not_found', 'OD600', 404, false, 'No such file in the store.', 'Call list_files; send a file with PUT /files/NAME or upload_file.'),
  ('file_too_large', 'OD601', 413, false, 'The file is larger than the org allows.', 'An administrator sets max_file_mb in odin.orgs.settings.'),
  ('file_corrupt', 'OD602', 422, false, 'The bytes do not have the SHA-256 that was announced.', 'Send the file again.'),
  ('upload_not_found', 'OD603', 404, false, 'No such open upload of this caller.', 'Begin the upload again.'),
  ('store_full', 'OD604', 507, false, 'The org''s files would take more room than it has.', 'Remove files, or an administrator sets max_store_mb in odin.orgs.settings.'),
  ('link_expired', 'OD605', 410, false, 'This download link is too old or was altered.', 'Ask for a new one with get_file.'),
  ('file_unreadable', 'OD606', 422, false, 'The file is not what its name says, or is damaged.', NULL),
  ('egress_refused', 'OD607', 403, false, 'The sidecar may not go to this address.', 'The operator adds the host to ODIN_EGRESS_ALLOW, or the farm''s own network to ODIN_EGRESS_PRIVATE.');
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('file_names_path_check', 'validation_failed', 'A name in the store has no empty, . or .. parts, no backslash and at most 400 characters.', NULL);
INSERT INTO odin.toolsets(name, description) VALUES
  ('models', 'Files, model sites and slicing: from a search to G-code.');
