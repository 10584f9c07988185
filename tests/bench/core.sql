-- A table and two tools of the plainest kind: what is measured is the way to them.
CREATE SCHEMA bench AUTHORIZATION odin_owner;
CREATE TABLE bench.parts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org_id bigint NOT NULL REFERENCES odin.orgs, name text NOT NULL, n int);
ALTER TABLE bench.parts OWNER TO odin_owner;
CREATE INDEX parts_org ON bench.parts (org_id, id);
SELECT odin.guard_table('bench.parts');
SELECT odin.apply_access();
CREATE FUNCTION bench.add_part(name text, n int) RETURNS bigint LANGUAGE plpgsql AS $f$
DECLARE made bigint;
BEGIN
  INSERT INTO bench.parts(org_id, name, n) VALUES (odin.my_org(), add_part.name, add_part.n) RETURNING id INTO made;
  RETURN made;
END $f$;
COMMENT ON FUNCTION bench.add_part(text, int) IS 'Adds a part.';
CREATE FUNCTION bench.get_part(id bigint) RETURNS bench.parts LANGUAGE sql STABLE AS 'SELECT * FROM bench.parts p WHERE p.id = get_part.id';
COMMENT ON FUNCTION bench.get_part(bigint) IS 'Shows a part.';
SELECT odin.demo_org();
GRANT USAGE ON SCHEMA bench TO odin_viewer;
GRANT SELECT, INSERT ON bench.parts TO odin_operator;
SELECT odin.register_tool('bench.add_part', scope => 'write');
SELECT odin.register_tool('bench.get_part');
ALTER ROLE demo_operator LOGIN;
SET ROLE demo_operator;
SELECT bench.add_part('first', 1);
RESET ROLE;
