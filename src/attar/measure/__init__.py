"""Measuring codecs (``pip install 'attar[measure]'``): metrics, rival codecs, benchmarks, curves, reports."""
