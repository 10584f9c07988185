-- Direct control of printers in the registry: the farm's names and PrintMCP's, with its ranges, hints and the rule "preview unless confirm: true".
DO $reg$
DECLARE
  which constant jsonb := '{"printer_id":{"minimum":1,"description":"Which printer; may be left out when there is only one."}}';
  heat constant jsonb := '{"heater":{"enum":["tool","bed"]},"target":{"minimum":0,"maximum":300,"description":"Degrees C; 0 = off. Bed at most 140, and never above the printer''s own limit."},"tool_index":{"minimum":0,"maximum":9}}';
  axes constant jsonb := '{"axes":{"maxItems":6,"items":{"type":"string","enum":["x","y","z","X","Y","Z"]},"description":"Some of x, y, z; left out = all."}}';
  jog constant jsonb := '{"x":{"minimum":-500,"maximum":500,"description":"mm, relative."},"y":{"minimum":-500,"maximum":500,"description":"mm, relative."},"z":{"minimum":-500,"maximum":500,"description":"mm, relative."},"speed":{"minimum":1,"maximum":12000,"description":"mm/min."}}';
  serial constant jsonb := '{"action":{"enum":["connect","disconnect"]},"port":{"maxLength":128},"baudrate":{"minimum":1200,"maximum":1000000}}';
  rows constant jsonb := '{"limit":{"minimum":1,"maximum":200}}';
  t record;
BEGIN
  FOR t IN SELECT * FROM (VALUES
    ('get_command',              'read',  'Show a command',            '{"idempotent":true}',                                          'none',    '{"command_id":{"minimum":1}}'::jsonb),
    ('printer_status',           'read',  'Printer status',            '{"idempotent":true}',                                          'none',    which),
    ('printer_files',            'read',  'Files on a printer',        '{"idempotent":true}',                                          'none',    which || rows),
    ('start_print',              'write', 'Print a stored file',       '{"destructive":true,"idempotent":false,"open_world":true}',    'confirm', which || '{"path":{"minLength":1,"maxLength":512},"plate":{"minimum":1,"maximum":64}}'),
    ('set_temperature',          'write', 'Set a temperature',         '{"destructive":true,"idempotent":true,"open_world":true}',     'confirm', which || heat),
    ('home_printer',             'write', 'Home axes',                 '{"destructive":false,"idempotent":false,"open_world":true}',   'confirm', which || axes),
    ('move_printer',             'write', 'Move the head',             '{"destructive":false,"idempotent":false,"open_world":true}',   'confirm', which || jog),
    ('set_light',                'write', 'Switch the light',          '{"destructive":false,"idempotent":true,"open_world":true}',    'confirm', which),
    ('set_fan',                  'write', 'Set the part fan',          '{"destructive":false,"idempotent":true,"open_world":true}',    'confirm', which || '{"percent":{"minimum":0,"maximum":100}}'),
    ('set_speed',                'write', 'Set the print speed',       '{"destructive":false,"idempotent":true,"open_world":true}',    'confirm', which || '{"percent":{"minimum":10,"maximum":200}}'),
    ('skip_objects',             'write', 'Leave objects out',         '{"destructive":true,"idempotent":true,"open_world":true}',     'confirm', which || '{"objects":{"minItems":1,"maxItems":64,"items":{"type":"string","maxLength":100}}}'),
    ('printer_snapshot',         'write', 'Take a picture',            '{"destructive":false,"idempotent":false,"open_world":true}',   'none',    which),
    ('discover_printers',        'write', 'Search for printers',       '{"destructive":false,"idempotent":true,"open_world":true}',    'none',    '{"seconds":{"minimum":2,"maximum":15}}'),
    ('connect_printer',          'write', 'Connect a printer',         '{"destructive":false,"idempotent":true,"open_world":true}',    'confirm', which || serial),
    ('printer_gcode',            'admin', 'Send G-code',               '{"destructive":true,"idempotent":false,"open_world":true}',    'confirm', which || '{"lines":{"minItems":1,"maxItems":100,"items":{"type":"string","maxLength":200}}}'),
    ('test_printer',             'write', 'Test a printer',            '{"destructive":false,"idempotent":true,"open_world":true}',    'none',    which),
    ('set_printer_credentials',  'admin', 'Set printer credentials',   '{"destructive":true,"idempotent":true,"open_world":false}',    'none',    '{"printer_id":{"minimum":1},"api_key":{"maxLength":500,"secret":true},"username":{"maxLength":200,"secret":true},"password":{"maxLength":500,"secret":true},"access_code":{"maxLength":100,"secret":true},"sealed":{"maxLength":4000,"description":"Made by the sidecar; leave it out."}}'),
    ('octoprint_get_status',     'read',  'Get OctoPrint Printer Status',   '{"idempotent":true,"open_world":true}',                       'none',    which),
    ('octoprint_list_files',     'read',  'List G-code Files on OctoPrint', '{"idempotent":true,"open_world":true}',                       'none',    which || rows),
    ('octoprint_get_job',        'read',  'Get OctoPrint Job Progress',     '{"idempotent":true,"open_world":true}',                       'none',    which),
    ('octoprint_connect',        'write', 'Connect/Disconnect the Printer', '{"destructive":false,"idempotent":true,"open_world":true}',   'confirm', which || serial),
    ('octoprint_upload_file',    'write', 'Upload G-code to OctoPrint',     '{"destructive":false,"idempotent":false,"open_world":true}',  'none',    which || '{"gcode_path":{"minLength":1,"maxLength":512,"description":"A .gcode, .gco or .g file of the farm''s file store."},"dest_path":{"maxLength":256,"description":"Folder on the printer."},"confirm":{"description":"Needed only with print_after_upload."}}'),
    ('octoprint_start_print',    'write', 'Start a Print on OctoPrint',     '{"destructive":true,"idempotent":false,"open_world":true}',   'confirm', which || '{"path":{"minLength":1,"maxLength":512}}'),
    ('octoprint_control_job',    'write', 'Pause/Resume/Cancel the Print Job', '{"destructive":true,"idempotent":false,"open_world":true}', 'confirm', which || '{"action":{"enum":["pause","resume","cancel"]}}'),
    ('octoprint_set_temperature','write', 'Set Tool/Bed Temperature',       '{"destructive":true,"idempotent":true,"open_world":true}',    'confirm', which || heat),
    ('octoprint_home',           'write', 'Home Printer Axes',              '{"destructive":false,"idempotent":false,"open_world":true}',  'confirm', which || axes),
    ('octoprint_move',           'write', 'Jog the Print Head',             '{"destructive":false,"idempotent":false,"open_world":true}',  'confirm', which || jog)
  ) v(name, scope, title, hints, confirm, arguments) LOOP
    PERFORM odin.register_tool('odin.' || t.name, scope => t.scope, area => 'printers', toolset => CASE t.name WHEN 'get_command' THEN 'farm,printers' ELSE 'printers' END, title => t.title, hints => t.hints::jsonb, confirm => t.confirm, arguments => t.arguments);
  END LOOP;
END $reg$;
