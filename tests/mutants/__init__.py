"""One-line edits of what decides: the tests have to notice each. `make mutants` tries them all."""
