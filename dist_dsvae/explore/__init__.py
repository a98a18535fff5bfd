"""A page in the browser for looking at a trained model, or at a run while it trains.

subject         what is looked at: a published model, or a run and the model of its newest checkpoint
examples        what the page opens with: the samples that the model knows best, pictures to try things with
uploads         what files are taken, and what is said of those that are not
renderings      the pictures, as functions of a model and of choices; watched_run, those of a run's files
tab*_*          controls, and which function answers to them; control_checks, what they may hold
words           what a visitor reads; appearance, what it looks like
app             the page, and serving it
"""

import os

# Gradio reads these when it is imported; the page tells nobody that it is in use.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
