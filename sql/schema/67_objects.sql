-- Object storage: which bucket an org's larger files go to, and which object holds the bytes of which blob.
-- A key is sealed by a sidecar before it gets here. Objects are never overwritten: each move has a name of its own, so that taking one away can never hit another.

CREATE TABLE odin.object_stores (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint NOT NULL REFERENCES odin.orgs ON DELETE CASCADE,
  endpoint text NOT NULL CHECK (endpoint ~ '^https?://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$' AND length(endpoint) <= 300),
  bucket text NOT NULL CHECK (bucket ~ '^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$'),
  region text NOT NULL DEFAULT 'us-east-1' CHECK (region ~ '^[a-z0-9-]{1,40}$'),
  prefix text NOT NULL DEFAULT '' CHECK (prefix ~ '^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*$' AND length(prefix) <= 200),
  path_style boolean NOT NULL DEFAULT true,
  mode text NOT NULL DEFAULT 'on' CHECK (mode IN ('on', 'off', 'back')),
  min_file_mb int NOT NULL DEFAULT 8 CHECK (min_file_mb BETWEEN 2 AND 100000),
  keep_removed_days int NOT NULL DEFAULT 7 CHECK (keep_removed_days BETWEEN 0 AND 3650),
  is_current boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT object_stores_place_key UNIQUE (org_id, endpoint, bucket, prefix)
);
CREATE UNIQUE INDEX object_stores_current ON odin.object_stores (org_id) WHERE is_current;
COMMENT ON TABLE odin.object_stores IS 'S3-compatible buckets of an org. One is current; files in an older one are brought back and go to the current one.';
COMMENT ON COLUMN odin.object_stores.mode IS 'on = larger files go there; back = all files are brought back into PostgreSQL; off = nothing is moved or removed, what is there is read.';
COMMENT ON COLUMN odin.object_stores.min_file_mb IS 'Smaller files stay in PostgreSQL. At least 2, because files up to 2 MiB are also given as MCP resources, by SQL alone.';
COMMENT ON COLUMN odin.object_stores.keep_removed_days IS 'An object nothing needs any more stays so long, so that a dump of the days before still finds its files.';

CREATE TABLE odin_private.object_store_state (
  store_id bigint PRIMARY KEY REFERENCES odin.object_stores ON DELETE CASCADE,
  sealed text NOT NULL CHECK (sealed ~ '^sealed:v1:[A-Za-z0-9_-]{40,}$'),
  set_by text NOT NULL,
  set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  problem text,
  problem_at timestamptz
);
COMMENT ON TABLE odin_private.object_store_state IS 'The sealed access key of a bucket, and what was wrong when it was last used.';

CREATE TABLE odin_private.objects (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  store_id bigint NOT NULL REFERENCES odin.object_stores ON DELETE CASCADE,
  blob_id bigint UNIQUE REFERENCES odin_private.blobs ON DELETE SET NULL,
  key text NOT NULL CHECK (key ~ '^[A-Za-z0-9._/-]+$' AND length(key) <= 500),
  sha256 text NOT NULL,
  bytes bigint NOT NULL,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'kept')),
  upload_id text,
  task_id text,
  free_at timestamptz
);
CREATE INDEX objects_store ON odin_private.objects (store_id, id);
CREATE INDEX objects_due ON odin_private.objects (store_id, id) WHERE state = 'waiting' OR blob_id IS NULL;
COMMENT ON TABLE odin_private.objects IS 'Objects in buckets: waiting = to be sent, its bytes are still here; kept = its bytes are there only; without a blob = to be removed.';

SELECT odin.guard_table('odin.object_stores');
GRANT SELECT ON odin.object_stores TO odin_admin;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('file_outside', 'OD608', 409, false, 'The bytes of this file are in the object store, out of SQL''s reach.', 'Fetch it with GET /files/SHA256 or the download_url of get_file; set_object_store with mode back brings files into PostgreSQL again.'),
  ('object_store_missing', 'OD609', 404, false, 'The org has no object store; its files are in PostgreSQL.', 'An administrator calls set_object_store.');
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('object_stores_endpoint_check', 'validation_failed', 'endpoint: must be https://host or https://host:port, in small letters, without a path.', 'For example https://s3.eu-central-1.amazonaws.com.'),
  ('object_stores_bucket_check', 'validation_failed', 'bucket: must be 3 to 63 small letters, digits, dots and hyphens.', NULL),
  ('object_stores_region_check', 'validation_failed', 'region: must be small letters, digits and hyphens.', 'For example eu-central-1; servers of your own mostly take us-east-1.'),
  ('object_stores_prefix_check', 'validation_failed', 'prefix: must be folders that end with a slash, of letters, digits, dots, hyphens and underscores.', 'For example farm/ or farms/berlin/.');
