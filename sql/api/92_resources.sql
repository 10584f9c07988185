-- Registers the farm's resources and prompts. Nothing is decided here.
SELECT odin.register_resource('odin://printers/{id}', 'odin.resource_printer', 'printer', 'Printer', area => 'printers', arguments => '{"id": {"x-complete": "odin.complete_printer"}}');
SELECT odin.register_resource('odin://jobs/{id}', 'odin.resource_job', 'job', 'Job', area => 'jobs', arguments => '{"id": {"x-complete": "odin.complete_any_job"}}');
SELECT odin.register_resource('odin://orders/{id}', 'odin.resource_order', 'order', 'Order', area => 'orders', arguments => '{"id": {"x-complete": "odin.complete_order"}}');
SELECT odin.register_resource('odin://spools/{id}', 'odin.resource_spool', 'spool', 'Spool', area => 'spools', arguments => '{"id": {"x-complete": "odin.complete_spool"}}');
SELECT odin.register_resource('odin://docs/errors', 'odin.resource_errors', 'error_codes', 'Error codes', mime_type => 'text/markdown');
SELECT odin.register_resource('odin://docs/guide', 'odin.resource_guide', 'agent_guide', 'Working with this farm', mime_type => 'text/markdown');
SELECT odin.register_prompt('odin.prompt_morning_check', 'morning_check', 'Morning check');
SELECT odin.register_prompt('odin.prompt_why_waiting', 'why_is_my_job_waiting', 'Why is my job waiting?', arguments => '{"job_id": {"description": "Number of the job.", "x-complete": "odin.complete_waiting_job"}}');
SELECT odin.register_prompt('odin.prompt_plan_week', 'plan_the_week', 'Plan the week', arguments => '{"notes": {"description": "Anything the plan has to respect."}}');
SELECT odin.register_prompt('odin.prompt_clear_beds', 'clear_the_beds', 'Clear the beds');
SELECT odin.register_prompt('odin.prompt_quote_part', 'quote_a_part', 'Quote a part', arguments => '{"part": {"description": "Name of the model or part.", "x-complete": "odin.complete_model"}, "quantity": {"description": "How many pieces."}}');
