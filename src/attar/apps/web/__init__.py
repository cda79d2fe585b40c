"""The web app (``pip install 'attar[web]'``): a local server with a public JSON API, and the pages that use it.

::

    browser --> guard (Host, Origin, headers) --> api (thin routes) --> pool (bounded) --> workshop (codec, measure)
"""
