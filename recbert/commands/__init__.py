"""One file per verb of the `recbert` command."""
