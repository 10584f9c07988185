-- The tools about remote MCP servers. Adding one is for people in SQL.
DO $reg$
BEGIN
PERFORM odin.register_tool('odin.list_remote_servers', area => 'registry', toolset => 'remote', title => 'List remote servers', result_key => 'servers');
PERFORM odin.register_tool('odin.set_remote_secret', scope => 'admin', area => 'registry', toolset => 'remote', title => 'Set a remote server''s secret', hints => '{"destructive":false,"idempotent":true}',
  arguments => '{"url":{"maxLength":2000,"description":"The server''s address, as list_remote_servers shows it."},"header":{"maxLength":100,"description":"Name of the header; Authorization when left out."},"value":{"maxLength":4000,"secret":true,"description":"Its value, mostly \"Bearer ...\"."},"sealed":{"maxLength":20000,"secret":true,"description":"For sidecars."},"remove":{"description":"true: forget it."}}');
END $reg$;
