"""How the page looks, and how its tabs answer to the keyboard. Text has a contrast of 4.5 to 1 and more."""

from __future__ import annotations

from typing import Any

import gradio as gr

STYLE = """
.gradio-container { max-width: 1100px !important; margin: 0 auto !important; }
.sharp img { image-rendering: pixelated; }
.picture .image-container { padding-top: 32px; }
.strip .image-container { padding: 0; }
.strip img { width: 100% !important; height: auto !important; image-rendering: pixelated; }
.examples .grid-wrap { min-height: 0 !important; height: auto !important; max-height: none !important; }
.examples .grid-container { grid-template: auto / repeat(4, minmax(0, 1fr)) !important; }
.examples .grid-container { grid-auto-rows: auto !important; }
.examples .thumbnail-item { aspect-ratio: 1; height: auto !important; }
.examples .gallery-item { height: auto !important; }
.examples img { image-rendering: pixelated; }
.choose { margin-bottom: -8px !important; }
.curves img { max-width: 760px; }
.note p, .note { color: var(--body-text-color); }
.note h1 { margin: 0 0 4px; }
.footnote p { color: var(--body-text-color-subdued); font-size: 0.9em; margin: 4px 0; }
:focus-visible { outline: 3px solid #2563eb !important; outline-offset: 2px; }
.dark [role=tab][aria-selected=true] { color: #93c5fd !important; }
.dark #hole-editor :is(p, span, div) { color: var(--body-text-color); }
.dark :focus-visible { outline-color: #93c5fd !important; }
.dark .picture:not(.sharp) img { border-radius: 6px; }
"""

# Gradio confines STYLE to what is inside the page's margins.
HEAD = "<style>@media (max-width: 480px) { .main.fillable { padding: 12px !important; } }</style>"

# The pattern of the ARIA practices: arrows move between tabs, Home and End go to the first and the last.
KEYS = """() => {
  document.addEventListener('keydown', (event) => {
    const tab = event.target.closest?.('[role=tab]');
    if (!tab) return;
    const tabs = [...tab.parentElement.querySelectorAll('[role=tab]:not([disabled])')];
    const place = tabs.indexOf(tab);
    const next = {
      ArrowRight: (place + 1) % tabs.length,
      ArrowLeft: (place + tabs.length - 1) % tabs.length,
      Home: 0,
      End: tabs.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    tabs[next].click();
    tabs[next].focus();
  });
}"""


def theme() -> Any:
    """Gradio's own, with system fonts, since nothing is loaded from afar, and darker colours behind text."""
    both = {
        "button_primary_background_fill": "#1d4ed8",
        "button_primary_background_fill_hover": "#1e40af",
        "button_primary_text_color": "#ffffff",
        "checkbox_background_color_selected": "#1d4ed8",
        "checkbox_border_color_selected": "#1d4ed8",
        "slider_color": "#1d4ed8",
    }
    light = {
        "body_text_color_subdued": "#4b5563",
        "block_info_text_color": "#4b5563",
        "block_label_text_color": "#374151",
        "block_title_text_color": "#1f2937",
        "input_placeholder_color": "#6b7280",
        "link_text_color": "#1d4ed8",
        "color_accent": "#1d4ed8",
    }
    dark = {
        "body_text_color_subdued": "#d1d5db",
        "block_info_text_color": "#d1d5db",
        "block_label_text_color": "#e5e7eb",
        "block_title_text_color": "#f3f4f6",
        "input_placeholder_color": "#d1d5db",
        "link_text_color": "#93c5fd",
    }
    chosen = light | both | {f"{name}_dark": colour for name, colour in (dark | both).items()}
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Default(primary_hue="blue", **fonts).set(**chosen)
