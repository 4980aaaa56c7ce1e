"""The documentation site: `sphinx-build -W docs site/html`. It is read without a network."""

import importlib.util
import pathlib
import re
import subprocess
import sys

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "drawjax"
html_title = "drawjax"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
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


def _markup(app, what, name, obj, options, lines):
    """Fenced blocks become literal ones; runs before napoleon."""
    text = re.sub(
        r"^```\n(.*?)^```$",
        lambda block: "::\n\n" + re.sub(r"^", "  ", block[1], flags=re.M),
        "\n".join(lines),
        flags=re.M | re.S,
    )
    # Napoleon takes what stands before a colon in a field's first line for the field's type, so an
    # empty comment goes before it.
    first = ["..", ""] if what in ("attribute", "property") else []
    lines[:] = first + text.splitlines()


def _math(translator, node):
    """Formulas as MathML, which browsers draw by themselves: no script, no fonts."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def _plain_arrays(app, what, name, obj, options, signature, returns):
    """`Float[Array, "batch"]` as it is written, without the place where Array is defined."""
    plain = (text and text.replace("jaxlib._jax.Array", "Array") for text in (signature, returns))
    return tuple(plain)


def _plain_fields(app, doctree, docname):
    """The same for the types of fields, which autodoc writes by itself."""
    for text in list(doctree.findall(nodes.Text)):
        if "jaxlib._jax.Array" in text:
            text.parent.replace(text, nodes.Text(text.replace("jaxlib._jax.Array", "Array")))


def _demo(app, exception):
    """The page that draws, docs/demo, where it can be built."""
    if exception or app.builder.name != "html" or not importlib.util.find_spec("jax2onnx"):
        return
    program = pathlib.Path(__file__).parent / "demo" / "build.py"
    subprocess.run([sys.executable, program, pathlib.Path(app.outdir) / "demo"], check=True)


def setup(app):
    """Hooks of our own."""
    app.connect("autodoc-process-docstring", _markup, priority=400)
    app.connect("autodoc-process-signature", _plain_arrays)
    app.connect("doctree-resolved", _plain_fields)
    app.connect("build-finished", _demo)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
