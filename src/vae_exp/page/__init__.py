"""A run on one page: `report.html`."""
