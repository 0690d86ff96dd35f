"""What Sphinx is told. docs/make_site.py lays out the pages that it builds."""

from sockmgr import __version__

project = "sockmgr"
version = release = __version__
html_title = f"sockmgr {__version__}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["deflist"]
highlight_language = "none"  # of fences that name none
suppress_warnings = ["misc.highlighting_failure"]  # a lexer knows less than a language
smartquotes = False  # "--option" is no dash
default_role = "code"
myst_heading_anchors = 4  # as the forge names them

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Names of other projects: what they mean is not looked up in a network.
nitpick_ignore_regex = [("py:.*", "(?!sockmgr).*")]

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
