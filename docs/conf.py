"""The documentation site: `sphinx-build -W docs site/html`. It is read without a network."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "drawjax"
html_title = "drawjax"
html_theme = "furo"
html_copy_source = False
exclude_patterns = ["_build"]
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "sphinx_copybutton",
]  # fmt: skip
html_math_renderer = "mathml"
nb_execution_mode = "off"  # a test executes the notebook; the site shows what is committed
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "literal"  # docstrings write `x` for code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
copybutton_exclude = ".linenos, .gp"


def _fences(app, what, name, obj, options, lines):
    """Fenced blocks of docstrings become literal ones, which is how reStructuredText has them."""
    text = re.sub(
        r"^```\n(.*?)^```$",
        lambda block: "::\n\n" + re.sub(r"^", "  ", block[1], flags=re.M),
        "\n".join(lines),
        flags=re.M | re.S,
    )
    lines[:] = text.splitlines()


def _math(translator, node):
    """Formulas as MathML, which browsers draw by themselves: no script, no fonts."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app):
    """Hooks of our own."""
    app.connect("autodoc-process-docstring", _fences)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
