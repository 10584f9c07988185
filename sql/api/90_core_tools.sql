-- The two tools every caller has: find a tool, call a tool.
SELECT odin.register_tool('odin.search_tools', title => 'Find tools', area => 'registry', toolset => 'core,lean', result_key => 'tools', default_fields => '{name,description,scope,input_schema}',
  arguments => '{"query": {"maxLength": 200, "description": "What you want to do, in a few words."}, "limit": {"minimum": 1, "maximum": 500}}');
SELECT odin.register_tool('odin.call_tool', title => 'Call a tool by name', area => 'registry', toolset => 'core,lean', hints => '{"read_only": false, "destructive": true, "idempotent": false}',
  arguments => '{"name": {"maxLength": 100, "description": "The tool''s name, as search_tools gives it."}, "arguments": {"description": "The tool''s own arguments."}}', raw => true);
