"""The demo: a scripted model that needs no key, and the conversation of `make demo`.

You can remove this folder. `settings.py` uses it only if it exists.
"""

from google.adk.models import LLMRegistry

from .offline_model import OfflineModel

LLMRegistry.register(OfflineModel)
