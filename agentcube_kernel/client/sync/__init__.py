"""The clients without `await`: a thin face of the asynchronous ones, which run on one background event loop."""
