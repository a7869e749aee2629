"""Pictures fit for a paper: PNG to look at, SVG to typeset. The same result gives the same bytes."""
