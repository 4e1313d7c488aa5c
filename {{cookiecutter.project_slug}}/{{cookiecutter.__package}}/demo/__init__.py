"""The demo: a scripted model that needs no key, and the conversation of `make demo`.

The package can be removed whole once you have a key; `settings.py` uses it only if it is there.
"""

from google.adk.models import LLMRegistry

from .offline_model import OfflineModel

LLMRegistry.register(OfflineModel)
