-- Slicing: what the workers' slicers know, profiles of the org as versioned rows, and the errors of it all.
-- A profile version is never changed once written: what was sliced with it stays explained.

CREATE TABLE odin.slicers (
  slicer text PRIMARY KEY CHECK (slicer IN ('cura', 'prusa', 'orca')),
  version text,
  settings jsonb NOT NULL DEFAULT '{}',
  seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin.slicers IS 'Slicers that a worker announced, with the names and limits of their settings.';

CREATE TABLE odin.slicer_presets (
  slicer text NOT NULL REFERENCES odin.slicers ON DELETE CASCADE,
  tier text NOT NULL CHECK (tier IN ('machine', 'process', 'filament')),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  label text NOT NULL,
  file text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (slicer, tier, name)
);
COMMENT ON TABLE odin.slicer_presets IS 'Presets that come with a slicer: Cura''s printer definitions, Orca''s machines, processes and filaments.';

CREATE TABLE odin.slicer_profiles (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint NOT NULL REFERENCES odin.orgs,
  slicer text NOT NULL CHECK (slicer IN ('cura', 'prusa')),
  tier text NOT NULL CHECK (tier IN ('printer', 'process', 'material')),
  name text NOT NULL CHECK (name = btrim(name) AND length(name) BETWEEN 1 AND 100),
  version int NOT NULL DEFAULT 1 CHECK (version > 0),
  is_current boolean NOT NULL DEFAULT true,
  base text CHECK (length(base) <= 128),
  settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
  material text CHECK (material ~ '^[A-Z0-9][A-Z0-9_+-]{0,29}$'),
  density numeric(5,3) CHECK (density BETWEEN 0.5 AND 10),
  notes text CHECK (length(notes) <= 2000),
  created_by text NOT NULL DEFAULT current_user,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT slicer_profiles_version_key UNIQUE (org_id, slicer, tier, name, version),
  CONSTRAINT slicer_profiles_material_tier CHECK (tier = 'material' OR (material IS NULL AND density IS NULL)),
  CONSTRAINT slicer_profiles_base_tier CHECK (tier = 'printer' OR base IS NULL)
);
COMMENT ON TABLE odin.slicer_profiles IS 'Profiles for slicing, by tier: printer (bed, nozzle, start code), process (layers, walls, speeds), material (temperatures, density). Each change is a new version.';
COMMENT ON COLUMN odin.slicer_profiles.base IS 'Printer tier of Cura: the definition it builds on, as creality_ender3pro.';
CREATE UNIQUE INDEX slicer_profiles_current ON odin.slicer_profiles (org_id, slicer, tier, lower(name)) WHERE is_current;

SELECT odin.guard_table('odin.slicer_profiles');
GRANT SELECT ON odin.slicers, odin.slicer_presets, odin.slicer_profiles TO odin_viewer;
GRANT INSERT ON odin.slicer_profiles TO odin_operator;
GRANT UPDATE (is_current) ON odin.slicer_profiles TO odin_operator;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('slicer_missing', 'OD610', 503, false, 'No worker has this slicer.', 'Install it where a worker runs; see the hint.'),
  ('profile_not_found', 'OD611', 404, false, 'No such slicing profile or preset.', NULL),
  ('slicing_failed', 'OD612', 422, false, 'The slicer could not make G-code of this model.', 'Inspect the model (inspect_model); repair it if it is not watertight.'),
  ('does_not_fit', 'OD613', 422, false, 'The print goes beyond the bed or the temperatures of the printer it is meant for.', NULL),
  ('not_sliceable', 'OD614', 422, false, 'This slicer does not read this kind of file.', NULL);
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('slicer_profiles_material_tier', 'validation_failed', 'material and density belong to profiles of tier material.', NULL),
  ('slicer_profiles_base_tier', 'validation_failed', 'base belongs to profiles of tier printer.', NULL);
