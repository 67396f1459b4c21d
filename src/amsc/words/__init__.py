"""How values are put into words: amounts, reasons, repeated names, and the pages that they print as."""
