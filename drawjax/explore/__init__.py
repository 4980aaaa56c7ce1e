"""A page to play with: the attention window on an image, and a pretrained model that draws.

`python -m drawjax.explore` opens it; needs `pip install 'drawjax[explore]'`. See
docs/guides/explorer.md.
"""
