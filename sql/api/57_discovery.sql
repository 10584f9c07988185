-- Finding printers in the network, and a picture from a printer's camera. A search proposes rows and adds none; a picture becomes a file of the store.

CREATE OR REPLACE FUNCTION odin.discover_printers(seconds integer DEFAULT 6) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  org bigint := odin._new_in();
  made bigint;
BEGIN
  PERFORM odin.would(jsonb_build_object('action', 'discover_printers', 'seconds', seconds));
  SELECT c.id INTO made FROM odin.commands c WHERE c.org_id = org AND c.printer_id IS NULL AND c.state IN ('queued', 'claimed') AND c.deadline > clock_timestamp() LIMIT 1;
  IF made IS NULL THEN
    INSERT INTO odin.commands(org_id, printer_id, verb, arguments, deadline, requested_by, call_id)
    VALUES (org, NULL, 'discover', jsonb_build_object('seconds', seconds), clock_timestamp() + interval '1 minute', odin.actor(), odin.current_call()) RETURNING id INTO made;
    PERFORM pg_notify('odin_work', '');
  END IF;
  PERFORM odin.suggest('create_printer', '{}', 'add one that was found; then set_printer_credentials and test_printer');
  RETURN jsonb_build_object('found', '[]'::jsonb, 'count', 0, 'detail', 'The search has begun.', 'command_id', made, 'command_state', 'queued');
END $f$;
COMMENT ON FUNCTION odin.discover_printers(integer) IS 'Searches the sidecar''s network for printers for some seconds: OctoPrint, Moonraker and PrusaLink by mDNS, Bambu Lab by their broadcast. Each one found says which arguments create_printer would take; nothing is added. known_printer_id: it is in the farm already.';

-- What a search found, with what the farm has already.
CREATE OR REPLACE FUNCTION odin._found(org bigint, said jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('count', jsonb_array_length(said->'found'), 'problems', coalesce(said->'problems', '[]'), 'found', (SELECT coalesce(jsonb_agg(e || jsonb_build_object('known_printer_id',
      (SELECT p.id FROM odin.printers p WHERE p.org_id = org AND ((e->>'serial' IS NOT NULL AND p.serial = e->>'serial')
         OR (p.protocol = e->>'protocol' AND (p.serial IS NULL OR e->>'serial' IS NULL) AND split_part(regexp_replace(p.address, '^[a-z]+://', ''), ' ', 1) = e->>'address')) ORDER BY p.id LIMIT 1)) ORDER BY n), '[]') FROM jsonb_array_elements(said->'found') WITH ORDINALITY x(e, n)));
$f$;

CREATE OR REPLACE FUNCTION odin.printer_snapshot(printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  url text;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  SELECT p.camera_url INTO url FROM odin.printers p WHERE p.id = now.id;
  IF url IS NULL THEN
    PERFORM odin.fail('not_supported', format('%s has no camera_url', now.name), 'Set camera_url with update_printer to an address that gives one picture, such as http://host/webcam/?action=snapshot.', jsonb_build_object('printer_id', now.id));
  END IF;
  RETURN odin._control(now, 'snapshot', jsonb_build_object('url', url), 'fetch a picture from its camera', 'printer_snapshot', '1 minute') || '{"picture": null}';
END $f$;
COMMENT ON FUNCTION odin.printer_snapshot(bigint) IS 'Fetches a picture from a printer''s camera (camera_url) through the sidecar and stores it as a file: picture has its sha256, which get_file takes.';

-- The sidecar hands in what a command brought; still under its lease, and a picture only.
CREATE OR REPLACE FUNCTION odin.worker_command_picture(command_id bigint, holder text, fence bigint, picture jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  c odin.commands;
  data bytea := decode(picture->>'base64', 'base64');
  blob bigint;
  f odin.files;
BEGIN
  SELECT * INTO c FROM odin.commands x WHERE x.id = command_id AND x.holder = worker_command_picture.holder AND x.fence = worker_command_picture.fence AND x.verb = 'snapshot' AND x.state = 'claimed';
  IF c.id IS NULL THEN RETURN '{"ok": false}'; END IF;
  IF picture->>'ending' NOT IN ('jpg', 'png', 'webp') OR octet_length(data) > 8388608 THEN
    PERFORM odin.fail('validation_failed', 'picture: a jpg, png or webp of at most 8 MiB');
  END IF;
  blob := odin._blob_begin(c.org_id, 'odin_worker', octet_length(data));
  FOR n IN 0 .. (octet_length(data) - 1) / odin._chunk_bytes() LOOP
    PERFORM odin._blob_append(blob, 'odin_worker', n, substring(data FROM n * odin._chunk_bytes() + 1 FOR odin._chunk_bytes()));
  END LOOP;
  f := (odin._blob_store(blob, 'odin_worker', encode(pg_catalog.sha256(data), 'hex'), format('camera/printer-%s-%s.%s', c.printer_id, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD-HH24MISS'), picture->>'ending'), 'download')).f;
  RETURN jsonb_build_object('ok', true, 'file_id', f.id, 'sha256', f.sha256, 'name', f.name, 'bytes', f.bytes);
END $f$;
COMMENT ON FUNCTION odin.worker_command_picture(bigint, text, bigint, jsonb) IS 'Stores the picture that a snapshot command fetched: {"base64", "ending"}.';

GRANT EXECUTE ON FUNCTION odin.discover_printers(integer), odin.printer_snapshot(bigint) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.worker_command_picture(bigint, text, bigint, jsonb) TO odin_worker;
