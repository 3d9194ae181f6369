-- What came with an object and goes back with it, as JSON (empty: nothing), and the sizes of the parts that it was put
-- together from, such as 5242880x3,17 (empty: none, or not known).
ALTER TABLE object ADD COLUMN metadata TEXT NOT NULL DEFAULT '';
ALTER TABLE object ADD COLUMN part_sizes TEXT NOT NULL DEFAULT '';
ALTER TABLE upload ADD COLUMN metadata TEXT NOT NULL DEFAULT '';
-- Which service this is, as the note in the place of its objects says it too, and the last mark that both got.
ALTER TABLE service_owner ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE service_owner ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
-- Files of objects that no row names, and since when that is known.
CREATE TABLE unnamed_file (
    file TEXT PRIMARY KEY,
    noted_ms INTEGER NOT NULL
) STRICT;
