-- Credentials of printers: write-only. They arrive sealed by the sidecar; the database can neither read nor use them. And the test of a printer.

CREATE OR REPLACE FUNCTION odin.set_printer_credentials(printer_id bigint, api_key text DEFAULT NULL, username text DEFAULT NULL, password text DEFAULT NULL, access_code text DEFAULT NULL, sealed text DEFAULT NULL, remove boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  had boolean;
BEGIN
  PERFORM odin._mine('printer', printer_id, 'printer_id', 'odin_admin');
  IF coalesce(api_key, username, password, access_code) IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', 'credentials must not reach the database in clear', 'Call this tool through a sidecar (MCP or REST) that has ODIN_SECRET_KEY; it seals them on the way.');
  ELSIF (sealed IS NULL) = (NOT remove) THEN
    PERFORM odin.fail('validation_failed', 'api_key: give the credentials the printer asks for, or remove: true', 'OctoPrint and Moonraker: api_key. PrusaLink: api_key, or username and password. Bambu: access_code. Duet: password.', '{"field":"api_key"}');
  ELSIF sealed !~ '^sealed:v1:[A-Za-z0-9_-]{40,}$' THEN
    PERFORM odin.fail('validation_failed', 'sealed: this is not a credential sealed by a sidecar', NULL, '{"field":"sealed"}');
  END IF;
  had := EXISTS (SELECT 1 FROM odin_private.printer_secrets s WHERE s.printer_id = set_printer_credentials.printer_id);
  IF remove THEN
    DELETE FROM odin_private.printer_secrets s WHERE s.printer_id = set_printer_credentials.printer_id;
  ELSE
    INSERT INTO odin_private.printer_secrets AS s (printer_id, sealed, set_by) VALUES (set_printer_credentials.printer_id, set_printer_credentials.sealed, odin.actor())
    ON CONFLICT ON CONSTRAINT printer_secrets_pkey DO UPDATE SET sealed = excluded.sealed, set_by = excluded.set_by, set_at = clock_timestamp();
  END IF;
  -- A certificate that was trusted because it was seen first is forgotten: whoever sets credentials anew vouches for what answers next.
  UPDATE odin.printer_facts f SET facts = f.facts - 'certificate' WHERE f.printer_id = set_printer_credentials.printer_id AND f.facts ? 'certificate';
  PERFORM odin.would(jsonb_build_object('action', 'set_printer_credentials', 'printer_id', printer_id, 'had_credentials', had, 'remove', remove));
  PERFORM odin.suggest('test_printer', jsonb_build_object('printer_id', printer_id), 'see whether the printer takes them');
  RETURN jsonb_build_object('success', true, 'printer_id', printer_id, 'has_credentials', NOT remove, 'replaced', had);
END $f$;
COMMENT ON FUNCTION odin.set_printer_credentials(bigint, text, text, text, text, text, boolean) IS 'Sets what the farm logs in to a printer with: api_key (OctoPrint, Moonraker, PrusaLink), username and password, or access_code. Write-only: nobody can read it back. Then call test_printer.';

CREATE OR REPLACE FUNCTION odin.test_printer(printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  RETURN odin._control(now, 'test', '{}', 'ask the printer''s server who it is; nothing moves', 'test_printer', '1 minute') || '{"works": false}';
END $f$;
COMMENT ON FUNCTION odin.test_printer(bigint) IS 'Tries to reach a printer and says exactly what is wrong: name not found, refused, nothing answers, TLS, wrong key, another kind of server. Changes nothing.';

GRANT EXECUTE ON FUNCTION odin.set_printer_credentials(bigint, text, text, text, text, text, boolean) TO odin_admin;
GRANT EXECUTE ON FUNCTION odin.test_printer(bigint) TO odin_operator;
