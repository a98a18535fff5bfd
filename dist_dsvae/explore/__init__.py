"""A page in the browser for looking at a trained model, or at a run while it trains.

source    what is looked at: a published model, a run, or both
uploads   what files are taken, and what is said of those that are not
drawing   the pictures, as functions of a model and of choices; training, those of a run's files
tabs_*    controls, and which function answers to them
app       the page, and serving it
"""

import os

# Gradio reads these when it is imported; the page tells nobody that it is in use.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
