"""Reports of studies: figures, tables and a page, made from the files that studies leave."""
