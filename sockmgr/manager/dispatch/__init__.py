"""The dispatcher as a manager sees it: has it started, adopted, replaced, and told what to do."""
