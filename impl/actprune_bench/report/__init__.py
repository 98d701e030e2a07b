"""What a reader sees of results.json: a table in the terminal, a page, and the README's picture."""
