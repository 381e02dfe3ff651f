"""Sphinx, reading the pages that docs/build.py lays out. Nothing is executed: the outputs shown are the ones that were tested and committed."""
project = 'gekko'
author = 'The gekko founders'
copyright = '2026 onwards, The gekko founders'
extensions = ['myst_nb']
nb_execution_mode = 'off'
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type', 'misc.highlighting_failure']
html_theme = 'alabaster'
html_title = 'gekko'
html_theme_options = {
    'font_family': 'system-ui, sans-serif', 'head_font_family': 'system-ui, sans-serif', 'font_size': '16px', 'pre_bg': '#f6f7f8', 'sidebar_width': '240px',
    'description': 'The notebook is the strategy, the production job and the record of what it did.', 'fixed_sidebar': True, 'page_width': '1150px',
}
html_show_sourcelink = False
