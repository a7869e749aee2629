"""A result, or several, as one page of HTML that needs nothing else: to look at, to print, to pass on.

    results ─▶ charts (plain data) ─▶ document ─▶ page.html with page.css, page.js and uPlot in it

What there is to read is written into the page by `document`, from the parts that a view gives the terminal as well.
What there is to see is data, `charts`, which `page.js` draws.
"""

PAGE = "report.html"
"""In the folder of a result."""
